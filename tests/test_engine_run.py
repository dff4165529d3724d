"""A run, told as a dialogue of events: what is sent, what comes back, what the journal has at the end."""

import asyncio
import gc
from bisect import bisect
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from engine import PLAN, WITH_SCHEMA, Provider, Stage, Story, exchange, fault, garbage, ok, reply_body, status, until
from waiting import PATIENCE

from batchrun.engine.run import TICK, Run
from batchrun.engine.run_result import RunResult
from batchrun.engine.selection import in_sample
from batchrun.errors import ExitCode
from batchrun.events import AttemptEnded, AttemptStarted, Draining, Event, LimitsChanged, Notice, RowFinished, Waiting
from batchrun.journal import End, Journal, Reader
from batchrun.limits import Limits
from batchrun.models import Exchange, Fault, Flag, State
from batchrun.retry import ALIKE

pytestmark = pytest.mark.usefixtures("no_waiting")

QUOTA = status(429, "insufficient_quota", {"retry-after": "1"})
CREW = 2 * PLAN.concurrency
BAD = status(400, "context_length_exceeded")


@pytest.fixture
def tmp_path(in_memory: Path) -> Path:
    return in_memory


async def test_every_row_is_sent_once_and_told_in_order(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 50), Provider()
    story = await stage.play(provider)
    assert story.ending == RunResult(ExitCode.OK)
    assert set(provider.counts.values()) == {1}
    assert len(provider.calls) == 50
    assert stage.states == ["done"] * 50
    assert provider.peak <= 4
    for seq in (1, 50):
        assert [said for said in story.told if said.startswith(f"row {seq} ")] == [
            f"row {seq} attempt 1",
            f"row {seq} got a reply",
            f"row {seq} done",
        ]
    assert stage.totals.input_tokens == 350


async def test_full_collections_do_not_look_at_what_was_there_before_the_run(tmp_path: Path) -> None:
    spared: list[int] = []
    await Stage(tmp_path).play(Provider(), hear=lambda *_: spared.append(gc.get_freeze_count()))
    assert min(spared) > 10_000
    assert gc.get_freeze_count() < 1_000


async def test_a_fact_is_in_the_journal_before_it_is_told(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 5)
    told: Counter[type] = Counter()
    early: list[Event] = []

    def hear(event: Event, _: Run) -> None:
        told[type(event)] += 1
        with Reader.open(stage.path) as reader:
            totals = reader.totals
        if totals.attempts < told[AttemptStarted] or totals.done < told[RowFinished]:
            early.append(event)

    await stage.play(Provider(), hear=hear)
    assert told[RowFinished] == 5
    assert early == []


async def test_a_row_that_fails_is_sent_again(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 1)
    story = await stage.play(Provider({"row 1": [status(503), garbage(b"<html>"), fault(Fault.RESET), ok()]}))
    assert story.told == [
        "row 1 attempt 1",
        "row 1 got 503, again",
        "row 1 attempt 2",
        story.told[3],
        "row 1 attempt 3",
        "row 1 got connection lost, again",
        "row 1 attempt 4",
        "row 1 got a reply",
        "row 1 done",
    ]
    assert story.told[3].endswith(", again")
    assert stage.totals.possibly_billed == 2
    assert stage.totals.attempts == 4


async def test_a_row_that_keeps_failing_has_failed_for_now_and_goes_on_later(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 2), Provider({"row 1": [status(500)]})
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.OK
    assert provider.counts["row 1"] == 5
    assert (stage.totals.done, stage.totals.failed, stage.totals.retryable) == (1, 1, 1)
    record = stage.records[0]
    assert (record.cause, record.permanent, record.attempts) == ("500", False, 5)


@pytest.mark.parametrize(
    ("answer", "calls", "cause"),
    [
        (BAD, 1, "too long for the model"),
        (status(422), 1, "422: said N"),
        (garbage(b""), 3, None),
        (garbage(b"null"), 3, None),
        (garbage(b'{"choices": []}'), 3, None),
        (garbage(b'{"error": {"message": "busy with request 17"}}'), 3, "an error in place of an answer"),
        (garbage(b"\xff\xfe{"), 3, None),
        (fault(Fault.DEADLINE), 2, "deadline"),
        (fault(Fault.TOO_LARGE), 1, "reply too large"),
        (status(418), 1, "418: said N"),
    ],
)
async def test_how_often_a_row_is_sent_before_it_is_given_up(
    answer: object, calls: int, cause: str | None, tmp_path: Path
) -> None:
    stage, provider = Stage(tmp_path, 3), Provider({"row 2": [answer]})  # type: ignore[list-item]
    await stage.play(provider)
    assert provider.counts["row 2"] == calls
    assert stage.states == ["done", "failed", "done"]
    assert cause is None or stage.records[1].cause == cause
    assert stage.records[1].cause


