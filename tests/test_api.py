"""The Python API: the same run as the command's, over rows that are at hand."""

import asyncio
import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import pytest

import batchrun

pytestmark = pytest.mark.usefixtures("elsewhere")
ROWS = [{"id": number, "text": f"row {number}"} for number in range(8)]
SIM: dict[str, Any] = {"profile": "sim", "progress": False}


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_rows_come_back_with_the_new_column_in_their_order() -> None:
    result = batchrun.run(ROWS, prompt="Say: {{ text }}", **SIM)
    assert result.ok
    assert result.check() is result
    assert [row["id"] for row in result.rows] == list(range(8))
    assert result.rows[3] == {"id": 3, "text": "row 3", "output": "[simulated] Say: row 3"}
    assert [json.loads(line) for line in result.output.read_text("utf-8").splitlines()] == result.rows
    assert {outcome.state for outcome in result.outcomes} == {"done"}
    assert "row 3" not in repr(result), "a notebook would show every row twice"


def test_the_same_call_again_sends_nothing_and_more_rows_send_only_themselves() -> None:
    first = batchrun.run(ROWS, prompt="Say: {{ text }}", output="o.jsonl", **SIM)
    again = batchrun.run(ROWS, prompt="Say: {{ text }}", output="o.jsonl", **SIM)
    more = batchrun.run([*ROWS, {"id": 8, "text": "row 8"}], prompt="Say: {{ text }}", output="o.jsonl", **SIM)
    assert (first.totals.attempts, again.totals.attempts, more.totals.attempts) == (8, 8, 9)
    assert again.rows == first.rows
    assert (again.run, more.run) == (first.run, first.run)


def test_rows_that_another_process_reads_do_not_change_under_it() -> None:
    batchrun.run(ROWS[:2], prompt="Say: {{ text }}", output="o.jsonl", **SIM)
    (source,) = Path(".batchrun").glob("*.rows.jsonl")
    before = source.read_text("utf-8")
    with source.open(encoding="utf-8") as reader:
        batchrun.run(ROWS, prompt="Say: {{ text }}", output="o.jsonl", **SIM)
        assert reader.read() == before


async def test_it_works_inside_a_running_loop() -> None:
    result = batchrun.run(ROWS[:2], prompt="Say: {{ text }}", **SIM)
    assert [row["output"] for row in result.rows] == ["[simulated] Say: row 0", "[simulated] Say: row 1"]


async def test_outcomes_come_one_by_one() -> None:
    async with batchrun.open(ROWS, prompt="Say: {{ text }}", profile="sim") as run:
        outcomes = [outcome async for outcome in run]
        result = await run.result()
    assert sorted(outcome.row["id"] for outcome in outcomes) == list(range(8))
    assert all(outcome.output["output"].startswith("[simulated]") for outcome in outcomes)
    assert result.ok


async def test_leaving_early_stops_the_run_and_leaves_the_rest_pending() -> None:
    rows = [{"id": number, "text": f"row {number}"} for number in range(300)]
    async with batchrun.open(rows, prompt="Say: {{ text }}", profile="sim", concurrency=2, output="o.jsonl") as run:
        async for _ in run:
            break
    result = await run.result()
    assert result.exit_code is batchrun.ExitCode.INTERRUPTED
    assert 0 < result.totals.done < 300
    assert result.totals.unknown == 0
    rest = await asyncio.to_thread(batchrun.run, rows, "Say: {{ text }}", output="o.jsonl", **SIM)
    assert (rest.totals.done, rest.totals.possibly_billed, rest.totals.replies) == (300, 0, 300)


@pytest.mark.parametrize("count", [1, 3])
def test_failures_are_in_the_outcomes_and_not_in_the_rows(count: int) -> None:
    Path("batchrun.toml").write_text('[sim]\nfaults = ["400=text:bad"]\n', "utf-8")
    rows = [{"text": f"good {number}"} for number in range(3)] + [{"text": f"bad {number}"} for number in range(count)]
    result = batchrun.run(rows, prompt="Say: {{ text }}", **SIM)
    failed = [outcome for outcome in result.outcomes if outcome.state == "failed"]
    assert (result.ok, len(result.rows), len(failed)) == (False, 3, count)
    assert failed[0].row == {"text": "bad 0"}
    assert failed[0].permanent
    assert failed[0].message
    with pytest.raises(batchrun.BatchrunError, match=f"{count} of {3 + count} rows failed"):
        result.check()


