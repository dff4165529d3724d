"""Runs by batches from their first row to their last, against the simulated provider. "Paid" is what the provider counts."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from batches import Night, adds_up, echoed, night, until

from batchrun.engine.batch_mode import BatchMode
from batchrun.engine.run import Run
from batchrun.engine.run_result import RunResult
from batchrun.errors import ExitCode
from batchrun.events import Notice
from batchrun.journal import Journal

pytestmark = pytest.mark.looptime  # both ends are on the test's loop: time passes when nothing is on its way


@pytest.fixture(autouse=True)
def _seldom(seldom: None) -> None: ...


async def test_a_batch_brings_each_row_its_own_answer_in_the_order_of_the_input(tmp_path: Path) -> None:
    """Case 1."""
    async with night(tmp_path, rows=300, plan={"batch_first": 300}) as stage:
        story = await stage.go_on()
        assert story.ending.exit_code is ExitCode.OK
        assert stage.answers() == echoed(300)
        assert (len(stage.told["batches"]), stage.told["uploads"], stage.paid, stage.told["live"]) == (1, 1, 300, 0)
        adds_up(stage)


@pytest.mark.parametrize("bytes_together", [1, 500])
async def test_results_are_taken_in_a_few_bytes_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bytes_together: int
) -> None:
    """Of rows and of replies: neither a thousand long prompts nor a thousand long replies are in memory at once."""
    monkeypatch.setattr("batchrun.journal.pages.PAGE_BYTES", bytes_together)
    monkeypatch.setattr("batchrun.lanes.results.ROOM", 2000)
    most = 0
    in_batch = Journal.in_batch

    def watched(journal: Journal, ticket: int | None, rows: Sequence[int]) -> tuple[list[Any], bool]:
        nonlocal most
        most = max(most, len(rows))
        found, more = in_batch(journal, ticket, rows)
        assert sum(len(row.text) for row, _ in found[:-1]) < bytes_together
        return found, more

    monkeypatch.setattr(Journal, "in_batch", watched)
    async with night(tmp_path) as stage:
        story = await stage.go_on()
        assert story.ending.exit_code is ExitCode.OK
        assert stage.answers() == echoed(30)
        adds_up(stage)
    assert 0 < most < 20


@pytest.mark.parametrize("fault", ["close@upload=first", "502@upload=first", "reset@upload=first"])
async def test_a_lost_answer_to_the_upload_costs_at_most_a_free_file(tmp_path: Path, fault: str) -> None:
    """Case 3."""
    async with night(tmp_path, fault) as stage:
        story = await stage.go_on()
        assert story.ending.exit_code is ExitCode.OK
        assert (len(stage.told["batches"]), stage.told["uploads"], stage.paid) == (1, 2, 30)
        assert stage.answers() == echoed(30)


@pytest.mark.parametrize(
    "fault", ["close@create=first", "502@create=first", "hang@create=first", "html@create=first", "empty@create=first"]
)
async def test_a_batch_whose_answer_was_lost_is_found_in_the_list_and_never_made_again(
    tmp_path: Path, fault: str
) -> None:
    """Case 4."""
    async with night(tmp_path, fault) as stage:
        story = await stage.go_on()
        assert story.ending.exit_code is ExitCode.OK
        assert (len(stage.told["batches"]), stage.told["calls"]["create"], stage.paid) == (1, 1, 30)
        assert stage.answers() == echoed(30)


async def test_batches_that_a_gateway_made_beside_the_one_it_tells_of_are_cancelled(tmp_path: Path) -> None:
    """Case 5: one call, three batches, and the last answer comes."""
    prices = {"input_price": 1.0, "output_price": 1.0}
    async with night(tmp_path, "thrice@create=first", plan=prices, batch_seconds=5000) as stage:
        story = await stage.go_on()
        assert story.ending.exit_code is ExitCode.OK
        assert stage.answers() == echoed(30)
        assert (len(stage.told["batches"]), stage.told["calls"]["cancel"]) == (3, 2)
        assert (stage.totals.cost_retries > 0) == (stage.paid > 30)
        adds_up(stage)


async def test_two_orphans_are_cancelled_and_what_they_had_done_is_used_or_counted(tmp_path: Path) -> None:
    """Case 5, with the answer lost: one is adopted, the others are asked to end, and their replies are paid again."""
    prices = {"input_price": 1.0, "output_price": 1.0}
    async with night(tmp_path, "close@create=first", plan=prices, batch_seconds=5000) as stage:
        await orphans(stage, 2)
        story = await stage.go_on()
        assert story.ending.exit_code is ExitCode.OK
        told, totals = stage.told, stage.totals
        assert (len(told["batches"]), told["calls"]["cancel"]) == (3, 2)
        assert (stage.answers(), told["live"]) == (echoed(30), 0)
        assert (totals.cost_retries > 0) == (told["batch_completions"] > 30)
        assert sum("one call created several batches" in each.message for each in story.of(Notice)) == 2
        adds_up(stage)


async def orphans(stage: Night, more: int) -> None:
    """Make so many more batches whenever one is created, as a gateway does that repeats calls by itself."""
    calls = stage.server.provider.batches
    create = calls._create  # type: ignore[attr-defined]

    def several(asked: dict[str, Any], owner: str) -> Any:
        for _ in range(more):
            create(asked, owner)
        return create(asked, owner)

    calls._create = several  # type: ignore[method-assign]


async def test_replies_of_a_second_batch_answer_what_the_adopted_one_lacks(tmp_path: Path) -> None:
    """Case 5: no row is sent a third time while an orphan has its reply."""
    async with night(tmp_path, "close@create=first", rows=40) as stage:
        await orphans(stage, 1)
        made: list[str] = []

        async def expire_the_adopted(run: Run) -> None:
            await until(lambda: any(ticket.remote for ticket in stage.tickets))
            adopted = next(ticket.remote for ticket in stage.tickets if ticket.rows)
            made.append(str(adopted))
            for batch in stage.server.provider.batches._store.batches.values():  # type: ignore[attr-defined]
                batch.share = 0.5 if batch.id == adopted else 1.0
                if batch.id != adopted:
                    batch.cancel, batch.ends = None, batch.started + 5

        story = await stage.go_on(during=expire_the_adopted)
        assert story.ending.exit_code is ExitCode.OK
        assert stage.answers() == echoed(40)
        adds_up(stage)


REFUSALS = [
    ("400@create=first", "400"),
    ("key@create=first", "401"),
    ("402@create=first", "402"),
    ("quota@create=first", "quota"),
    ("403@create=first", "403"),
]


@pytest.mark.parametrize(("fault", "word"), REFUSALS)
async def test_a_refused_create_call_stops_the_run_and_nothing_is_searched(
    tmp_path: Path, fault: str, word: str
) -> None:
    """Case 6."""
    async with night(tmp_path, fault) as stage:
        story = await stage.go_on()
        assert story.ending.exit_code is ExitCode.STOPPED
        assert word in str(story.ending.message)
        told = stage.told
        assert (told["batches"], told["calls"].get("list", 0), stage.totals.pending, stage.paid) == ({}, 0, 30, 0)
        assert (await stage.go_on()).ending.exit_code is ExitCode.OK
        assert stage.paid == 30


async def test_a_create_call_refused_for_its_rate_is_made_again_later(tmp_path: Path) -> None:
    """Case 6: a 429 that is not about money is a wait."""
    async with night(tmp_path, "throttle@create=first:2") as stage:
        assert (await stage.go_on()).ending.exit_code is ExitCode.OK
        assert (stage.told["calls"]["create"], len(stage.told["batches"]), stage.paid) == (3, 1, 30)


async def test_a_gateway_that_answers_500_for_nothing_is_tried_once_more_at_most(tmp_path: Path) -> None:
    """Case 7: the list shows other batches, so it can be believed; the run stops with the gateway's words."""
    async with night(tmp_path, "gateway@create=2-", rows=30, plan={"batch_first": 10}) as stage:
        stage.server.provider.change(replace(stage.server.provider.settings, faults=()))
        ending = (await stage.go_on(limit=10)).ending
        stage.server.change(faults=["gateway@create=0-"])
        ending = (await stage.go_on()).ending
        assert ending.exit_code is ExitCode.STOPPED
        assert "500" in str(ending.message)
        assert "adopt" in str(ending.hint)
        assert (len(stage.told["batches"]), stage.told["calls"]["create"]) == (1, 3)
        assert (stage.totals.done, stage.totals.in_batches) == (10, 20)