async def test_an_error_that_comes_as_a_200_is_told_in_its_own_words(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 2)
    await stage.play(Provider({"row 2": [garbage(b'{"error": {"message": "busy with request 17"}}')]}))
    assert stage.records[1].message == "an error in place of an answer after 3 attempts: busy with request 17"


async def test_a_reply_that_does_not_fit_is_shown_to_the_model(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 1, prompt_source=WITH_SCHEMA, output_fields=("score",))
    provider = Provider({"row 1": [ok("seven"), ok('{"score": "seven"}'), ok('{"score": 7}')]})
    story = await stage.play(provider)
    assert story.told[-1] == "row 1 done"
    assert stage.records[0].value == '{"score":7}'
    assert [len(body["messages"]) for body in provider.bodies] == [1, 3, 5]
    assert provider.bodies[1]["messages"][1] == {"role": "assistant", "content": "seven"}
    assert "not JSON" in provider.bodies[1]["messages"][2]["content"]
    assert '{"score": "seven"}' in provider.bodies[2]["messages"][3]["content"]
    assert stage.totals.replies == 3
    assert stage.totals.output_tokens == 9


async def test_a_model_that_never_fits_is_asked_three_times(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 2, prompt_source=WITH_SCHEMA, output_fields=("score",))
    provider = Provider({"row 1": [ok("seven")], "row 2": [ok('{"score": 2}')]})
    await stage.play(provider)
    assert provider.counts == {"row 1": 3, "row 2": 1}
    assert stage.states == ["failed", "done"]
    assert stage.records[0].permanent


async def test_a_cut_reply_is_done_and_flagged_or_fails_as_the_user_wants(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 2), Provider({"row 1": [ok(finish="length")]})
    await stage.play(provider)
    assert stage.records[0].flags == {Flag.TRUNCATED}
    assert stage.totals.truncated == 1
    failing = Stage(tmp_path / "failing", 2)
    await failing.play(Provider({"row 1": [ok(finish="length")]}), fail_on=frozenset({Flag.TRUNCATED}))
    assert failing.states == ["failed", "done"]


@pytest.mark.parametrize("answer", [status(400, "no_db_connection"), status(422)])
async def test_when_the_first_rows_fail_alike_all_rows_stay_pending(answer: object, tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 300), Provider(usual=answer)  # type: ignore[arg-type]
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.STOPPED
    assert f"the first {ALIKE} rows all failed alike" in (story.ending.message or "")
    assert stage.totals.pending == 300
    assert len(provider.calls) <= ALIKE + 1 + 2 * 4
    assert not story.of(RowFinished)


@pytest.mark.parametrize("rows", [2, 300])
async def test_web_pages_in_place_of_replies_are_the_base_urls_fault(rows: int, tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, rows), Provider(usual=garbage(b"<!doctype html><title>Welcome</title>"))
    story = await stage.play(provider)
    said = story.ending.hint if rows > ALIKE else stage.records[0].message
    assert "check the base URL, with its /v1" in (said or "")


async def test_a_server_error_everywhere_stops_the_run_too(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 300), Provider(usual=status(500))
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.STOPPED
    assert stage.totals.pending == 300


async def test_failures_before_the_first_success_stand_once_something_succeeds(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 30)
    story = await stage.play(Provider({f"row {n}": [BAD] for n in range(1, 11)}))
    assert story.ending.exit_code is ExitCode.OK
    assert stage.states == ["failed"] * 10 + ["done"] * 20


async def test_a_small_run_in_which_everything_fails_says_so_row_by_row(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 3)
    story = await stage.play(Provider(usual=BAD))
    assert story.ending.exit_code is ExitCode.OK
    assert stage.states == ["failed"] * 3


