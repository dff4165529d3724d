"""Runs by batches whose rest goes live: by a time, and for the last few rows."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from batches import echoed, night

from batchrun.engine.batch_mode import BatchMode
from batchrun.engine.run_result import RunResult
from batchrun.errors import ExitCode
from batchrun.events import Notice

pytestmark = pytest.mark.looptime  # both ends are on the test's loop: time passes when nothing is on its way

PRICES: dict[str, Any] = {"input_price": 1.0, "output_price": 4.0}
SOON = 1500.0
"""Seconds until the time that is given: ten minutes of it are for the end of batches."""


@pytest.fixture(autouse=True)
def _seldom(seldom: None) -> None: ...


async def test_batches_that_would_be_late_are_ended_in_time_and_the_rest_goes_live(tmp_path: Path) -> None:
    """Case 20: nothing is sent live before the batch has ended, and no row is paid twice."""
    async with night(
        tmp_path, rows=100, plan={"batch_first": 100, "concurrency": 200, **PRICES}, batch_seconds=2 * SOON
    ) as stage:
        begun = stage.clock()
        live: list[tuple[float, list[str]]] = []

        def hear(event: Any, _: Any) -> None:
            if isinstance(event, Notice) and " live" in event.message:
                live.append((stage.clock() - begun, list(stage.told["batches"].values())))

        story = await stage.go_on(finish_by=begun + SOON, hear=hear)
        assert (story.ending.exit_code, stage.clock() - begun < SOON) == (ExitCode.OK, True)
        assert (stage.answers(), stage.paid, stage.told["calls"]["cancel"]) == (echoed(100), 100, 1)
        (asked, statuses), (at, ended) = live
        assert 800 < asked < 900  # ten minutes for the end of the batch, and a little for the rows left
        assert (at >= asked, set(statuses) & {"completed", "cancelled"}, ended) == (True, set(), ["cancelled"])
        assert 25 < stage.told["batch_completions"] < 30
        assert f"{stage.told['live']} rows are sent live, for about $0.0" in story.of(Notice)[-1].message


async def test_where_the_time_is_too_short_no_batch_is_made(tmp_path: Path) -> None:
    async with night(tmp_path, rows=20) as stage:
        story = await stage.go_on(finish_by=stage.clock() + 5)
        assert story.ending.exit_code is ExitCode.OK
        assert (stage.told["batches"], stage.told["live"]) == ({}, 20)
        assert "not enough time for batches" in " ".join(each.message for each in story.of(Notice))


async def test_a_detached_run_that_is_looked_at_in_time_finishes_live(tmp_path: Path) -> None:
    """Of a cron job: each look names the time, and the one that comes to it waits for the end."""
    async with night(tmp_path, rows=40, plan={"concurrency": 40}, batch_seconds=2 * SOON) as stage:
        end = stage.clock() + SOON
        assert (await stage.go_on(batch_detach=True, finish_by=end)).ending.exit_code is ExitCode.WAITING
        await asyncio.sleep(SOON / 2)
        assert (await stage.go_on(batch_detach=True, finish_by=end)).ending.exit_code is ExitCode.WAITING
        await asyncio.sleep(SOON / 2)
        assert (await stage.go_on(batch_detach=True, finish_by=end)).ending.exit_code is ExitCode.OK
        assert (stage.answers(), stage.paid) == (echoed(40), 40)


async def test_a_batch_that_does_not_end_in_time_is_named_and_its_rows_stay(tmp_path: Path) -> None:
    async with night(tmp_path, rows=10, batch_seconds=2 * SOON, batch_cancelling=1e6) as stage:

        async def look_on(run: Any) -> None:
            await asyncio.sleep(SOON + 10)
            run.stop(RunResult(ExitCode.INTERRUPTED, "interrupted"), drain=0)

        story = await stage.go_on(finish_by=stage.clock() + SOON, during=look_on)
        said = " ".join(each.message for each in story.of(Notice))
        assert "--finish-by has passed, but chunk 1 (batch_" in said
        assert (stage.totals.in_batches, stage.told["live"]) == (10, 0)


async def test_the_last_few_rows_go_live(tmp_path: Path) -> None:
    """`--batch-tail live`: what a batch left is less than --batch-min."""
    async with night(tmp_path, rows=100, plan={"batch_tail": "live", "batch_min": 20}, batch_expire=0.9) as stage:
        story = await stage.go_on()
        assert story.ending.exit_code is ExitCode.OK
        assert (stage.answers(), stage.paid, stage.told["live"]) == (echoed(100), 100, 10)
        assert list(stage.told["batches"].values()) == ["expired"]
        assert "10 rows are sent live" in " ".join(each.message for each in story.of(Notice))


async def test_finish_live_ends_the_batches_first(tmp_path: Path) -> None:
    """Case 20: a batch is stopped at about 70 %."""
    plan = {"batch_first": 400}
    async with night(tmp_path, rows=400, plan=plan, batch_seconds=100, batch_validation=0) as stage:
        assert (await stage.go_on(batch_detach=True)).ending.exit_code is ExitCode.WAITING
        await asyncio.sleep(70)
        sent: list[str] = []

        def hear(event: Any, _: Any) -> None:
            if type(event).__name__ == "AttemptStarted" and not sent:
                sent.extend(stage.told["batches"].values())

        story = await stage.go_on(batch_mode=BatchMode.FINISH_LIVE, hear=hear)
        assert story.ending.exit_code is ExitCode.OK
        assert (sent, stage.paid, stage.totals.done) == (["cancelled"], 400, 400)
        assert 100 < stage.told["live"] < 130
