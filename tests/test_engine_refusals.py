"""Refusals that are about the run, and those that are about a row: what stops a run, and which rows stay pending."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from engine import PLAN, WITH_SCHEMA, Provider, Stage, ok, status

from batchrun.engine.pending_queue import PendingQueue
from batchrun.errors import ExitCode
from batchrun.events import Waiting, WaitReason
from batchrun.models import Exchange
from batchrun.retry import ALIKE

pytestmark = pytest.mark.usefixtures("no_waiting")
Answer = Callable[[str], Exchange]
IN_FLIGHT = PLAN.concurrency


def later(good: int, bad: Answer) -> Answer:
    """Good for so many calls, bad from then on."""
    calls = 0

    def answer(text: str) -> Exchange:
        nonlocal calls
        calls += 1
        return ok()(text) if calls <= good else bad(text)

    return answer


def number(text: str) -> int:
    return int(text.split()[1])


EMPTY = [
    status(402),
    status(403, "insufficient_credits"),
    status(400, "Arrearage"),
    status(429, "exceeded_current_quota_error"),
    status(412, "account_suspended"),
]


@pytest.mark.parametrize("bad", EMPTY)
@pytest.mark.parametrize("good", [0, 30])
async def test_an_empty_account_stops_the_run_at_any_time_and_no_row_is_lost(
    bad: Answer, good: int, tmp_path: Path
) -> None:
    stage, provider = Stage(tmp_path, 200), Provider(usual=later(good, bad))
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.STOPPED
    assert len(provider.calls) <= good + IN_FLIGHT
    assert (stage.totals.done, stage.totals.failed, stage.totals.pending) == (good, 0, 200 - good)
    again = Provider()
    await stage.play(again)
    assert (stage.totals.done, len(again.calls)) == (200, 200 - good)


@pytest.mark.parametrize(
    ("bad", "rows"), [(status(404, "gone"), 60), (status(403), 60), (status(400, "no_db"), 2500), (status(418), 60)]
)
async def test_what_is_refused_to_all_rows_from_some_time_on_stops_the_run_and_these_rows_are_pending(
    bad: Answer, rows: int, tmp_path: Path
) -> None:
    stage, provider = Stage(tmp_path, rows), Provider(usual=later(30, bad))
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.STOPPED
    assert f"{ALIKE} rows in succession all failed alike" in (story.ending.message or "")
    assert "said" in (story.ending.message or "")
    assert len(provider.calls) <= 30 + ALIKE + 1 + 3 * IN_FLIGHT
    assert (stage.totals.done, stage.totals.failed, stage.totals.pending) == (30, 0, rows - 30)


async def test_no_more_rows_follow_while_one_from_elsewhere_is_read_from_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = PendingQueue.take_from_ahead

    async def slowly(self: PendingQueue, lane: Any) -> bool:
        for _ in range(300):
            await asyncio.sleep(0)
        return await read(self, lane)

    monkeypatch.setattr(PendingQueue, "take_from_ahead", slowly)
    stage, provider = Stage(tmp_path, 2500), Provider(usual=later(30, status(400, "no_db")))
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.STOPPED
    assert len(provider.calls) <= 30 + ALIKE + 1 + 3 * IN_FLIGHT


@pytest.mark.parametrize(("first", "rows"), [(1, 200), (101, 200), (101, 2500)])
async def test_a_stretch_of_rows_that_are_refused_alike_fails_and_the_others_are_answered(
    first: int, rows: int, tmp_path: Path
) -> None:
    def usual(text: str) -> Exchange:
        return (status(400, "bad_image") if first <= number(text) < first + 60 else ok())(text)

    stage, provider = Stage(tmp_path, rows), Provider(usual=usual)
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.OK
    assert (stage.totals.done, stage.totals.failed) == (rows - 60, 60)
    assert len(provider.calls) == rows


async def test_rows_that_are_too_long_at_the_head_of_the_input_do_not_hold_up_the_others(tmp_path: Path) -> None:
    def usual(text: str) -> Exchange:
        return (status(400, "context_length_exceeded") if number(text) <= 25 else ok())(text)

    stage, provider = Stage(tmp_path, 40), Provider(usual=usual)
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.OK
    assert (stage.totals.done, stage.totals.failed) == (15, 25)
    assert {record.cause for record in stage.records if record.cause} == {"too long for the model"}


async def test_a_schema_that_no_reply_fits_stops_the_run_before_it_is_paid_for_every_row(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 300, prompt_source=WITH_SCHEMA), Provider(usual=ok("no JSON"))
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.STOPPED
    assert "fits the schema" in (story.ending.message or "")
    assert (stage.totals.failed, stage.totals.pending) == (0, 300)
    assert len(provider.calls) <= 3 * ALIKE + IN_FLIGHT


async def test_where_one_reply_fits_the_others_are_their_rows_own(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 60, prompt_source=WITH_SCHEMA)
    provider = Provider({"row 3": [ok('{"score": 1}')]}, usual=ok("no JSON"))
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.OK
    assert (stage.totals.done, stage.totals.failed) == (1, 59)


async def test_json_that_the_provider_refuses_is_asked_for_again_with_the_same_request(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 1, prompt_source=WITH_SCHEMA)
    provider = Provider({"row 1": [status(400, "json_validate_failed"), ok('{"score": 1}')]})
    await stage.play(provider, max_attempts=1)
    assert stage.states == ["done"]
    assert provider.bodies[0] == provider.bodies[1]


async def test_a_server_that_loads_its_model_is_waited_for_and_no_attempt_is_used(tmp_path: Path) -> None:
    calls = 0

    def usual(text: str) -> Exchange:
        nonlocal calls
        calls += 1
        if calls > 40:
            return ok()(text)
        found = status(503)(text)
        return found._replace(body=orjson.dumps({"error": "Model m is currently loading", "estimated_time": 12.0}))

    stage = Stage(tmp_path, 50)
    story = await stage.play(Provider(usual=usual), max_attempts=1)
    assert stage.states == ["done"] * 50
    assert "the server is loading its model: one request per second is tried" in story.told


@pytest.mark.looptime
async def test_a_quota_of_an_unknown_provider_is_probed_and_then_stops_the_run(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 100), Provider(usual=later(30, status(429, "insufficient_quota")))
    story = await stage.play(provider, dialect="any")
    assert story.ending.exit_code is ExitCode.STOPPED
    assert (stage.totals.done, stage.totals.failed, stage.totals.pending) == (30, 0, 70)
    assert any("used-up quota" in said for said in story.told)


async def test_the_same_quota_is_waited_for_where_the_dialect_says_that_it_is_a_limit_of_a_minute(
    tmp_path: Path,
) -> None:
    refused = status(429, "insufficient_quota")
    stage, provider = Stage(tmp_path, 30), Provider({f"row {n}": [refused, ok()] for n in range(1, 31, 5)})
    story = await stage.play(provider, dialect="dashscope")
    assert story.ending.exit_code is ExitCode.OK
    assert stage.states == ["done"] * 30
    assert not any("used-up quota" in said for said in story.told)


@pytest.mark.looptime
async def test_while_a_run_waits_the_providers_sentence_is_told(tmp_path: Path) -> None:
    refused = status(429, "rate_limit_exceeded", {"retry-after": "20"})
    stage, provider = Stage(tmp_path, 12), Provider({"row 9": [refused, ok()]})
    story = await stage.play(provider)
    assert stage.states == ["done"] * 12
    waits = [event for event in story.of(Waiting) if event.reason is WaitReason.THROTTLED]
    assert {event.said for event in waits} == {"said 429"}