async def test_no_more_failures_are_held_back_than_memory_should_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchrun.engine.row.MOST_HELD", 50)
    stage, provider = Stage(tmp_path, 100), Provider()
    provider.scripts = {f"row {number}": [status(400, f"bad_{number}")] for number in range(1, 101)}
    sent_when_told: list[int] = []

    def hear(event: Event, _: Run) -> None:
        if isinstance(event, RowFinished):
            sent_when_told.append(len(provider.calls))

    await stage.play(provider, hear=hear)
    assert 50 <= sent_when_told[0] <= 60
    assert stage.totals.failed == 100


async def test_failures_of_a_stopped_run_that_were_held_back_stay_pending(tmp_path: Path) -> None:
    hold = asyncio.Event()
    provider = Provider({"row 1": [status(401)]}, usual=BAD)

    async def slow(request: object, *, timeout: float) -> Exchange:  # noqa: ASYNC109  as the client's
        found = await Provider.send(provider, request, timeout=timeout)  # type: ignore[arg-type]
        if provider.counts["row 1"] and found.status == 401:
            hold.set()
        else:
            await hold.wait()
            await asyncio.sleep(0.01)
        return found

    provider.send = slow  # type: ignore[method-assign]
    stage = Stage(tmp_path, 30)
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.STOPPED
    assert stage.totals.pending == 30


@pytest.mark.parametrize("code", [ExitCode.INTERRUPTED, ExitCode.BUDGET])
async def test_failures_before_a_first_success_stay_pending_where_the_user_or_the_clock_ends_the_run(
    code: ExitCode, tmp_path: Path
) -> None:
    stage, provider = Stage(tmp_path, 30), Provider(usual=BAD)

    def hear(event: Event, run: Run) -> None:
        if isinstance(event, AttemptEnded) and event.seq == 3:
            run.stop(RunResult(code), drain=30.0)

    story = await stage.play(provider, hear=hear)
    assert story.ending.exit_code is code
    assert 3 <= len(provider.calls) <= 3 + 4
    assert stage.totals.pending == 30
    again = Provider()
    assert (await stage.play(again)).ending.exit_code is ExitCode.OK
    assert (stage.totals.done, len(again.calls)) == (30, 30)


@pytest.mark.parametrize("answer", [QUOTA, status(402), status(401, "invalid_api_key"), status(403), status(404)])
async def test_a_fatal_answer_stops_the_run_with_no_more_calls_than_were_in_flight(
    answer: object, tmp_path: Path
) -> None:
    stage, provider = Stage(tmp_path, 100), Provider(usual=answer)  # type: ignore[arg-type]
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.STOPPED
    assert len(provider.calls) <= 4
    assert stage.totals.pending == 100
    resumed = Provider()
    assert (await stage.play(resumed)).ending.exit_code is ExitCode.OK
    assert len(resumed.calls) == 100


async def test_an_account_that_runs_empty_keeps_what_is_done(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 60)
    provider = Provider({f"row {n}": [QUOTA] for n in range(30, 61)})
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.STOPPED
    assert "said 429" in (story.ending.message or "")
    totals = stage.totals
    assert totals.done == 29
    assert (totals.failed, totals.unknown) == (0, 0)
    assert len(provider.calls) <= 29 + 4


async def test_a_key_that_is_withdrawn_is_confirmed_by_one_more_call(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 200)
    provider = Provider({f"row {n}": [status(401)] for n in range(20, 201)})
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.STOPPED
    assert len(provider.calls) <= 19 + 2 * 4
    assert stage.totals.failed == 0


async def test_one_odd_401_costs_nothing(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 40), Provider({"row 20": [status(401), ok()]})
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.OK
    assert stage.totals.done == 40


async def test_while_the_provider_is_down_no_row_loses_an_attempt(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 60, max_attempts=2)
    down = {"since": 0}

    def flaky(prompt: str) -> Exchange:
        down["since"] += 1
        return (fault(Fault.REFUSED, sent=False) if 10 < down["since"] <= 90 else ok())(prompt)

    story = await stage.play(Provider(usual=flaky))
    assert story.ending.exit_code is ExitCode.OK
    assert stage.states == ["done"] * 60
    assert [notice.message for notice in story.of(Notice)] == [
        "the provider is down: one request per second is tried",
        "the provider answers again",
    ]


async def test_an_answer_that_stops_the_run_takes_no_attempt_from_its_row(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 1)
    for _ in range(5):
        await stage.play(Provider(usual=status(401)))
    await stage.play(Provider({"row 1": [status(503), ok()]}))
    assert stage.states == ["done"]


