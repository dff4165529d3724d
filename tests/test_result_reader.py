"""Results that a process of its own reads are those that are read here, also where it ends too early."""

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from batches import adds_up, echoed, night

from batchrun.engine import result_reader
from batchrun.engine.judge import accepted
from batchrun.engine.result_reader import ProcessPages, ReaderProcess
from batchrun.errors import ExitCode
from batchrun.lanes.executor import Completion, Pages
from batchrun.lanes.results import Results
from batchrun.lanes.shapes import SHAPES, vendor, wire_id
from batchrun.models import Endpoint, Request

REQUEST = Request(Endpoint.CHAT, b"", 5)
BODY = '{"choices": [{"message": {"content": "%s"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 7, "completion_tokens": %d}}'
LINE = '{"custom_id": "%s", "response": {"status_code": %d, "body": %s}, "error": null}\n'
GONE = '{"custom_id": "%s", "response": null, "error": {"code": "batch_expired"}}\n'


def results(path: Path) -> Results:
    """The results in a file, read here as the process does."""
    return Results(
        [path], SHAPES["openai"](vendor("openai")), "r1", lambda body, data: accepted(REQUEST, body, None, data)
    )


def all_of(pages: Pages) -> tuple[list[Completion], int, int]:
    """What pages have, and how many lines were repeated or of others."""
    found: list[Completion] = []
    while page := pages.page():
        found += page
    return found, pages.repeated, pages.foreign


def write(path: Path, rows: int, *more: str) -> Path:
    """A file with replies, of which some are refusals, cut, expired, repeated or another run's; and more lines."""
    with path.open("w") as file:
        for row in range(1, rows + 1):
            name = wire_id("r1", row, 1)
            status = 400 if row % 50 == 0 else 200
            file.write(GONE % name if row % 70 == 0 else LINE % (name, status, BODY % (f"say {row} é", row % 7)))
        file.write(LINE % (wire_id("other", 1, 1), 200, BODY % ("no", 1)))
        file.write(LINE % (wire_id("r1", 1, 1), 200, BODY % ("again", 1)))
        file.writelines(more)
    return path


@pytest.fixture
def process() -> Iterator[ReaderProcess]:
    found = ReaderProcess()
    yield found
    found.end()


def test_the_process_brings_the_same_completions_file_after_file(tmp_path: Path, process: ReaderProcess) -> None:
    for name, rows in (("a", 2500), ("b", 3)):
        file = write(tmp_path / name, rows)
        pages = ProcessPages(process, results(file), REQUEST)
        found = all_of(pages)
        assert found == all_of(results(file))
        assert (len(found[0]), found[1:]) == (rows, (1, 1))
        pages.close()


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_process_that_ends_too_early_costs_and_repeats_nothing(
    tmp_path: Path, process: ReaderProcess, after: int
) -> None:
    file = write(tmp_path / "a", 2500)
    pages = ProcessPages(process, results(file), REQUEST)
    found = [each for _ in range(after) for each in pages.page()]
    process.end()
    left, repeated, foreign = all_of(pages)
    assert (found + left, repeated, foreign) == all_of(results(file))


def test_where_no_process_can_be_started_results_are_read_here(
    tmp_path: Path, process: ReaderProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere"))
    file = write(tmp_path / "a", 30)
    with closing(ProcessPages(process, results(file), REQUEST)) as pages:
        assert all_of(pages) == all_of(results(file))


def test_a_line_that_is_no_object_is_said_as_here(tmp_path: Path, process: ReaderProcess) -> None:
    file = write(tmp_path / "a", 3, "[1]\n")
    with (
        closing(ProcessPages(process, results(file), REQUEST)) as pages,
        pytest.raises(ValueError, match="not an object"),
    ):
        all_of(pages)
    with pytest.raises(ValueError, match="not an object"):
        all_of(results(file))


def test_what_is_closed_reads_no_further(tmp_path: Path, process: ReaderProcess) -> None:
    pages = ProcessPages(process, results(write(tmp_path / "a", 2500)), REQUEST)
    assert len(pages.page()) == 1000
    pages.close()
    assert pages.page() == []


@pytest.mark.looptime
@pytest.mark.usefixtures("seldom")
async def test_a_run_whose_results_a_process_reads_ends_as_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_reader, "LARGE", 1)
    pages: list[ProcessPages] = []
    page = ProcessPages.page

    def watched(self: ProcessPages) -> list[Completion]:
        pages.append(self)
        return page(self)

    monkeypatch.setattr(ProcessPages, "page", watched)
    async with night(tmp_path) as stage:
        story = await stage.go_on()
        assert story.ending.exit_code is ExitCode.OK
        assert stage.answers() == echoed(30)
        adds_up(stage)
    assert pages


def test_a_charge_that_is_too_large_for_json_is_left_to_the_run(tmp_path: Path, process: ReaderProcess) -> None:
    body = (BODY % ("dear", 1)).replace('"prompt_tokens"', '"cost": 1e11, "prompt_tokens"')
    file = tmp_path / "a"
    file.write_text(LINE % (wire_id("r1", 1, 1), 200, body))
    with closing(ProcessPages(process, results(file), REQUEST)) as pages:
        (found,) = pages.page()
    assert (found.read, found.body) == (None, body.encode())
    assert results(file).page()[0].read is not None