@pytest.mark.parametrize("fault", ["500@list=0-", "404@list=0-", "close@list=0-", "loop@list=0-"])
async def test_where_the_list_cannot_be_read_a_person_says_how_to_go_on(tmp_path: Path, fault: str) -> None:
    """Cases 8 and 10."""
    async with night(tmp_path, "close@create=first", fault) as stage:
        if fault.startswith("loop"):
            stage.server.provider.batches.settings = replace(stage.server.provider.settings, batch_listed=1e6)
        story = await stage.go_on()
        assert story.ending.exit_code is ExitCode.STOPPED
        for way in ("adopt ID", "forget 1", "resume"):
            assert way in str(story.ending.hint)
        assert (stage.told["calls"]["create"], stage.totals.in_batches) == (1, 30)
        adds_up(stage)


async def test_an_empty_list_proves_nothing_after_a_lost_answer(tmp_path: Path) -> None:
    """Case 8: nothing is created again while a batch that is not listed may be at work."""
    async with night(tmp_path, "close@create=first", batch_listed=1e6) as stage:
        story = await stage.go_on()
        assert story.ending.exit_code is ExitCode.STOPPED
        assert "adopt ID" in str(story.ending.hint)
        assert (stage.told["calls"]["create"], len(stage.told["batches"])) == (1, 1)