async def test_a_provider_that_stays_down_ends_the_run_with_all_rows_pending(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 60)
    provider = Provider({f"row {n}": [fault(Fault.REFUSED, sent=False)] for n in range(10, 61)})
    story = await stage.play(provider, give_up_after=0.2)
    assert story.ending.exit_code is ExitCode.STOPPED
    assert "has been down" in (story.ending.message or "")
    assert stage.totals.pending == 51


@pytest.mark.slow
async def test_429s_at_random_make_their_rows_wait_and_in_the_end_nobody_else(tmp_path: Path) -> None:
    throttled = status(429, "requests", {"retry-after-ms": "200"})
    unlucky = {f"row {number}": [throttled, ok()] for number in range(100, 3_000, 60)}
    stage, provider = Stage(tmp_path, 3_000, max_attempts=1), Provider(unlucky)
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.OK
    assert stage.totals.done == 3_000
    ended = {event.seq: event.at for event in story.of(AttemptEnded) if event.throttled}
    again = {event.seq: event.at for event in story.of(AttemptStarted) if event.number == 2}
    assert len(ended) == len(again) == len(unlucky)
    assert all(again[row] - at >= 0.2 for row, at in ended.items())
    started = sorted(event.at for event in story.of(AttemptStarted))
    meanwhile = [bisect(started, at + 0.2) - bisect(started, at) for at in ended.values()]
    assert sum(others > 2 * CREW for others in meanwhile) >= len(meanwhile) / 3, meanwhile


async def test_a_429_delays_and_takes_nothing(tmp_path: Path) -> None:
    throttled = status(429, "requests", {"retry-after-ms": "50"})
    stage, provider = Stage(tmp_path, 10, max_attempts=1), Provider({"row 3": [throttled, throttled, ok()]})
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.OK
    assert stage.totals.done == 10
    assert sum(ended.throttled for ended in story.of(AttemptEnded)) == 2


async def test_a_wait_that_is_too_long_stops_the_run(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 10)
    story = await stage.play(Provider(usual=status(429, "requests", {"retry-after": "3600"})), max_wait=60.0)
    assert story.ending.exit_code is ExitCode.STOPPED
    assert "3600 s" in (story.ending.message or "")
    assert stage.totals.pending == 10


async def test_a_request_that_is_larger_than_the_limit_is_refused_without_a_call(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 3), Provider()
    await stage.play(provider, tpm=1.0)
    assert provider.calls == []
    assert {record.cause for record in stage.records} == {"request too large"}


async def test_after_its_time_the_run_stops_in_good_order(tmp_path: Path) -> None:
    hold = asyncio.Event()
    stage, provider = Stage(tmp_path, 30), Provider(hold=hold)

    def hear(event: Event, _: Run) -> None:
        if isinstance(event, Draining):
            hold.set()

    story = await stage.play(provider, hear=hear, stop_after=1.0)
    assert story.ending.exit_code is ExitCode.BUDGET
    assert [event.in_flight for event in story.of(Draining)] == [4]
    assert (stage.totals.done, stage.totals.unknown, stage.totals.pending) == (4, 0, 26)


async def stopped(stage: Stage, provider: Provider, *, drain: float, answers: bool) -> Story:
    async def stop(run: Run) -> None:
        await until(lambda: len(provider.calls) == 4)
        run.stop(RunResult(ExitCode.INTERRUPTED, "interrupted"), drain=drain)
        run.stop(RunResult(ExitCode.TERMINATED, "too late"), drain=drain)
        assert provider.hold is not None
        if answers:
            provider.hold.set()

    return await stage.play(provider, during=stop)


async def test_a_stop_counts_the_requests_that_left_and_not_those_that_wait_for_their_turn(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 64), Provider(hold=asyncio.Event())

    async def stop(run: Run) -> None:
        await until(lambda: len(provider.calls) == 3)
        run.stop(RunResult(ExitCode.INTERRUPTED, "interrupted"), drain=30.0)
        assert provider.hold is not None
        provider.hold.set()

    story = await stage.play(provider, during=stop, rpm=1200.0, concurrency=32, concurrency_fixed=True)
    assert [event.in_flight for event in story.of(Draining)] == [3]
    assert stage.totals.done == 3


