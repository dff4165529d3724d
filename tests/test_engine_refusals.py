"""Refusals that are about the run, and those that are about a row: what stops a run, and which rows stay pending."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from engine import PLAN, WITH_SCHEMA, Provider, Stage, fault, ok, status, until
from waiting import PATIENCE

from batchrun.client import UnsentError
from batchrun.engine.attempt import Attempt
from batchrun.engine.pending_queue import PendingQueue
from batchrun.engine.run import Run
from batchrun.errors import ExitCode
from batchrun.events import Event, Waiting, WaitReason
from batchrun.limits import HandedBack, NeverFits
from batchrun.media import ChangedError
from batchrun.models import Exchange, Fault, Request
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


class Slow(Provider):
    """Takes so many seconds for an answer; `waits` of it: prompts whose answer waits for the event."""

    seconds = 0.0
    waits: frozenset[str] = frozenset()
    event: asyncio.Event

    async def send(self, request: Request, *, timeout: float) -> Exchange:  # noqa: ASYNC109  as the client's
        prompt = orjson.loads(request.body)["messages"][0]["content"]
        if prompt in self.waits:
            self.calls.append(prompt)
            await self.event.wait()
        await asyncio.sleep(self.seconds)
        return await super().send(request, timeout=timeout)


def slow(seconds: float, bad: Answer) -> Slow:
    provider = Slow(usual=bad)
    provider.seconds = seconds
    return provider


@pytest.mark.parametrize("seconds", [0.0, 0.05])
@pytest.mark.parametrize("concurrency", [8, 64])
async def test_no_row_leaves_between_those_refused_alike_and_the_one_from_elsewhere(
    concurrency: int, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = PendingQueue.take_from_ahead

    async def slowly(self: PendingQueue, lane: Any) -> Any:
        for _ in range(300):
            await asyncio.sleep(0)
        return await read(self, lane)

    monkeypatch.setattr(PendingQueue, "take_from_ahead", slowly)
    stage = Stage(tmp_path, 400, concurrency=concurrency, concurrency_fixed=True)
    provider = slow(seconds, status(400, "no_db"))
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.STOPPED
    assert len(provider.calls) <= ALIKE + concurrency
    assert stage.totals.pending == 400


@pytest.mark.looptime(noop_cycles=0)
@pytest.mark.parametrize(
    "first",
    [
        fault(Fault.DEADLINE),
        fault(Fault.RESET),
        fault(Fault.LOST),
        status(429, "rate_limit_exceeded"),
        status(400, "context_length_exceeded"),
        status(503),
        status(400, "another"),
        ok(),
    ],
)
async def test_rows_go_on_after_any_answer_to_the_one_from_elsewhere(
    first: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first 30 are refused alike, all others answered, the last few at the second attempt."""
    monkeypatch.setattr("batchrun.engine.lane.UNSENT", 1e6)
    scripts = {f"row {number}": [first, ok()] for number in range(95, 101)}
    scripts |= {f"row {number}": [status(400, "bad_image")] for number in range(1, 31)}
    stage, provider = Stage(tmp_path, 100), Provider(scripts=scripts)
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.OK
    assert stage.totals.done + stage.totals.failed == 100
    assert stage.totals.done >= 64


@pytest.mark.parametrize(
    "error",
    [HandedBack(), NeverFits(1.0, 2), ChangedError("it changed"), RuntimeError("a defect"), UnsentError("no sender")],
)
async def test_rows_go_on_when_the_one_from_elsewhere_cannot_be_sent(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchrun.engine.lane.UNSENT", 1e6)
    depart, probes = Attempt.depart, list[int]()

    async def fails(self: Attempt, request: Request) -> Request:
        if self.state.elsewhere:
            probes.append(self.state.row.seq)
            if len(probes) == 1:
                raise error
        return await depart(self, request)

    monkeypatch.setattr(Attempt, "depart", fails)
    scripts = {f"row {number}": [status(400, "bad_image")] for number in range(1, 61)}
    stage, provider = Stage(tmp_path, 100), Provider(scripts=scripts)
    async with asyncio.timeout(PATIENCE):
        story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.OK
    assert len(probes) >= 2
    assert stage.totals.done >= 39
    assert stage.totals.done + stage.totals.failed + stage.totals.pending == 100


async def test_rows_do_not_wait_for_one_from_elsewhere_that_has_no_slot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchrun.engine.lane.UNSENT", 0.02)
    depart, others = Attempt.depart, asyncio.Event()

    async def waits(self: Attempt, request: Request) -> Request:
        if self.state.elsewhere:
            await others.wait()
        return await depart(self, request)

    monkeypatch.setattr(Attempt, "depart", waits)
    scripts = {f"row {number}": [status(400, "bad_image")] for number in range(1, 31)}
    stage, provider = Stage(tmp_path, 100), Provider(scripts=scripts)

    async def look(_: Run) -> None:
        await until(lambda: len(provider.calls) >= 99)
        others.set()

    story = await stage.play(provider, during=look)
    assert story.ending.exit_code is ExitCode.OK
    assert (stage.totals.done, stage.totals.failed) == (70, 30)


@pytest.mark.looptime(noop_cycles=0)
async def test_the_wait_for_the_one_from_elsewhere_is_shown_and_ends_with_its_answer(tmp_path: Path) -> None:
    scripts = {f"row {number}": [status(400, "bad_image")] for number in range(1, 31)}
    provider = Slow(scripts=scripts)
    provider.waits, provider.event = frozenset(f"row {number}" for number in range(150, 301)), asyncio.Event()
    stage = Stage(tmp_path, 300)

    def hear(event: Event, _: Run) -> None:
        if isinstance(event, Waiting) and event.reason is WaitReason.ALIKE:
            assert len(provider.calls) <= ALIKE + IN_FLIGHT
            provider.event.set()

    story = await stage.play(provider, hear=hear)
    assert provider.event.is_set()
    assert story.ending.exit_code is ExitCode.OK
    assert (stage.totals.done, stage.totals.failed) == (270, 30)


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