async def test_a_batch_that_is_shown_late_is_not_made_again(tmp_path: Path) -> None:
    """Case 9: in the list only after 30 s, and 404 for the first 5 s."""
    async with night(tmp_path, "close@create=first", batch_listed=30, batch_found=5) as stage:
        assert (await stage.go_on()).ending.exit_code is ExitCode.OK
        assert (stage.told["calls"]["create"], stage.paid) == (1, 30)


async def test_a_batch_that_cannot_be_retrieved_at_first_is_waited_for(tmp_path: Path) -> None:
    """Case 9."""
    async with night(tmp_path, batch_found=20) as stage:
        assert (await stage.go_on()).ending.exit_code is ExitCode.OK
        assert (stage.told["calls"]["create"], stage.paid) == (1, 30)


async def test_a_chunk_waits_for_room_and_no_row_loses_an_attempt(tmp_path: Path) -> None:
    """Case 11."""
    plan = {"batch_first": 20}
    async with night(tmp_path, rows=60, plan=plan, enqueued_tokens=850, batch_seconds=1000) as stage:
        assert (await stage.go_on(lines=20)).ending.exit_code is ExitCode.OK
        assert (stage.answers(), stage.paid) == (echoed(60), 60)
        assert sorted(stage.told["batches"].values()).count("failed") >= 1
        assert {record.attempts for record in stage.records} == {1}


async def test_a_chunk_that_is_too_large_alone_is_made_smaller(tmp_path: Path) -> None:
    """Case 11."""
    async with night(tmp_path, rows=40, enqueued_tokens=400) as stage:
        assert (await stage.go_on()).ending.exit_code is ExitCode.OK
        assert (stage.answers(), stage.paid) == (echoed(40), 40)


