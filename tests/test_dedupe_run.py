"""`--dedupe` and `--reuse` as commands: what is refused, and kill -9 over a real server that counts calls per prompt."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from batchrun.engine.resume import prepare_resume
from batchrun.engine.start import Prepared, prepare
from batchrun.errors import RefusedError
from batchrun.events import Event, Notice
from batchrun.journal import End, ingest
from batchrun.models import Outcome, State
from batchrun.plan.sources import gather

OWN = {"profile": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
HERE = {"base_url": OWN["base_url"]}
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
        ({"profile": "sim", "base_url": None}, {}, "has simulated replies, and this run needs real ones"),
        ({}, {"profile": "sim", "base_url": None}, "has real replies, and this run needs simulated ones"),
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
        f"0 rows reuse replies of run {there} without a new request"
    ]


async def test_a_run_that_is_begun_anew_takes_what_it_had() -> None:
    there = await answered(prepared("out.jsonl"))
    run = prepared("out.jsonl", fresh=True, reuse="last")
    assert len(run.journal.answered()) == 4
    run.close()
    again = prepared("out.jsonl", reuse="last")
    assert again.run.id != there
    again.close()


class Killed(BaseException):
    """Nothing is undone."""


async def killed_while_copying(monkeypatch: pytest.MonkeyPatch, there: str, batches: int, **flags: Any) -> str:
    """A run that had copied so many replies of `there` when it was killed; 0: just before its rows were taken in."""
    done = 0

    def transaction(*args: Any) -> Any:
        nonlocal done
        if done == batches:
            shutil.copytree(".batchrun", "killed")
            raise Killed
        done += 1
        return ingest.transaction(*args)

    with monkeypatch.context() as patched:
        patched.setattr("batchrun.journal.duplicates.BATCH", 1)
        patched.setattr("batchrun.journal.duplicates.transaction", transaction)
        with pytest.raises(Killed):
            prepared("here.jsonl", reuse=there, **flags)
    shutil.rmtree(".batchrun")
    Path("killed").rename(".batchrun")
    return next(path.stem for path in Path(".batchrun").glob("*.db") if path.stem != there)


def reused(run: Prepared) -> int:
    return len(run.journal.answered())


@pytest.mark.parametrize("batches", [0, 2])
async def test_the_same_command_takes_the_rest_over_though_it_names_no_other_run(
    monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    there = await answered(prepared("there.jsonl"))
    await killed_while_copying(monkeypatch, there, batches)
    told: Told = []
    run = prepared("here.jsonl", told)
    assert reused(run) == 4
    assert run.journal.reusing is None
    assert [event.message for event in told if isinstance(event, Notice)] == [
        f"{4 - batches} rows reuse replies of run {there} without a new request"
    ]
    run.close()


async def test_resume_takes_the_rest_over_from_another_directory_too(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("sub").mkdir()
    there = await answered(prepared("sub/there.jsonl"))
    await killed_while_copying(monkeypatch, "sub/there.jsonl", 1)
    run, _ = prepare_resume("here.jsonl", HERE, failed=False)
    assert run.notice == f"3 rows reuse replies of run {there} without a new request"
    assert reused(run) == 4
    run.close()


async def test_a_kill_before_the_first_reply_is_taken_over_does_not_forget_it(monkeypatch: pytest.MonkeyPatch) -> None:
    there = await answered(prepared("there.jsonl"))

    def killed(*_: Any) -> None:
        shutil.copytree(".batchrun", "killed")
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("batchrun.engine.start.take_replies", killed)
        with pytest.raises(Killed):
            prepared("here.jsonl", reuse=there)
    shutil.rmtree(".batchrun")
    Path("killed").rename(".batchrun")
    run, _ = prepare_resume("here.jsonl", HERE, failed=False)
    assert reused(run) == 4
    run.close()


async def test_a_run_whose_other_run_is_gone_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    there = await answered(prepared("there.jsonl"))
    run = await killed_while_copying(monkeypatch, there, 1)
    for path in Path(".batchrun").glob(f"{there}*"):
        path.unlink()
    for again in (lambda: prepare_resume("here.jsonl", HERE, failed=False), lambda: prepared("here.jsonl")):
        with pytest.raises(RefusedError, match="was stopped while it took replies from") as refused:
            again()
        assert f"--reuse {run}" in (refused.value.hint or "")
    resumed, _ = prepare_resume("here.jsonl", {"reuse": run, **HERE}, failed=False)
    assert (reused(resumed), resumed.journal.reusing) == (1, None)
    resumed.close()


async def test_the_rest_is_refused_where_another_provider_is_asked_by_now(monkeypatch: pytest.MonkeyPatch) -> None:
    there = await answered(prepared("there.jsonl"))
    run = await killed_while_copying(monkeypatch, there, 1)
    with pytest.raises(RefusedError, match=r"came from http://127\.0\.0\.1:9/v1") as refused:
        prepared("here.jsonl", base_url="http://127.0.0.1:7/v1")
    assert f"--reuse {run}" in (refused.value.hint or "")