async def test_a_stop_awaits_what_is_in_flight_and_sends_nothing_new(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 30), Provider(hold=asyncio.Event())
    story = await stopped(stage, provider, drain=30.0, answers=True)
    assert story.ending == RunResult(ExitCode.INTERRUPTED, "interrupted")
    assert len(provider.calls) == 4
    assert (stage.totals.done, stage.totals.unknown, stage.totals.pending) == (4, 0, 26)


@pytest.mark.parametrize("plan", [{}, {"limit": 4}])
async def test_a_stop_that_comes_when_only_the_last_rows_are_left_is_no_end_of_its_own(
    plan: dict[str, int], tmp_path: Path
) -> None:
    stage, provider = Stage(tmp_path, 8 if plan else 4, **plan), Provider(hold=asyncio.Event())
    story = await stopped(stage, provider, drain=30.0, answers=True)
    assert story.ending == RunResult(
        ExitCode.OK, notes=("interrupted while the last rows were in flight; all of them have finished",)
    )
    assert len(story.of(Draining)) == 1
    assert (stage.totals.done, len(provider.calls)) == (4, 4)


@pytest.mark.parametrize("code", [ExitCode.TERMINATED, ExitCode.BROKEN_PIPE, ExitCode.STOPPED])
async def test_a_hasty_or_fatal_end_stays_one_also_when_no_row_is_left(code: ExitCode, tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 1), Provider()

    def hear(event: Event, run: Run) -> None:
        if isinstance(event, AttemptStarted):
            run.stop(RunResult(code), drain=30.0)

    assert (await stage.play(provider, hear=hear)).ending.exit_code is code
    assert stage.totals.done == 1


async def test_what_does_not_come_in_time_is_unknown_and_sent_again(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 30), Provider(hold=asyncio.Event())
    story = await stopped(stage, provider, drain=0.05, answers=False)
    assert sorted(said for said in story.told if said.endswith("lost")) == [f"row {n} lost" for n in range(1, 5)]
    assert (stage.totals.done, stage.totals.unknown, stage.totals.pending) == (0, 4, 26)
    again = Provider()
    assert (await stage.play(again)).ending.exit_code is ExitCode.OK
    assert set(again.counts.values()) == {1}
    assert (stage.totals.done, stage.totals.unknown, stage.totals.possibly_billed) == (30, 0, 4)


async def test_a_signal_shortens_the_wait_of_a_stop_that_is_under_way(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 30), Provider(hold=asyncio.Event())

    async def stop(run: Run) -> None:
        await until(lambda: len(provider.calls) == 4)
        run.stop(RunResult(ExitCode.STOPPED, "the key is refused"), drain=600.0)
        run.stop(RunResult(ExitCode.STOPPED, "another answer"), drain=0.01)
        run.stop(RunResult(ExitCode.TERMINATED), drain=0.2)
        run.stop(RunResult(ExitCode.INTERRUPTED), drain=600.0)

    async with asyncio.timeout(PATIENCE):
        story = await stage.play(provider, during=stop)
    assert story.ending == RunResult(ExitCode.STOPPED, "the key is refused")
    assert [round(event.until - event.at, 1) for event in story.of(Draining)] == [600.0, 0.2]
    assert stage.totals.unknown == 4


async def test_leaving_at_once_takes_no_time(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 30), Provider(hold=asyncio.Event())
    loop = asyncio.get_running_loop()
    times: list[float] = []

    async def leave(run: Run) -> None:
        await until(lambda: len(provider.calls) == 4)
        run.stop(RunResult(ExitCode.INTERRUPTED), drain=2 * PATIENCE)
        await asyncio.sleep(0.01)
        times.append(loop.time())
        run.abandon()

    await stage.play(provider, during=leave)
    assert loop.time() - times[0] < PATIENCE  # it would have been awaited for twice as long
    assert stage.totals.unknown == 4


async def test_a_run_can_be_stopped_before_it_begins(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 30), Provider()
    first: list[Run] = []

    async def stop(run: Run) -> None:
        first.append(run)

    def hear(event: Event, run: Run) -> None:
        run.stop(RunResult(ExitCode.BROKEN_PIPE), drain=1.0)

    story = await stage.play(provider, during=stop, hear=hear)
    assert story.ending.exit_code is ExitCode.BROKEN_PIPE
    assert len(provider.calls) <= 4
    assert stage.totals.unknown == 0