async def test_rows_whose_lines_are_refused_fail_and_the_others_go_into_another_batch_once(tmp_path: Path) -> None:
    """Case 12."""
    async with night(tmp_path) as stage:
        bad_lines(stage, {3: "bad line three", 7: "bad line seven"})
        story = await stage.go_on()
        assert story.ending.exit_code is ExitCode.OK
        assert (stage.totals.done, stage.totals.failed, stage.paid) == (28, 2, 28)
        assert sorted(stage.told["batches"].values()) == ["completed", "failed"]
        said = {record.line: record.message for record in stage.records if record.state == "failed"}
        assert (set(said), "bad line three" in str(said[3])) == ({3, 7}, True)


def bad_lines(stage: Night, lines: dict[int, str]) -> None:
    """The first batch fails at validation for these lines."""
    calls = stage.server.provider.batches
    new, done = calls._new, list[int]()  # type: ignore[attr-defined]

    def failing(*args: Any, **values: Any) -> Any:
        if not done:
            values["errors"] = [
                {"code": "invalid_request", "line": n, "message": said, "param": None} for n, said in lines.items()
            ]
            done.append(1)
        return new(*args, **values)

    calls._new = failing  # type: ignore[method-assign]


async def test_a_model_that_is_not_there_stops_the_run_with_its_rows_pending(tmp_path: Path) -> None:
    """Case 12: an error of all lines is not about the rows."""
    async with night(tmp_path, rows=5) as stage:
        bad_lines(stage, dict.fromkeys(range(1, 6), "The model does not exist."))
        story = await stage.go_on()
        assert story.ending.exit_code is ExitCode.STOPPED
        assert "does not exist" in str(story.ending.message)
        assert (stage.totals.pending, stage.paid) == (5, 0)


@pytest.mark.parametrize("empty", ["null", "text", "file"])
async def test_where_all_rows_fail_each_has_the_reason(tmp_path: Path, empty: str) -> None:
    """Case 13."""
    async with night(tmp_path, "400@row=0-", empty_files=empty, plan={"max_attempts": 1}) as stage:
        assert (await stage.go_on()).ending.exit_code is ExitCode.OK  # rows that failed are told by the command
        totals = stage.totals
        assert (totals.failed, totals.in_batches, totals.pending) == (30, 0, 0)
        assert {record.cause for record in stage.records} == {"400 invalid_value"}
        adds_up(stage)


async def test_files_that_are_named_later_than_the_end_are_waited_for(tmp_path: Path) -> None:
    """A batch that is completed with 30 of 30 and names no file yet: its rows are not sent, and paid for, again."""
    async with night(tmp_path) as stage:
        calls = stage.server.provider.batches
        object_of, ended = calls._object_of, Counter[str]()  # type: ignore[attr-defined]

        def later(batch: Any) -> dict[str, Any]:
            found = object_of(batch)
            ended[batch.id] += found["status"] == "completed"
            return found if ended[batch.id] > 3 else {**found, "output_file_id": None}

        calls._object_of = later  # type: ignore[method-assign]
        assert (await stage.go_on()).ending.exit_code is ExitCode.OK
        assert (stage.answers(), stage.paid, len(stage.told["batches"])) == (echoed(30), 30, 1)


@pytest.mark.parametrize(
    "fault",
    [
        "500@row=first",
        "status0@row=first",
        "error-text@row=first",
        "error-object@row=first",
        "text-body@row=first",
        "nochoices@row=first",
    ],
)
async def test_lines_of_every_kind_are_understood_and_retried_where_that_helps(tmp_path: Path, fault: str) -> None:
    """Case 14."""
    async with night(tmp_path, fault) as stage:
        assert (await stage.go_on()).ending.exit_code is ExitCode.OK
        assert stage.answers() == echoed(30)
        assert len(stage.told["batches"]) == (1 if fault.startswith("text-body") else 2)
        adds_up(stage)


async def test_mixed_lines_are_judged_as_live_answers(tmp_path: Path) -> None:
    """Case 14."""
    faults = ("400@row=0.1", "500@row=0.1", "status0@row=0.1", "error-text@row=0.1", "text-body@row=0.1")
    async with night(tmp_path, *faults, rows=100) as stage:
        await stage.go_on()
        totals = stage.totals
        assert (totals.done + totals.failed, totals.in_batches, totals.pending) == (100, 0, 0)
        assert totals.failed > 0
        answers = dict(zip(range(1, 101), stage.answers(), strict=True))
        done = [record.line for record in stage.records if record.state == "done"]
        assert all(answers[line] == f"[simulated] row {line}" for line in done)
        adds_up(stage)