@dataclass
class Review:
    id: int
    text: str


class Frame:
    """A data frame as far as its kind is told: by its module, `to_dict` and `columns`."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.columns = list(rows[0])

    def to_dict(self, orient: str) -> list[dict[str, Any]]:
        assert orient == "records"
        return self.rows

    @classmethod
    def made(cls) -> Self:
        return cls([{"id": 1, "text": "a"}])


def test_dataclasses_texts_and_frames_are_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"prompt": "Say: {{ text }}", "params": {"temperature": 0}, **SIM}
    assert batchrun.run([Review(1, "a")], output="a.jsonl", **options).rows[0]["id"] == 1
    assert batchrun.run(["a", "b"], output="b.jsonl", **options).rows[1]["text"] == "b"
    monkeypatch.setattr(Frame, "__module__", "pandas.core.frame")
    result = batchrun.run(Frame.made(), output="c.jsonl", **options)
    assert isinstance(result.rows, Frame)
    assert result.rows.rows == [{"id": 1, "text": "a", "output": "[simulated] Say: a"}]


class Number:
    """A number of numpy, which is none of Python's."""

    def tolist(self) -> int:
        return 3


class NaTType(datetime):
    """The missing time of pandas, which is a time by its type."""


def test_values_that_json_has_no_type_for_are_rows_as_well() -> None:
    day = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    row = {
        "text": "a",
        "n": Number(),
        "gap": float("nan"),
        "day": day,
        "none": NaTType(2026, 1, 1),
        "sum": Decimal("1.10"),
    }
    result = batchrun.run([row], prompt="Say: {{ text }}", output="d.jsonl", **SIM)
    kept = {"n": 3, "gap": None, "day": "2026-01-02T03:04:00+00:00", "none": None, "sum": "1.10"}
    assert result.rows == [{"text": "a", **kept, "output": "[simulated] Say: a"}]
    assert repr(result).startswith(f"<batchrun.Result {result.run}: 1 done + 0 failed")


def test_a_traceback_shows_what_to_do_next() -> None:
    with pytest.raises(batchrun.RefusedError) as refused:
        batchrun.run([{"a": 1}], prompt="Say: {{ text }}", **SIM)
    assert refused.value.__notes__ == [f"hint: {refused.value.hint}"]


def test_a_path_is_the_input_of_the_command() -> None:
    Path("r.csv").write_text("id,text\n1,a\n2,b\n", "utf-8")
    result = batchrun.run(Path("r.csv"), prompt="Say: {{ text }}", **SIM)
    assert result.output.suffix == ".csv"
    assert [row["output"] for row in result.rows] == ["[simulated] Say: a", "[simulated] Say: b"]


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    ([1], {}, "row 1 is of type int"),
    (ROWS, {"concurency": 3}, "no option concurency; did you mean `concurrency`?"),
    (ROWS, {"profile": "nowhere"}, "nowhere"),
    ([], {}, "no rows"),
]


@pytest.mark.parametrize(("rows", "options", "said"), REFUSED, ids=["row", "option", "profile", "empty"])
def test_what_cannot_be_meant_is_refused_before_any_call(rows: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(batchrun.RefusedError) as refused:
        batchrun.run(rows, prompt="Say: {{ text }}", **{**SIM, **options})
    assert said in f"{refused.value} {refused.value.hint}"


def test_importing_the_package_loads_none_of_the_engine() -> None:
    code = "import sys, batchrun; print([name for name in ('openai', 'aiohttp', 'pydantic', 'textual') if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_the_script_and_the_notebook_of_the_examples_run(tmp_path: Path) -> None:
    examples = Path(__file__).parents[1] / "examples"
    notebook = json.loads((examples / "batchrun.ipynb").read_text("utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    (tmp_path / "cells.py").write_text("\n".join(cells), "utf-8")
    for script in (examples / "classify_reviews.py", tmp_path / "cells.py"):
        ran = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout
