"""Runs over several lanes: one queue of rows, and what becomes of the rows of a lane that fails."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from engine import WITH_SCHEMA, Answer, Provider, Stage, fault, ok, status, until

from batchrun.engine.run import Run
from batchrun.engine.run_result import RunResult
from batchrun.errors import ExitCode
from batchrun.events import AttemptEnded, Event, LaneChanged, LaneState, Notice
from batchrun.models import Exchange, Fault, Request
from batchrun.retry import ALIKE

pytestmark = pytest.mark.looptime(noop_cycles=0)


@dataclass
class Server(Provider):
    """Answers `slots` requests at a time, each after so many seconds; what comes while `away` says so is lost."""

    slots: int = 1000
    seconds: float = 1.0
    away: Callable[[float], bool] = lambda _: False
    _free: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._free = asyncio.Semaphore(self.slots)

    async def send(self, request: Request, *, timeout: float) -> Exchange:  # noqa: ASYNC109  as the client's
        loop = asyncio.get_running_loop()
        left = loop.time()
        if self.away(left):
            return Exchange(0, {}, b"", left, left, Fault.REFUSED, "refused", False)
        async with self._free:
            await asyncio.sleep(self.seconds)
        found = await super().send(request, timeout=timeout)
        if self.away(loop.time()):
            return Exchange(0, {}, b"", left, loop.time(), Fault.RESET, "lost", True)
        return found._replace(left=left)


def lanes(*names: str, **own: Any) -> tuple[dict[str, Any], ...]:
    """Lanes of these names; `own` members for all."""
    return tuple({"name": name, "base_url": f"http://{name}.test/v1", "model": "m", **own} for name in names)


def by_lane(stage: Stage, which: str = "1") -> dict[str, int]:
    """Attempts in the journal by the host of their lane."""
    with sqlite3.connect(stage.path) as connection:
        found = connection.execute(
            f"SELECT base_url, count(*) FROM attempts JOIN lanes ON lanes.id = lane WHERE {which} GROUP BY 1"
        ).fetchall()
    return {url.removeprefix("http://").removesuffix(".test/v1"): count for url, count in found}


def counted(stage: Stage) -> dict[str, int]:
    return by_lane(stage, "counted AND cause IS NOT NULL")


async def test_lanes_share_the_rows_and_the_journal_says_which_got_which(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 120, lanes=lanes("a", "b"))
    story = await stage.play({"a": Server(slots=8), "b": Server(slots=8)})
    assert story.ending.exit_code is ExitCode.OK
    assert stage.totals.done == 120
    found = by_lane(stage)
    assert sum(found.values()) == 120
    assert min(found.values()) > 40
    assert {event.lane for event in story.of(AttemptEnded)} == {"a", "b"}


async def test_servers_of_different_size_are_all_used(tmp_path: Path) -> None:
    slots = {"a": 8, "b": 12, "c": 24}
    stage = Stage(tmp_path, 500, lanes=lanes(*slots, concurrency=64))
    loop = asyncio.get_running_loop()
    began = loop.time()
    providers = {name: Server(slots=size) for name, size in slots.items()}
    await stage.play(providers, concurrency=64)
    ended = loop.time() - began
    assert stage.totals.done == 500
    assert 500 / ended >= 0.75 * sum(slots.values())  # with slow start and the last rows


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (status(401, "invalid_request_error"), "refused the key"),
        (status(402), "402"),
        (status(429, "insufficient_quota"), "insufficient_quota"),
        (status(404, "model_not_found"), "404"),
    ],
)
async def test_a_lane_that_answers_no_row_hands_its_rows_to_the_others(tmp_path: Path, answer: Any, said: str) -> None:
    stage = Stage(tmp_path, 60, lanes=lanes("a", "b"), max_attempts=1)
    story = await stage.play({"a": Server(usual=answer, seconds=0.1), "b": Server(slots=4)})
    assert story.ending.exit_code is ExitCode.OK
    assert stage.totals.done == 60
    assert counted(stage) == {}
    closed = [event for event in story.of(LaneChanged) if event.state is LaneState.CLOSED]
    assert [event.lane for event in closed] == ["a"]
    assert closed[0].reason
    assert any(event.message.startswith("a: its rows go to other lanes") for event in story.of(Notice))


async def test_the_run_stops_when_no_lane_is_left_and_says_why_for_each(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 60, lanes=lanes("a", "b"))
    story = await stage.play({"a": Server(usual=status(401)), "b": Server(usual=status(402, "billing"))})
    assert story.ending.exit_code is ExitCode.STOPPED
    assert story.ending.message is not None
    assert "a: " in story.ending.message
    assert "b: " in story.ending.message
    assert stage.totals.pending == 60
    assert counted(stage) == {}


async def test_a_lane_that_is_killed_and_restarted_twice_costs_no_row_and_no_attempt(tmp_path: Path) -> None:
    def away(now: float) -> bool:
        return 5 <= now - began < 8 or 12 <= now - began < 14

    began = asyncio.get_running_loop().time()
    stage = Stage(tmp_path, 300, lanes=lanes("a", "b", concurrency=16), max_attempts=1)
    killed = Server(slots=8, away=away)
    story = await stage.play({"a": killed, "b": Server(slots=6)}, concurrency=16)
    assert story.ending.exit_code is ExitCode.OK
    assert stage.totals.done == 300
    assert counted(stage) == {}
    assert by_lane(stage, "possibly_billed").keys() == {"a"}
    states = [event.state for event in story.of(LaneChanged) if event.lane == "a"]
    assert states == [LaneState.DOWN, LaneState.OPEN] * 2
    assert by_lane(stage, "status = 200")["a"] > 80  # it is used again


async def test_a_closed_lane_is_tried_again_with_a_single_row(tmp_path: Path) -> None:
    began = asyncio.get_running_loop().time()

    def answer(prompt: str) -> Exchange:
        late = asyncio.get_running_loop().time() - began > 100
        return ok()(prompt) if late else status(402)(prompt)

    stage = Stage(tmp_path, 250, lanes=lanes("a", "b"), max_attempts=1)
    first = Server(usual=answer, seconds=0.5, slots=4)
    story = await stage.play({"a": first, "b": Server(slots=4, seconds=4.0)})
    assert stage.totals.done == 250
    assert counted(stage) == {}
    refused = [e for e in story.of(AttemptEnded) if e.lane == "a" and e.status == 402]
    after = [e for e in refused if e.at > refused[0].at + 30]
    assert len(after) == 1  # after a minute, and the next time it answers
    assert by_lane(stage, "status = 200")["a"] > 10


async def test_failures_that_were_held_back_go_to_the_others_when_they_are_the_lane_s(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 100, lanes=lanes("a", "b"))
    refuses = Server(usual=status(400, "invalid_request_error"), seconds=0.1)
    story = await stage.play({"a": refuses, "b": Server(slots=4)})
    assert story.ending.exit_code is ExitCode.OK
    assert (stage.totals.done, stage.totals.failed) == (100, 0)


async def test_a_row_that_fails_for_its_own_reason_fails_at_whatever_lane(tmp_path: Path) -> None:
    scripts: dict[str, Sequence[Answer]] = {"row 7": [status(400, "context_length_exceeded")]}
    stage = Stage(tmp_path, 40, lanes=lanes("a", "b"))
    await stage.play({name: Server(scripts=scripts, slots=4) for name in "ab"})
    assert (stage.totals.done, stage.totals.failed) == (39, 1)


async def test_a_lost_connection_costs_no_attempt_while_another_lane_has_not_failed_under_the_row(
    tmp_path: Path,
) -> None:
    lost = fault(Fault.RESET)
    stage = Stage(tmp_path, 30, lanes=lanes("a", "b"), max_attempts=2)
    await stage.play({name: Server(scripts={"row 7": [lost]}, slots=4) for name in "ab"})
    assert (stage.totals.done, stage.totals.failed) == (29, 1)  # and one that no lane answers ends
    assert sum(by_lane(stage, "row = 7").values()) == 3


async def test_each_lane_is_asked_for_its_own_model(tmp_path: Path) -> None:
    first, second = lanes("a", "b")
    pool = (first, {**second, "model": "vendor/m"})
    providers = {"a": Server(slots=4), "b": Server(slots=4)}
    stage = Stage(tmp_path, 40, lanes=pool, model="m | vendor/m")
    members = {"a": b'{"model":"m"', "b": b'{"model":"vendor/m"'}
    await stage.play(providers, instead={name: (b'{"model":"m | vendor/m"', own) for name, own in members.items()})
    assert {body["model"] for body in providers["a"].bodies} == {"m"}
    assert {body["model"] for body in providers["b"].bodies} == {"vendor/m"}


async def test_lanes_of_one_quota_share_a_limiter(tmp_path: Path) -> None:
    began = asyncio.get_running_loop().time()
    stage = Stage(tmp_path, 40, lanes=lanes("a", "b", quota="team", rpm=60.0))
    await stage.play({"a": Server(), "b": Server()})
    assert stage.totals.done == 40
    assert asyncio.get_running_loop().time() - began > 35  # 60 a minute for both


async def test_a_cap_holds_over_all_lanes(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 100, lanes=lanes("a", "b"), max_requests=30)
    story = await stage.play({"a": Server(slots=8), "b": Server(slots=8)})
    assert story.ending.exit_code is ExitCode.BUDGET
    assert stage.totals.attempts == 30


@pytest.mark.parametrize(
    ("policy", "own", "used"),
    [
        ("primary", {}, {"a"}),
        ("cheapest", {"a": 2.0, "b": 1.0}, {"b"}),
        ("soonest", {"a": 2.0, "b": 1.0}, {"a", "b"}),
    ],
)
async def test_a_policy_prefers_some_lanes(tmp_path: Path, policy: str, own: dict[str, float], used: set[str]) -> None:
    pool = tuple({**lane, "input_price": own.get(lane["name"])} for lane in lanes("a", "b"))
    stage = Stage(tmp_path, 80, lanes=pool, pool_policy=policy)
    await stage.play({"a": Server(slots=8), "b": Server(slots=8)})
    assert by_lane(stage).keys() == used


async def test_the_next_lane_takes_over_from_the_primary(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 60, lanes=lanes("a", "b"), pool_policy="primary")
    await stage.play({"a": Server(usual=status(402)), "b": Server(slots=8)})
    assert by_lane(stage, "status = 200") == {"b": 60}


async def test_the_last_rows_do_not_wait_for_the_slowest_lane(tmp_path: Path) -> None:
    began = asyncio.get_running_loop().time()
    stage = Stage(tmp_path, 200, lanes=lanes("a", "b", concurrency=4))
    await stage.play({"a": Server(slots=4, seconds=0.5), "b": Server(slots=4, seconds=10.0)}, concurrency=4)
    assert stage.totals.done == 200
    assert by_lane(stage, "status = 200")["b"] in (4, 8)
    assert asyncio.get_running_loop().time() - began < 26  # alone the fast one would need 25 s


async def test_members_may_be_gone_or_new_when_a_run_goes_on(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 60, lanes=lanes("a", "b"))
    await stage.play({"a": Server(slots=4), "b": Server(slots=4)}, limit=30)
    first = by_lane(stage)
    await stage.play({"b": Server(slots=4), "c": Server(slots=4)}, lanes=lanes("b", "c"))
    assert stage.totals.done == 60
    assert by_lane(stage)["a"] == first["a"]
    assert by_lane(stage).keys() == {"a", "b", "c"}


def with_fallback() -> tuple[dict[str, Any], ...]:
    first, second = lanes("a", "z")
    return (first, {**second, "fallback": True})


TOO_LONG = status(400, "context_length_exceeded")


@pytest.mark.parametrize(
    ("there", "done", "calls"),
    [
        (ok(), 40, 2),
        (TOO_LONG, 38, 2),  # it fails there as well, for the cause that it had first
        (status(401), 38, 2),  # the fallback itself answers nothing
        (fault(Fault.REFUSED, sent=False), 38, None),
    ],
)
async def test_rows_that_fail_for_their_own_reason_go_to_the_fallback_once(
    tmp_path: Path, there: Answer, done: int, calls: int | None
) -> None:
    scripts: dict[str, Sequence[Answer]] = {"row 7": [TOO_LONG], "row 9": [TOO_LONG]}
    stage = Stage(tmp_path, 40, lanes=with_fallback())
    last = Server(usual=there)
    story = await stage.play({"a": Server(scripts=scripts, slots=4), "z": last})
    assert story.ending.exit_code is ExitCode.OK
    assert (stage.totals.done, stage.totals.failed) == (done, 40 - done)
    assert {record.cause for record in stage.records if record.cause} <= {"too long for the model"}
    assert set(last.calls) <= {"row 7", "row 9"}
    assert calls is None or 1 <= len(last.calls) <= calls


async def test_a_fallback_is_asked_what_was_asked_first(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 6, prompt_source=WITH_SCHEMA, output_fields=("score",), lanes=with_fallback())
    fits = ok('{"score": 1}')
    last = Server(usual=fits)
    await stage.play({"a": Server(scripts={"row 3": [ok("no")]}, usual=fits), "z": last})
    assert stage.totals.done == 6
    assert [len(body["messages"]) for body in last.bodies] == [1]
    assert by_lane(stage, "row = 3") == {"a": 3, "z": 1}


FITS = ok('{"score": 1}')


@pytest.mark.parametrize(
    ("there", "done", "calls"),
    [
        ([FITS], 6, 1),
        ([ok("no"), FITS], 6, 2),  # asked there as often as if nothing had been asked before
        ([TOO_LONG], 5, 1),  # it fails for the cause that it had first
    ],
)
async def test_a_row_that_was_with_the_fallback_when_a_run_ended_goes_on_there(
    tmp_path: Path, there: Sequence[Answer], done: int, calls: int
) -> None:
    stage = Stage(tmp_path, 6, prompt_source=WITH_SCHEMA, output_fields=("score",), lanes=with_fallback())
    first = Server(scripts={"row 3": [ok("no")]}, usual=FITS)
    last = Server(hold=asyncio.Event())

    async def ends(run: Run) -> None:
        await until(lambda: bool(last.calls))
        run.stop(RunResult(ExitCode.TERMINATED), drain=0.0)

    await stage.play({"a": first, "z": last}, during=ends)
    assert (stage.totals.done, stage.totals.unknown) == (5, 1)
    assert first.counts["row 3"] == 3
    again = Server(scripts={"row 3": there})
    await stage.play({"a": first, "z": again})
    assert (stage.totals.done, stage.totals.failed) == (done, 6 - done)
    assert first.counts["row 3"] == 3
    assert len(again.calls) == calls
    assert len(again.bodies[0]["messages"]) == 1
    assert {record.cause for record in stage.records} - {None} == ({"does not fit the schema"} if done < 6 else set())


async def test_a_row_that_had_failed_for_the_fallback_when_a_run_ended_goes_there(tmp_path: Path) -> None:
    stage = Stage(
        tmp_path, 6, prompt_source=WITH_SCHEMA, output_fields=("score",), schema_retries=0, lanes=with_fallback()
    )
    first, last = Server(scripts={"row 3": [ok("no")]}, usual=FITS, slots=1), Server(usual=FITS)

    def ends(event: Event, run: Run) -> None:
        if isinstance(event, AttemptEnded) and event.seq == 3:
            run.stop(RunResult(ExitCode.TERMINATED), drain=0.0)

    await stage.play({"a": first, "z": last}, hear=ends)
    assert not last.calls
    assert stage.totals.replies == stage.totals.done + 1
    await stage.play({"a": first, "z": last})
    assert stage.totals.done == 6
    assert first.counts["row 3"] == 1
    assert [len(body["messages"]) for body in last.bodies] == [1]


async def test_only_the_lane_that_refuses_rows_alike_waits_for_one_from_elsewhere(tmp_path: Path) -> None:
    """Its other rows go to the other lane meanwhile, and it is closed by that row's answer."""

    begun, answered_meanwhile = 0, 0

    class Refuses(Server):
        async def send(self, request: Request, *, timeout: float) -> Exchange:  # noqa: ASYNC109  as the client's
            nonlocal begun, answered_meanwhile
            begun += 1
            if begun == ALIKE + 8:  # seven were in flight beside the twentieth
                before = len(good.calls)
                await asyncio.sleep(2.0)
                answered_meanwhile = len(good.calls) - before
            return await super().send(request, timeout=timeout)

    refusing, good = Refuses(usual=status(400, "no_db"), seconds=0.1), Server(seconds=0.1)
    stage = Stage(tmp_path, 300, lanes=lanes("a", "b"), concurrency=8, concurrency_fixed=True)
    story = await stage.play({"a": refusing, "b": good})
    assert story.ending == RunResult(ExitCode.OK)
    assert begun == len(refusing.calls) == ALIKE + 8
    assert answered_meanwhile >= 100
    assert stage.totals.done + stage.totals.failed == 300