async def test_of_an_expired_batch_what_is_done_counts_and_the_rest_is_sent_again(tmp_path: Path) -> None:
    """Case 15."""
    async with night(tmp_path, rows=100, batch_expire=0.4) as stage:
        story = await stage.go_on(batch_detach=True)
        assert story.ending.exit_code is ExitCode.WAITING
        await asyncio.sleep(60)
        stage.server.change(batch_expire=None)
        story = await stage.go_on()
        assert story.ending.exit_code is ExitCode.OK
        assert (stage.answers(), stage.paid) == (echoed(100), 100)
        assert sorted(stage.told["batches"].values()) == ["completed", "expired"]
        assert stage.totals.possibly_billed == 0
        assert {record.attempts for record in stage.records} == {1, 2}


async def test_of_a_cancelled_batch_no_row_is_lost(tmp_path: Path) -> None:
    """Case 16."""
    async with night(tmp_path, rows=100) as stage:

        async def cancel(run: Run) -> None:
            await at_work(stage)
            await asyncio.sleep(7)  # 2 s of validation, 10 s of work: half of the rows
            for batch in stage.server.provider.batches._store.batches.values():  # type: ignore[attr-defined]
                batch.cancel = stage.server.provider.batches._epoch()  # type: ignore[attr-defined]

        story = await stage.go_on(during=cancel)
        assert story.ending.exit_code is ExitCode.OK
        assert (stage.answers(), stage.paid) == (echoed(100), 100)
        assert sorted(stage.told["batches"].values()) == ["cancelled", "completed"]


async def test_batches_that_are_asked_to_end_are_waited_for_whatever_the_run_was_told(tmp_path: Path) -> None:
    async with night(tmp_path, rows=100) as stage:
        assert (await stage.go_on(batch_detach=True)).ending.exit_code is ExitCode.WAITING
        story = await stage.go_on(batch_detach=True, batch_mode=BatchMode.CANCEL)
        assert story.ending.exit_code is not ExitCode.WAITING
        assert (list(stage.told["batches"].values()), stage.totals.in_batches) == (["cancelled"], 0)
        assert stage.totals.done + stage.totals.pending == 100
        story = await stage.go_on(batch_detach=True, batch_mode=BatchMode.FINISH_LIVE, batch=False)
        assert (story.ending.exit_code, stage.totals.done, stage.paid) == (ExitCode.OK, 100, 100)


async def at_work(stage: Night) -> None:
    """Until a batch is at the provider."""
    await until(lambda: any(ticket.state == "submitted" for ticket in stage.tickets))


async def test_missing_repeated_and_foreign_lines_change_no_other_row(tmp_path: Path) -> None:
    """Case 17."""
    faults = ("missing@row=text:row 3", "repeat@row=text:row 5", "foreign@row=text:row 7")
    async with night(tmp_path, *faults, rows=9) as stage:

        async def mend(run: Run) -> None:
            await until(lambda: len(stage.told["batches"]) == 2)
            stage.server.change(faults=[])

        story = await stage.go_on(during=mend)
        assert story.ending.exit_code is ExitCode.OK
        assert stage.answers() == echoed(9)
        assert (stage.paid, stage.totals.possibly_billed) == (10, 1)
        said = " ".join(each.message for each in story.of(Notice))
        assert "1 lines of other runs and 1 repeated lines" in said
        assert "the results lack 1 row" in said


@pytest.mark.parametrize(
    "fault",
    [
        "cut@content=first",
        "truncate@content=first",
        "502@content=first:2",
        "reset-late@content=first",
        "slow@content=first",
    ],
)
async def test_a_download_that_was_cut_is_read_again(tmp_path: Path, fault: str) -> None:
    """Case 18."""
    async with night(tmp_path, fault) as stage:
        assert (await stage.go_on()).ending.exit_code is ExitCode.OK
        assert (stage.answers(), stage.paid) == (echoed(30), 30)