async def test_rows_wait_while_the_run_is_paused(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 8), Provider()

    async def steer(run: Run) -> None:
        run.pause()
        await asyncio.sleep(2 * TICK)
        assert len(provider.calls) <= 4
        run.resume()

    story = await stage.play(provider, during=steer)
    assert story.ending.exit_code is ExitCode.OK
    assert stage.totals.done == 8


async def test_the_cap_can_be_moved_while_it_runs(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 400), Provider(hold=asyncio.Event())

    async def steer(run: Run) -> None:
        assert provider.hold is not None
        await until(lambda: len(provider.calls) == 4)
        run.change(Limits(12, fixed=True))
        await until(lambda: len(provider.calls) == 12)
        run.change(Limits(2, fixed=True))
        assert run.limits.cap == 2
        provider.hold.set()

    await stage.play(provider, during=steer)
    assert provider.peak == 12
    assert stage.totals.done == 400


@pytest.mark.parametrize(("rows", "workers"), [(3, 3), (8, 8), (100, 8)])
async def test_there_are_no_more_workers_than_rows_or_than_the_cap_can_use(
    rows: int, workers: int, tmp_path: Path
) -> None:
    stage, provider, seen = Stage(tmp_path, rows), Provider(hold=asyncio.Event()), set[asyncio.Task[object]]()

    async def look(_: Run) -> None:
        assert provider.hold is not None
        await until(lambda: len(provider.calls) == min(rows, 4))
        await asyncio.sleep(2 * TICK)
        coroutines = {task: task.get_coro() for task in asyncio.all_tasks()}
        seen.update(task for task, coroutine in coroutines.items() if coroutine.__qualname__ == "Run._work")
        provider.hold.set()

    await stage.play(provider, during=look)
    assert len(seen) == workers
    assert stage.totals.done == rows


def full_disk(at: int):
    def fail(commit: int) -> None:
        if commit >= at:
            raise OSError(28, "No space left on device")

    return fail


@pytest.mark.parametrize("at", [2, 3, 5, 9])
async def test_when_the_journal_cannot_be_written_nothing_more_is_sent(at: int, tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 200), Provider()
    stage.faults = full_disk(at)
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.STORAGE
    assert "No space left on device" in (story.ending.message or "")
    stage.faults = None
    kept = stage.totals
    assert kept.done == len(story.of(RowFinished))
    assert len(provider.calls) <= kept.done + 2 * 4
    again = Provider()
    await stage.play(again)
    assert stage.totals.done == 200
    assert len(again.calls) <= 200 - kept.done


async def test_rows_that_cannot_be_fetched_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    stage, provider = Stage(tmp_path, 3), Provider()
    monkeypatch.setattr(Journal, "pending", no_thread)
    async with asyncio.timeout(PATIENCE):
        story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.UNEXPECTED
    assert "can't start new thread" in (story.ending.message or "")
    assert stage.totals.pending == 3


@pytest.mark.parametrize("at", range(3, 7))
async def test_a_reply_that_cannot_be_kept_ends_the_run_also_where_post_processing_waits_for_it(
    at: int, tmp_path: Path
) -> None:
    stage, provider = Stage(tmp_path, 1, post=("strip",)), Provider()
    stage.faults = full_disk(at)
    async with asyncio.timeout(PATIENCE):
        story = await stage.play(provider)
    assert story.ending.exit_code is (ExitCode.STORAGE if stage.totals.done == 0 else ExitCode.OK)


