"""Runs by batches at their limits: killed at every commit, within a budget, on two machines, with slow or odd vendors."""

import asyncio
import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from batches import Night, adds_up, echoed, night, until

from batchrun.engine.batch_commands import forget
from batchrun.errors import ExitCode
from batchrun.events import Notice
from batchrun.journal import Journal, Reader
from batchrun.registry import RunFile

pytestmark = pytest.mark.looptime  # both ends are on the test's loop: time passes when nothing is on its way


@pytest.fixture(autouse=True)
def _seldom(seldom: None) -> None: ...


class KilledError(Exception):
    """Stands for the end of the process."""


async def test_a_kill_at_every_commit_pays_no_row_twice(tmp_path: Path) -> None:
    """Case 2, the short form: each session ends at one commit more than the one before."""
    async with night(tmp_path, rows=12, plan={"batch_first": 6}) as stage:
        kills, ending = 0, None
        while ending is not ExitCode.OK:
            kills += 1

            def kill(commit: int, last: int = kills) -> None:
                if commit > last:
                    raise KilledError

            stage.faults = kill
            ending = (await stage.go_on(lines=6)).ending.exit_code
            assert kills < 60
        stage.faults = None
        assert (stage.answers(), stage.paid, stage.told["live"]) == (echoed(12), 12, 0)
        assert (len(stage.told["batches"]), stage.told["calls"]["create"]) == (2, 2)
        adds_up(stage)
        assert kills > 5


@pytest.mark.parametrize("where", ["upload", "create", "list", "content"])
async def test_a_kill_around_each_call_pays_no_row_twice(tmp_path: Path, where: str) -> None:
    """Case 2: the process ends while the provider has the call and before its answer is read."""
    async with night(tmp_path, rows=10) as stage:
        session = asyncio.create_task(stage.go_on())
        await until(lambda: stage.told["calls"].get(where, 0) > 0)
        session.cancel()
        await asyncio.gather(session, return_exceptions=True)
        story = await stage.go_on()
        assert story.ending.exit_code is ExitCode.OK
        assert (stage.answers(), stage.paid, len(stage.told["batches"])) == (echoed(10), 10, 1)


async def test_a_budget_below_the_worst_case_makes_smaller_batches(tmp_path: Path) -> None:
    """Case 22: what is reserved and what is charged fit into the cap at all times, and the bill is the provider's."""
    prices: dict[str, Any] = {"input_price": 100.0, "output_price": 400.0, "max_output_tokens": 20}
    async with night(tmp_path, rows=40, plan={**prices, "max_cost": 0.2, "batch_first": 40}) as stage:
        spent: list[int] = []

        def hear(event: Any, run: Any) -> None:
            totals = run._journal.totals
            spent.append(totals.cost + totals.cost_reserved)

        story = await stage.go_on(hear=hear)
        assert story.ending.exit_code is ExitCode.OK
        assert (stage.answers(), stage.paid, len(stage.told["batches"]) > 1) == (echoed(40), 40, True)
        assert max(spent) <= 200_000_000_000
        totals = stage.totals
        expected = totals.input_tokens * 50_000_000 + totals.output_tokens * 200_000_000
        assert totals.cost == pytest.approx(expected, rel=0.01)
        adds_up(stage)


async def test_a_budget_for_not_even_one_row_stops_before_the_upload(tmp_path: Path) -> None:
    """Case 22."""
    prices: dict[str, Any] = {"input_price": 100.0, "output_price": 400.0, "max_output_tokens": 20}
    async with night(tmp_path, rows=5, plan={**prices, "max_cost": 0.001}) as stage:
        assert (await stage.go_on()).ending.exit_code is ExitCode.BUDGET
        assert (stage.told["uploads"], stage.totals.pending) == (0, 5)


@pytest.mark.parametrize(
    ("own", "most"),
    [({"lines": 10}, 9), ({"bytes": 2000}, 12), ({"tokens": 150}, 10)],
    ids=["lines", "bytes", "tokens"],
)
async def test_chunks_are_within_the_vendors_limits(tmp_path: Path, own: dict[str, Any], most: int) -> None:
    """Case 23, at a thousandth of its size."""
    async with night(tmp_path, rows=40) as stage:
        assert (await stage.go_on(own=own)).ending.exit_code is ExitCode.OK
        assert (stage.answers(), stage.paid) == (echoed(40), 40)
        sizes = [ticket.rows for ticket in stage.tickets]
        assert (max(sizes) <= most, len(sizes) >= 4) == (True, True), sizes


async def test_forget_sends_the_rows_of_a_batch_that_never_ends_again(tmp_path: Path) -> None:
    """Case 19: they count as maybe billed, and go live where no batch is wanted."""
    async with night(tmp_path, "stuck@create=first", rows=10) as stage:
        assert (await stage.go_on(batch_detach=True)).ending.exit_code is ExitCode.WAITING
        assert await asyncio.to_thread(forgotten, stage) == 10
        assert (stage.totals.in_batches, stage.totals.pending, stage.totals.possibly_billed) == (0, 10, 10)
        story = await stage.go_on(batch=False)
        assert story.ending.exit_code is ExitCode.OK
        assert (stage.answers(), stage.told["live"], stage.totals.possibly_billed) == (echoed(10), 10, 10)
        adds_up(stage)


