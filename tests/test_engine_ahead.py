"""Attempts that are begun while their rows still wait for a slot, so that no slot waits for a commit."""

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from engine import Provider, Stage, Story, ok, until
from waiting import PATIENCE, a_while

from batchrun.engine.run import Run
from batchrun.engine.run_result import RunResult
from batchrun.errors import ExitCode
from batchrun.events import AttemptStarted

FULL, AHEAD = 64, 2


def stage_of(tmp_path: Path, rows: int = 100) -> Stage:
    return Stage(tmp_path, rows, concurrency=FULL, concurrency_fixed=True)


def attempts(stage: Stage, condition: str) -> int:
    with closing(sqlite3.connect(stage.path)) as connection:
        return connection.execute(f"SELECT count(*) FROM attempts WHERE {condition}").fetchone()[0]


async def test_a_request_leaves_for_a_free_slot_while_the_journal_waits_for_the_disk(tmp_path: Path) -> None:
    stage, stuck, moving = stage_of(tmp_path, FULL + AHEAD + 10), threading.Event(), threading.Event()
    moving.set()

    def slow_disk(_: int) -> None:
        if not moving.wait(PATIENCE):
            stuck.set()

    stage.faults = slow_disk
    one = asyncio.Event()
    provider = Provider(hold=asyncio.Event())
    sent_while_stuck: list[int] = []

    async def talk(run: Run) -> None:
        await until(lambda: len(provider.calls) == FULL)
        await until(lambda: attempts(stage, "ended IS NULL") == FULL + AHEAD)
        moving.clear()
        assert provider.hold is not None
        provider.hold.set()
        await until(lambda: len(provider.calls) > FULL)
        await a_while(0.05)
        sent_while_stuck.append(len(provider.calls))
        moving.set()
        one.set()

    story = await stage.play(provider, during=talk)
    assert story.ending == RunResult(ExitCode.OK)
    assert sent_while_stuck == [FULL + AHEAD]
    assert not stuck.is_set()
    assert provider.peak == FULL
    assert set(provider.counts.values()) == {1}
    assert stage.totals.done == FULL + AHEAD + 10


async def stopped(stage: Stage, provider: Provider, *, drain: float, answers: bool) -> Story:
    async def stop(run: Run) -> None:
        await until(lambda: len(provider.calls) == FULL)
        await until(lambda: attempts(stage, "ended IS NULL") == FULL + AHEAD)
        run.stop(RunResult(ExitCode.INTERRUPTED), drain=drain)
        if answers and provider.hold is not None:
            provider.hold.set()

    return await stage.play(provider, during=stop)


async def test_what_was_begun_ahead_is_pending_after_a_stop(tmp_path: Path) -> None:
    stage, provider = stage_of(tmp_path), Provider(hold=asyncio.Event())
    story = await stopped(stage, provider, drain=30.0, answers=True)
    assert len(story.of(AttemptStarted)) == len(provider.calls) == FULL
    assert (stage.totals.done, stage.totals.unknown, stage.totals.pending) == (FULL, 0, 100 - FULL)
    assert attempts(stage, "cause = 'stopped before it left' AND NOT counted AND NOT possibly_billed") == AHEAD


async def test_what_was_begun_ahead_of_a_run_that_is_abandoned_is_pending_too(tmp_path: Path) -> None:
    stage, provider = stage_of(tmp_path), Provider(hold=asyncio.Event())
    await stopped(stage, provider, drain=0.0, answers=False)
    assert (stage.totals.done, stage.totals.unknown, stage.totals.pending) == (0, FULL, 100 - FULL)
    again = Provider(usual=ok())
    await stage.play(again)
    assert stage.totals.possibly_billed == FULL
    assert set(again.counts.values()) == {1}


async def test_nothing_is_begun_ahead_where_a_cap_or_a_rate_counts_what_leaves(tmp_path: Path) -> None:
    for number, limit in enumerate(({"max_requests": 90}, {"rpm": 60_000_000.0}, {"concurrency": 16})):
        stage, provider = stage_of(tmp_path / str(number)), Provider(hold=asyncio.Event())
        at_once = limit.get("concurrency", FULL)

        async def look(
            _: Run, stage: Stage = stage, provider: Provider = provider, at_once: int = int(at_once)
        ) -> None:
            await until(lambda: len(provider.calls) == at_once)
            await a_while(0.05)
            assert attempts(stage, "ended IS NULL") == at_once
            assert provider.hold is not None
            provider.hold.set()

        await stage.play(provider, during=look, **limit)
