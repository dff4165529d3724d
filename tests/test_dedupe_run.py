"""`--dedupe` and `--reuse` as commands: what is refused, and kill -9 over a real server that counts calls per prompt."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from batchrun.engine.going_on import prepare_resume
from batchrun.engine.start import Prepared, prepare
from batchrun.errors import RefusedError
from batchrun.events import Event, Notice
from batchrun.journal import End
from batchrun.models import Outcome, State
from batchrun.plan.sources import gather

OWN = {"profile": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
Told = list[Event]


@pytest.fixture(autouse=True)
def _alone(alone: None) -> None:
    rows = ({"id": number, "text": text} for number, text in enumerate("abba"))
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("p.md").write_text("Say {{ text }}")


def prepared(output: str, told: Told | None = None, **flags: Any) -> Prepared:
    chosen = {"input": "in.jsonl", "prompt": "p.md", "output": output, **OWN, **flags}
    return prepare(gather(chosen), (told if told is not None else []).append)


async def answered(run: Prepared) -> str:
    """Every row is done; the run's id."""
    run.journal.pair(dedupe=False)
    run.journal.start()
    for row in run.journal.pending():
        run.journal.begin(row.seq, 1)
        run.journal.end(row.seq, 1, End(200, 0.1), '{"choices":[]}')
        await run.journal.finish(row.seq, Outcome(State.DONE, True, None, None, frozenset(), None))
    run.close(0)
    return run.run.id


@pytest.mark.parametrize(
    ("theirs", "mine", "said"),
    [
        ({"profile": "sim", "base_url": None}, {}, "holds simulated replies, which would pass for real ones"),
        ({}, {"profile": "sim", "base_url": None}, "holds real replies, which would pass for simulated ones"),
        ({"base_url": "http://127.0.0.1:7/v1"}, {}, "came from http://127.0.0.1:7/v1"),
    ],
)
async def test_replies_that_would_not_be_this_runs_are_refused(theirs: Any, mine: Any, said: str) -> None:
    there = await answered(prepared("there.jsonl", **theirs))
    with pytest.raises(RefusedError, match=said):
        prepared("here.jsonl", reuse=there, **mine)
    assert [path.stem for path in Path(".batchrun").glob("*.db")] == [there]


async def test_another_model_has_other_requests_and_takes_nothing() -> None:
    there = await answered(prepared("there.jsonl"))
    told: Told = []
    prepared("here.jsonl", told, reuse=there, model="other").close()
    assert [event.message for event in told if isinstance(event, Notice)] == [
        f"0 rows get their replies from run {there}, without a call"
    ]


async def test_a_run_that_is_begun_anew_takes_what_it_had() -> None:
    there = await answered(prepared("out.jsonl"))
    run = prepared("out.jsonl", fresh=True, reuse="last")
    assert len(run.journal.answered()) == 4
    run.close()
    again = prepared("out.jsonl", reuse="last")
    assert again.run.id != there
    again.close()


async def test_a_run_that_was_killed_while_it_took_replies_over_takes_the_rest_first() -> None:
    there = await answered(prepared("there.jsonl"))
    run = prepared("here.jsonl")
    run.close()
    with closing(sqlite3.connect(run.run.path)) as connection, connection:
        connection.execute("INSERT INTO meta (name, value) VALUES ('borrowing', '1')")
    with pytest.raises(RefusedError, match="was ended while it took replies over") as refused:
        prepare_resume("here.jsonl", {}, failed=False)
    assert refused.value.hint == f"name that other run again: batchrun resume {run.run.id} --reuse OTHER"
    going_on, _ = prepare_resume("here.jsonl", {"reuse": there, "base_url": OWN["base_url"]}, failed=False)
    assert len(going_on.journal.answered()) == 4
    assert not going_on.journal.borrowing
    assert going_on.news == f"4 rows get their replies from run {there}, without a call"
    going_on.close()