async def test_a_limit_takes_the_first_rows_and_a_sample_rows_from_everywhere(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 100), Provider()
    await stage.play(provider, limit=10)
    assert stage.states == ["done"] * 10 + ["pending"] * 90
    sampled = Provider()
    await stage.play(sampled, sample=10)
    numbers = sorted(int(prompt.removeprefix("row ")) for prompt in sampled.calls)
    assert [(number - 1) // 10 for number in numbers] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    rest = Provider()
    await stage.play(rest)
    assert len(rest.calls) == 81


@pytest.mark.parametrize(("size", "total"), [(1, 1), (1, 10), (3, 10), (10, 10), (99, 10), (7, 1000)])
def test_a_sample_has_its_size(size: int, total: int) -> None:
    assert sum(in_sample(position, size, total) for position in range(1, total + 1)) == min(size, total)


async def leave_a_reply(stage: Stage, row: int, body: str, end: End) -> None:
    """As a process does that is killed between the reply and the outcome."""
    journal = Journal.open(stage.path)
    journal.start()
    await journal.begin(row, 1)
    await journal.end(row, 1, end, body)
    journal.close()


async def test_a_reply_that_was_paid_for_is_never_asked_for_again(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 3), Provider()
    body = exchange_body("WAS PAID")
    await leave_a_reply(stage, 2, body, End(200, 0.1))
    story = await stage.play(provider)
    assert "row 2" not in provider.calls
    assert [said for said in story.told if said.startswith("row 2 ")] == ["row 2 done"]
    assert stage.records[1].body == body


def exchange_body(text: str) -> str:
    return reply_body(text).decode()


async def test_a_recorded_reply_that_did_not_fit_is_asked_again_once_more(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 1, prompt_source=WITH_SCHEMA, output_fields=("score",))
    await leave_a_reply(stage, 1, exchange_body("seven"), End(200, 0.1, "x", "y", invalid=True))
    provider = Provider(usual=ok('{"score": 7}'))
    await stage.play(provider)
    assert stage.states == ["done"]
    assert len(provider.calls) == 1
    assert provider.bodies[0]["messages"][1]["content"] == "seven"


async def test_a_recorded_body_that_is_no_reply_is_sent_anew(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 2), Provider()
    await leave_a_reply(stage, 1, "null", End(200, 0.1))
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.OK
    assert stage.states == ["done", "done"]
    assert provider.counts == {"row 1": 1, "row 2": 1}


async def test_a_bug_costs_its_row_and_not_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken(prompt: str) -> Exchange:
        raise ZeroDivisionError("a bug")

    stage = Stage(tmp_path, 20)
    story = await stage.play(Provider({"row 7": [broken]}))
    assert story.ending.exit_code is ExitCode.OK
    assert stage.totals.done == 19
    assert (stage.totals.retryable, stage.totals.unknown) == (1, 0)
    assert stage.records[6].cause == "internal error"
    assert "a bug" in caplog.text


async def test_waiting_for_retries_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchrun.retry.decision._backoff", lambda _: 3 * TICK)
    story = await Stage(tmp_path, 2).play(Provider({"row 1": [status(503), ok()]}))
    assert [str(wait.reason) for wait in story.of(Waiting)][:1] == ["remaining rows are in back-off"]


async def test_the_gate_is_shown_and_the_state_is_sampled(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 20)
    story = await stage.play(Provider())
    assert story.of(LimitsChanged)[0].cap == 4
    with Reader.open(stage.path) as reader:
        assert "allowed" in reader.samples()[0].state
    assert story.of(RowFinished)[0].outcome.state is State.DONE


async def test_an_exchange_without_a_request_id_is_fine(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 1)
    await stage.play(Provider(usual=lambda _: exchange(200, exchange_body("x").encode())))
    assert stage.records[0].request_id is None


def stated(**headers: str) -> Provider:
    """A provider that states these limits on every reply."""
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    return Provider(usual=lambda prompt: exchange(200, reply_body(prompt), said))


async def test_what_was_learned_of_a_provider_is_kept_for_the_next_session(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 20)
    await stage.play(stated(x_ratelimit_limit_requests_minute="60000", x_ratelimit_remaining_requests_minute="59000"))
    with closing(Journal.open(stage.path)) as journal:
        lane = journal.lane(PLAN.base_url, PLAN.api_key_env, PLAN.model)
    assert '"limit": 60000' in (lane.learned or "")
    story = await stage.play(Provider())
    assert story.ending.exit_code is ExitCode.OK


async def test_a_quota_that_the_rows_will_use_up_is_said_once(tmp_path: Path) -> None:
    provider = stated(x_ratelimit_limit_requests_day="400", x_ratelimit_remaining_requests_day="150")

    async def slow(run: Run) -> None:
        run.pause()
        await asyncio.sleep(3 * TICK)
        run.resume()

    def pause_once(event: Event, run: Run) -> None:
        if isinstance(event, RowFinished) and event.seq == 1:
            pauses.append(asyncio.ensure_future(slow(run)))

    pauses: list[asyncio.Task[None]] = []
    story = await Stage(tmp_path, 300).play(provider, hear=pause_once, stop_after=60.0)
    said = [notice.message for notice in story.of(Notice) if "quota" in notice.message]
    assert len(said) == 1
    assert said[0].startswith("150 of the provider's quota of 400 requests a day are left; ")