def forgotten(stage: Night) -> int:
    """Give up the first chunk, as the command does."""
    with Reader.open(stage.path) as reader:
        run = RunFile(stage.path, reader.meta)
    return forget(run, 1)


async def test_a_late_reply_of_a_batch_that_was_given_up_answers_its_row(tmp_path: Path) -> None:
    """Nothing is sent for it, and what counted as maybe billed is billed."""
    prices = {"input_price": 1.0, "output_price": 4.0, "max_output_tokens": 20}
    async with night(tmp_path, rows=10, batch_seconds=500, plan=prices) as stage:
        assert (await stage.go_on(batch_detach=True)).ending.exit_code is ExitCode.WAITING
        assert await asyncio.to_thread(forgotten, stage) == 10
        assert (stage.totals.possibly_billed, stage.totals.cost_possibly_billed > 0) == (10, True)
        await asyncio.sleep(600)
        story = await stage.go_on(batch=False)
        assert story.ending.exit_code is ExitCode.OK
        assert (stage.answers(), stage.paid, stage.told["live"]) == (echoed(10), 10, 0)
        totals = stage.totals
        assert (totals.possibly_billed, totals.cost_possibly_billed, totals.cost_retries) == (0, 0, 0)
        assert totals.cost == totals.input_tokens * 500_000 + totals.output_tokens * 2_000_000
        assert "its replies answer 10 rows" in " ".join(each.message for each in story.of(Notice))


async def test_a_late_reply_to_a_row_that_was_answered_is_counted_as_paid_again(tmp_path: Path) -> None:
    prices = {"input_price": 1.0, "output_price": 4.0, "max_output_tokens": 20}
    async with night(tmp_path, rows=10, batch_seconds=500, plan=prices) as stage:
        assert (await stage.go_on(batch_detach=True)).ending.exit_code is ExitCode.WAITING
        await asyncio.to_thread(forgotten, stage)
        assert (await stage.go_on(batch=False)).ending.exit_code is ExitCode.OK
        assert (stage.told["live"], stage.totals.possibly_billed) == (10, 10)
        await asyncio.sleep(600)
        for _ in range(2):  # read once, and then never more
            assert (await stage.go_on(batch=False)).ending.exit_code is ExitCode.OK
            totals = stage.totals
            assert (totals.possibly_billed, totals.cost_possibly_billed, totals.done) == (0, 0, 10)
            assert totals.cost_retries == 10 * (2 * 500_000 + 5 * 2_000_000)
        adds_up(stage)


async def test_tokens_are_estimated_by_what_an_earlier_session_has_learnt(tmp_path: Path) -> None:
    async with night(tmp_path, rows=20) as stage:
        assert (await stage.go_on(limit=10)).ending.exit_code is ExitCode.OK
        assert (await stage.go_on()).ending.exit_code is ExitCode.OK
        first, second = (json.loads(ticket.detail) for ticket in stage.tickets)
        used = stage.totals.input_tokens / 20
        assert first["tokens"] == pytest.approx(first["weight"] / 4, abs=1)
        assert second["tokens"] == pytest.approx(10 * used, rel=0.1)
        assert abs(first["tokens"] - second["tokens"]) > 0.2 * second["tokens"]


@pytest.mark.parametrize("resumed", [False, True])
async def test_a_late_reply_answers_a_row_whose_later_attempts_have_failed(tmp_path: Path, resumed: bool) -> None:
    """Permanently, or for now; also where the row was made pending again by then."""
    prices = {"input_price": 1.0, "output_price": 4.0, "max_output_tokens": 20}
    async with night(tmp_path, rows=10, batch_seconds=500, plan=prices) as stage:
        assert (await stage.go_on(batch_detach=True)).ending.exit_code is ExitCode.WAITING
        await asyncio.to_thread(forgotten, stage)
        stage.server.change(faults=["400=text:row 3", "500=text:row 4"])
        await stage.go_on(batch=False, max_attempts=1)
        assert (stage.totals.done, stage.totals.failed, stage.totals.retryable) == (8, 2, 1)
        stage.server.change(faults=[])
        if resumed:
            with closing(Journal.open(stage.path)) as journal:
                assert journal.reopen(failed_for_good=True) == 2
        await asyncio.sleep(600)
        story = await stage.go_on(batch=False)
        assert story.ending.exit_code is ExitCode.OK
        assert (stage.answers(), stage.told["live"], stage.totals.failed, stage.totals.done) == (echoed(10), 8, 0, 10)
        assert (stage.totals.cost_retries, stage.totals.possibly_billed) == (8 * (2 * 500_000 + 5 * 2_000_000), 1)
        assert "its replies answer 2 rows; 8 rows" in " ".join(each.message for each in story.of(Notice))


