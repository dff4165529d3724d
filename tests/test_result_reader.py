"""Results that a process of its own reads are those that are read here, also where it ends too early."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from batches import adds_up, echoed, night

from batchrun.engine import result_pages
from batchrun.engine.result_pages import ReaderProcess, ResultPages
from batchrun.engine.result_reader import ReplyReader
from batchrun.errors import ExitCode
from batchrun.journal import Answers
from batchrun.lanes.executor import Completion, Page
from batchrun.lanes.results import Results
from batchrun.lanes.shapes import SHAPES, wire_id
from batchrun.lanes.vendors import vendor
from batchrun.models import Endpoint
from batchrun.pricing import Rate, Rates

RATES = Rates(Rate(2, ((5, 3),)), Rate(7), request=4)
READER = ReplyReader(Endpoint.CHAT, 5, 1, None, RATES, 11)
BODY = '{"choices": [{"message": {"content": "%s"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 7, "completion_tokens": %d}}'
LINE = '{"custom_id": "%s", "response": {"status_code": %d, "body": %s}, "error": null}\n'
GONE = '{"custom_id": "%s", "response": null, "error": {"code": "batch_expired"}}\n'


def results(path: Path) -> Results:
    """The results in a file, read here as the process does."""
    return Results([path], SHAPES["openai"](vendor("openai")), "r1", READER)


class Found(NamedTuple):
    """What pages have: replies that are accepted as they are, the others, and how many lines were repeated or of others."""

    answers: list[tuple[Any, ...]]
    others: list[Completion]
    repeated: int
    foreign: int


def all_of(pages: ResultPages, found: Sequence[Page[Answers]] = ()) -> Found:
    """What pages have behind these."""
    pages_of_all = [*found, *iter(pages.page, None)]
    answers = [line for page in pages_of_all for line in zip(*page.read, strict=True)]
    return Found(answers, [each for page in pages_of_all for each in page.others], pages.repeated, pages.foreign)


def here(path: Path) -> Found:
    """The results in a file, read here."""
    return all_of(ResultPages(results(path), ReaderProcess(), None))


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
        pages = ResultPages(results(file), process, READER)
        found = all_of(pages)
        assert found == here(file)
        assert (len(found.answers) + len(found.others), found.repeated, found.foreign) == (rows, 1, 1)
        pages.close()


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_process_that_ends_too_early_costs_and_repeats_nothing(
    tmp_path: Path, process: ReaderProcess, after: int
) -> None:
    file = write(tmp_path / "a", 2500)
    pages = ResultPages(results(file), process, READER)
    found = [page for page in (pages.page() for _ in range(after)) if page is not None]
    process.end()
    assert all_of(pages, found) == here(file)
    assert len(found) == after


def test_where_no_process_can_be_started_results_are_read_here(
    tmp_path: Path, process: ReaderProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere"))
    file = write(tmp_path / "a", 30)
    with closing(ResultPages(results(file), process, READER)) as pages:
        assert all_of(pages) == here(file)


def test_a_line_that_is_no_object_is_said_as_here(tmp_path: Path, process: ReaderProcess) -> None:
    file = write(tmp_path / "a", 3, "[1]\n")
    with (
        closing(ResultPages(results(file), process, READER)) as pages,
        pytest.raises(ValueError, match="not an object"),
    ):
        all_of(pages)
    with pytest.raises(ValueError, match="not an object"):
        here(file)


def test_what_is_closed_reads_no_further(tmp_path: Path, process: ReaderProcess) -> None:
    pages = ResultPages(results(write(tmp_path / "a", 2500)), process, READER)
    assert pages.page() is not None
    pages.close()
    assert pages.page() is None


@pytest.mark.looptime
@pytest.mark.usefixtures("seldom")
async def test_a_run_whose_results_a_process_reads_ends_as_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_pages, "LARGE", 1)
    pages: list[Any] = []
    following = ReaderProcess.next

    def watched(self: ReaderProcess) -> tuple[Any, bytes] | None:
        pages.append(following(self))
        return pages[-1]

    monkeypatch.setattr(ReaderProcess, "next", watched)
    async with night(tmp_path) as stage:
        story = await stage.go_on()
        assert story.ending.exit_code is ExitCode.OK
        assert stage.answers() == echoed(30)
        adds_up(stage)
    assert None not in pages
    assert pages


def test_a_charge_that_is_too_large_for_json_is_left_to_the_run(tmp_path: Path, process: ReaderProcess) -> None:
    body = (BODY % ("dear", 1)).replace('"prompt_tokens"', '"cost": 1e11, "prompt_tokens"')
    file = tmp_path / "a"
    file.write_text(LINE % (wire_id("r1", 1, 1), 200, body))
    with closing(ResultPages(results(file), process, READER)) as pages:
        found = all_of(pages)
    assert found == here(file)
    assert (found.answers, [each.body for each in found.others]) == ([], [body.encode()])