async def test_a_batch_that_never_ends_is_spoken_of_and_its_rows_go_nowhere_else(tmp_path: Path) -> None:
    """Case 19."""
    async with night(tmp_path, "stuck@create=first") as stage:

        async def look_on(run: Run) -> None:
            await at_work(stage)
            for batch in stage.server.provider.batches._store.batches.values():  # type: ignore[attr-defined]
                batch.expires = batch.created + 60
            await asyncio.sleep(7200)
            run.stop(RunResult(ExitCode.INTERRUPTED, "interrupted"), drain=0)

        story = await stage.go_on(during=look_on)
        assert any("forget 1" in each.message for each in story.of(Notice))
        assert (stage.totals.in_batches, stage.told["calls"]["create"], stage.told["live"]) == (30, 1, 0)


async def test_another_key_is_refused_and_the_batch_is_not_called_lost(tmp_path: Path) -> None:
    """Case 21."""
    async with night(tmp_path, batch_seconds=1000) as stage:
        assert (await stage.go_on(batch_detach=True)).ending.exit_code is ExitCode.WAITING
        await asyncio.sleep(300)
        story = await stage.go_on(key="two")
        assert story.ending.exit_code is ExitCode.STOPPED
        assert "another key or project" in str(story.ending.message)
        assert (stage.totals.in_batches, stage.told["calls"]["create"]) == (30, 1)
        assert (await stage.go_on()).ending.exit_code is ExitCode.OK
        assert stage.paid == 30


async def test_ctrl_c_while_waiting_leaves_the_batches_alone(tmp_path: Path) -> None:
    """Case 25."""
    async with night(tmp_path, batch_seconds=1000) as stage:
        ended: list[float] = []

        async def interrupt(run: Run) -> None:
            await at_work(stage)
            ended.append(asyncio.get_running_loop().time())
            run.stop(RunResult(ExitCode.INTERRUPTED, "interrupted"), drain=60)

        story = await stage.go_on(during=interrupt)
        assert asyncio.get_running_loop().time() - ended[0] < 1
        assert story.ending.exit_code is ExitCode.INTERRUPTED
        assert (stage.totals.in_batches, stage.told["calls"].get("cancel", 0)) == (30, 0)
        assert (await stage.go_on()).ending.exit_code is ExitCode.OK
        assert stage.paid == 30


async def test_batches_of_a_list_that_is_behind_are_asked_for_one_by_one(tmp_path: Path) -> None:
    """As with aimock 1.43, whose list never shows an end."""
    async with night(tmp_path, "stale@list=0-", rows=40, plan={"batch_first": 10}) as stage:
        story = await stage.go_on(lines=10)
        assert story.ending.exit_code is ExitCode.OK
        assert (stage.answers(), stage.paid, len(stage.told["batches"])) == (echoed(40), 40, 4)


async def test_forty_open_batches_are_looked_at_by_one_call(tmp_path: Path) -> None:
    """Case 24: at most 40 GETs in five minutes, of an hour."""
    async with night(tmp_path, rows=40, plan={"batch_first": 1}, batch_seconds=7200, batch_validation=0) as stage:
        counts: list[int] = []

        def gets() -> int:
            calls = stage.told["calls"]
            return calls.get("list", 0) + calls.get("retrieve", 0)

        async def watch(run: Run) -> None:
            await until(lambda: stage.told["calls"].get("create", 0) == 40)
            for _ in range(12):
                before = gets()
                await asyncio.sleep(300)
                counts.append(gets() - before)
            run.stop(RunResult(ExitCode.INTERRUPTED, "interrupted"), drain=0)

        await stage.go_on(lines=1, during=watch)
        assert len(stage.told["batches"]) == 40
        assert max(counts) <= 40, counts