async def test_a_run_that_was_taken_to_another_machine_is_collected_once(tmp_path: Path) -> None:
    """Case 21: the copy of the journal collects; the first machine finds all done and is charged for nothing more."""
    async with night(tmp_path, rows=20, batch_seconds=500) as stage:
        assert (await stage.go_on(batch_detach=True)).ending.exit_code is ExitCode.WAITING
        (tmp_path / "other").mkdir()
        with Reader.open(stage.path) as reader:
            reader.copy(tmp_path / "other" / stage.path.name)
        first, stage.path = stage.path, tmp_path / "other" / stage.path.name
        assert (await stage.go_on()).ending.exit_code is ExitCode.OK
        assert (stage.answers(), stage.paid, stage.told["calls"]["create"]) == (echoed(20), 20, 1)
        stage.path = first
        assert (await stage.go_on()).ending.exit_code is ExitCode.OK
        assert (stage.answers(), stage.paid, stage.told["calls"]["create"]) == (echoed(20), 20, 1)
        adds_up(stage)


async def test_a_journal_without_its_request_file_starts_those_rows_over(tmp_path: Path) -> None:
    """Case 21: it was copied before the upload, and nothing was submitted."""
    async with night(tmp_path, "500@upload=0-", rows=10) as stage:
        assert (await stage.go_on()).ending.exit_code is ExitCode.STOPPED
        shutil.rmtree(stage.path.with_suffix(".batches"))
        stage.server.change(faults=[])
        assert (await stage.go_on()).ending.exit_code is ExitCode.OK
        assert (stage.answers(), stage.paid, stage.totals.possibly_billed) == (echoed(10), 10, 0)


@pytest.mark.parametrize(
    "fault", ["502@retrieve=0.5", "reset@retrieve=0.5", "500@list=0.5", "throttle@retrieve=first:3"]
)
async def test_failures_of_looks_change_nothing(tmp_path: Path, fault: str) -> None:
    """Case 24."""
    async with night(tmp_path, fault, rows=20, plan={"batch_first": 10}, batch_seconds=600) as stage:
        assert (await stage.go_on(lines=10)).ending.exit_code is ExitCode.OK
        assert (stage.answers(), stage.paid, stage.told["calls"]["create"]) == (echoed(20), 20, 2)
        assert stage.told["calls"].get("cancel", 0) == 0


ANTHROPIC: dict[str, Any] = {"dialect": "anthropic", "max_output_tokens": 50}


async def test_message_batches_are_a_run_like_any_other(tmp_path: Path) -> None:
    """Anthropic's shape from the first row to the last: requests inline, errored rows, no upload."""
    async with night(tmp_path, "400@row=text:row 3", rows=30, plan=ANTHROPIC) as stage:
        story = await stage.go_on(max_attempts=1)
        assert story.ending.exit_code is ExitCode.OK
        totals = stage.totals
        assert (totals.done, totals.failed, stage.told["uploads"], stage.told["live"]) == (28, 2, 0, 0)
        done = [record for record in stage.records if record.state == "done"]
        assert all(f"row {record.line}" in str(record.body) for record in done)
        adds_up(stage)


async def test_message_batches_that_expire_or_are_ended_leave_their_rows_pending(tmp_path: Path) -> None:
    async with night(tmp_path, rows=20, plan=ANTHROPIC, batch_expire=0.5) as stage:

        async def mend(run: Any) -> None:
            await until(lambda: stage.totals.done == 10)
            stage.server.change(batch_expire=None)

        assert (await stage.go_on(during=mend)).ending.exit_code is ExitCode.OK
        assert (stage.totals.done, stage.paid, stage.totals.possibly_billed) == (20, 20, 0)
        assert {"expired", "completed"} == set(stage.told["batches"].values())


async def test_a_lost_answer_to_message_batches_is_found_by_size_and_time(tmp_path: Path) -> None:
    async with night(tmp_path, "close@create=first", rows=12, plan=ANTHROPIC) as stage:
        assert (await stage.go_on()).ending.exit_code is ExitCode.OK
        assert (stage.totals.done, stage.paid, stage.told["calls"]["create"]) == (12, 12, 1)


async def test_a_message_batch_of_somebody_else_is_given_back(tmp_path: Path) -> None:
    """One of the same size and time is adopted where the answer was lost; its custom_ids show that it is another's."""
    async with night(tmp_path, "gateway@create=0-", rows=5, plan=ANTHROPIC) as stage:
        stage.server.change(faults=[])
        other = Night(tmp_path / "other", stage.server, 5, **ANTHROPIC)
        other.run = "r2"
        assert (await other.go_on(batch_detach=True)).ending.exit_code is ExitCode.WAITING
        stage.server.change(faults=["gateway@create=0-"])
        story = await stage.go_on()
        assert story.ending.exit_code is ExitCode.STOPPED
        assert "adopt ID" in str(story.ending.hint)
        assert (stage.totals.in_batches, stage.totals.possibly_billed) == (5, 0)
        assert any("is not this run's" in each.message for each in story.of(Notice))
