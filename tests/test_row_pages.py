"""Rows that senders send in pages: they end as they do one by one, whatever comes of them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine import Answer, Provider, Stage, Story, exchange, fault, garbage, ok, reply_body, status
from hypothesis import given
from hypothesis import strategies as st
from waiting import PATIENCE

from batchrun.client.senders import frames
from batchrun.client.senders.frames import Frames, Receiver
from batchrun.client.senders.hub import Hub
from batchrun.client.senders.remote import RemoteClient
from batchrun.client.senders.sender import Sender
from batchrun.engine import pending_queue, row_pages, run
from batchrun.engine.bytes_held import BytesHeld
from batchrun.engine.pending_queue import RowState
from batchrun.engine.row import RowRunner
from batchrun.engine.run_result import RunResult
from batchrun.errors import ExitCode
from batchrun.events import AttemptStarted, RowLost
from batchrun.journal import LONG_TEXT, IntakeRow
from batchrun.limits import Feedback, Limits, PageGate, PagePermit
from batchrun.models import FRESH, Exchange, Fault, Kind, Pending, Ready, Request, Span
from batchrun.progress import Fold
from batchrun.prompts import batch_renderer
from batchrun.rows import restore

ROWS = 60


class Near(Sender):
    """A sender in this process, whose client is a `Provider`."""

    def __init__(self, provider: Provider, receiver: Receiver) -> None:
        super().__init__(receiver.received, 0.0)
        self.provider, self.receiver, self.given = provider, receiver, list[list[int]]()
        self.cursor = self.batches = 0
        self._read = Frames()

    async def _open(self, place: int, options: Mapping[str, Any]) -> None:
        self.clients[place] = self.provider  # type: ignore[assignment]
        self._write(frames.Kind.OPENED, place)

    def write(self, frame: bytes) -> None:
        for one in self._read.feed(frame):
            if one.kind == frames.Kind.LEASES:
                self.given.append([lease[0] for lease in one.head[2:]])
            elif one.kind == frames.Kind.PING:
                self.cursor = one.head[1]
        self.received(frame)

    def kill(self) -> None:
        for task in self._exchanges.values():
            task.cancel()
        self._exchanges.clear()
        asyncio.get_running_loop().call_soon(self.receiver.gone, "killed")

    async def close(self) -> None:
        self._exchanges.clear()


class Senders:
    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.near: list[Near] = []
        self.in_pages = 0
        """Rows that left in pages."""

    async def __call__(self, receiver: Receiver) -> Near:
        self.near.append(Near(self.provider, receiver))
        return self.near[-1]

    @asynccontextmanager
    async def serving(self, count: int = 2) -> AsyncIterator[tuple[Hub, RemoteClient]]:
        async with Hub(self, count) as hub, RemoteClient(hub, base_url="http://127.0.0.1:1/v1") as client:
            await hub.ready()
            yield hub, client

    async def play(self, stage: Stage, **options: Any) -> Story:
        async with self.serving() as (hub, client):
            return await stage.play(client, hub=hub, **options)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows are fetched at a time: the first are sent one by one, until one is answered."""
    for module in (pending_queue, row_pages, run):
        monkeypatch.setattr(module, "AHEAD", 8)


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each page had that was sent."""
    sent, admit = list[int](), PageGate.admit_page

    def admitted(gate: PageGate, most: int) -> PagePermit | None:
        permit = admit(gate, most)
        if permit is not None:
            sent.append(permit.count)
        return permit

    monkeypatch.setattr(PageGate, "admit_page", admitted)
    return sent


def stage_of(folder: Path, run: str = "r1", **plan: Any) -> Stage:
    """Without a slow start, which would be a rate in force."""
    return Stage(folder, ROWS, run=run, **{"concurrency_fixed": True, **plan})


def outcomes(stage: Stage) -> list[tuple[Any, ...]]:
    return [(record.key, record.state, record.attempts, record.cause, record.body) for record in stage.records]


@pytest.mark.parametrize("more", [{}, {"input_price": 1.0, "output_price": 2.0}])
async def test_rows_in_pages_end_as_they_do_one_by_one(tmp_path: Path, pages: list[int], more: dict[str, Any]) -> None:
    alone, together = stage_of(tmp_path, **more), stage_of(tmp_path, "r2", **more)
    await alone.play(Provider())
    senders = Senders(Provider())
    story = await senders.play(together)
    assert story.ending.exit_code is ExitCode.OK
    assert sum(pages) > ROWS // 2
    assert outcomes(together) == outcomes(alone)
    assert together.totals == alone.totals
    assert sorted(senders.provider.calls) == sorted(f"row {number}" for number in range(1, ROWS + 1))
    assert sorted(told for told in story.told if "reply" in told) == sorted(
        f"row {n} got a reply" for n in range(1, ROWS + 1)
    )
    assert len(story.of(AttemptStarted)) == ROWS


_ANSWERS: list[Sequence[Answer]] = [
    [ok()],
    [status(500), ok()],
    [status(400)],
    [status(429), ok()],
    [fault(Fault.RESET), ok()],
    [fault(Fault.LOST), ok()],
    [garbage(b"no"), ok()],
    [ok("cut", "length")],
    [lambda _: exchange(200, reply_body("").replace(b'"usage"', b'"used"')), ok()],
    [
        lambda prompt: exchange(
            200, reply_body(prompt), {"x-ratelimit-remaining-requests": "9000", "x-ratelimit-limit-requests": "9999"}
        )
    ],
]


@pytest.mark.looptime
@pytest.mark.parametrize("placed", [False, True])
async def test_each_other_answer_is_one_of_a_row_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pages: list[int], placed: bool
) -> None:
    scripts = {f"row {30 + number}": script for number, script in enumerate(_ANSWERS)}
    plan: dict[str, Any] = {"max_attempts": 3, "input_price": 1.0, "output_price": 2.0}
    alone, together = stage_of(tmp_path, **plan), stage_of(tmp_path, "r2", **plan)
    await alone.play(Provider(dict(scripts)))
    if placed:
        in_a_file(monkeypatch, tmp_path / "texts")
    await Senders(Provider(dict(scripts))).play(together)
    assert pages
    assert [ended[:2] + ended[3:] for ended in outcomes(together)] == [
        ended[:2] + ended[3:] for ended in outcomes(alone)
    ]
    attempts = replace(
        together.totals, attempts=alone.totals.attempts
    )  # those that were begun and never left, at a 429
    assert attempts == alone.totals
    assert together.totals.cost_reserved == together.totals.unknown == 0


@pytest.mark.looptime
async def test_a_sender_that_dies_costs_no_attempt_and_loses_no_row(tmp_path: Path, pages: list[int]) -> None:
    senders = Senders(Provider())

    def dies(prompt: str) -> Exchange:
        senders.near[0].kill()
        return ok()(prompt)

    senders.provider.scripts["row 40"] = [dies, ok()]
    stage = stage_of(tmp_path, max_attempts=1, input_price=1.0, output_price=1.0)
    story = await senders.play(stage)
    assert story.ending.exit_code is ExitCode.OK
    assert (stage.totals.done, stage.totals.failed) == (ROWS, 0)
    assert stage.totals.possibly_billed == len(senders.provider.calls) - ROWS
    assert sum(pages) > 8


async def test_rows_of_a_page_that_never_left_are_sent_again_and_nothing_was_spent(
    tmp_path: Path, pages: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = Hub.send_page
    refused = list[object]()

    def never(hub: Hub, leases: Sequence[Any]) -> None:
        sent(hub, leases)
        if leases[0].future is None and not refused:
            refused.extend(leases)
            hub.recall()

    monkeypatch.setattr(Hub, "send_page", never)
    stage = stage_of(tmp_path, max_attempts=1, input_price=1.0, output_price=1.0)
    senders = Senders(Provider())
    story = await senders.play(stage)
    assert story.ending.exit_code is ExitCode.OK
    assert (stage.totals.done, stage.totals.possibly_billed, stage.totals.cost_reserved) == (ROWS, 0, 0)
    assert refused
    assert len(senders.provider.calls) == ROWS


async def test_a_sender_keeps_the_replies_of_a_page_until_they_are_in_the_journal(tmp_path: Path) -> None:
    senders = Senders(Provider())
    async with senders.serving(1) as (hub, client):
        await stage_of(tmp_path).play(client, hub=hub)
        hub._senders[0].ping()
        assert senders.near[0].cursor == ROWS + 1


async def test_rows_in_flight_at_the_end_of_a_stop_are_unknown_and_sent_again_by_the_next_session(
    tmp_path: Path, pages: list[int]
) -> None:
    hold = asyncio.Event()
    senders = Senders(Provider())
    stage = stage_of(tmp_path, input_price=1.0, output_price=1.0)
    fold = Fold()

    def hear(event: Any, run_: run.Run) -> None:
        fold(event)
        if senders.provider.hold is None and pages:
            senders.provider.hold = hold
            asyncio.get_running_loop().call_later(
                0.05, lambda: run_.stop(RunResult(ExitCode.INTERRUPTED, "interrupted"), drain=0.0)
            )

    story = await senders.play(stage, hear=hear)
    assert story.ending.exit_code is ExitCode.INTERRUPTED
    lost = len(story.of(RowLost))
    assert lost > 0
    assert (stage.totals.unknown, stage.totals.done + stage.totals.unknown + stage.totals.pending) == (lost, ROWS)
    again = Senders(Provider())
    assert (await again.play(stage)).ending.exit_code is ExitCode.OK
    assert (stage.totals.done, stage.totals.possibly_billed, stage.totals.cost_reserved) == (ROWS, lost, 0)


@pytest.mark.parametrize(
    "plan",
    [
        {"rpm": 60_000.0},
        {"max_cost": 1.0, "max_output_tokens": 5, "input_price": 1.0, "output_price": 1.0},
        {"max_requests": 100},
    ],
)
async def test_rows_with_more_to_decide_are_sent_one_by_one(
    tmp_path: Path, pages: list[int], plan: dict[str, Any]
) -> None:
    stage = stage_of(tmp_path, **plan)
    await Senders(Provider()).play(stage)
    assert stage.totals.done == ROWS
    assert not pages


async def test_rows_wait_for_a_pause_and_a_rate_that_is_set_while_they_are_sent(
    tmp_path: Path, pages: list[int]
) -> None:
    stage, senders, changed = stage_of(tmp_path), Senders(Provider()), list[int]()

    def hear(event: Any, run_: run.Run) -> None:
        if pages and not changed:
            changed.append(sum(pages))
            run_.pause()
            run_.change(Limits(cap=4, rpm=60_000.0))
            asyncio.get_running_loop().call_later(0.05, run_.resume)

    story = await senders.play(stage, hear=hear)
    assert story.ending.exit_code is ExitCode.OK
    assert stage.totals.done == ROWS
    assert sum(pages) <= changed[0] + 8


@pytest.mark.parametrize("large", [7, 40])
async def test_replies_that_fill_the_memory_hold_pages_back_only_until_they_are_stored(
    tmp_path: Path, pages: list[int], large: int
) -> None:
    stage = stage_of(tmp_path, max_bytes_in_flight=4_000)
    scripts = {f"row {number}": [ok("x" * 3_000)] for number in range(large, large + 12)}
    story = await Senders(Provider(dict(scripts))).play(stage)
    assert story.ending.exit_code is ExitCode.OK
    assert stage.totals.done == ROWS
    assert pages


def test_a_page_leaves_once_there_is_room_for_its_replies() -> None:
    async def waits() -> list[str]:
        held, called = BytesHeld(1_000), list[str]()
        held.over_page(held.leave_page(0), held.left_page(0), 300.0)
        each = held.left_page(1)
        assert (each, held.leave_page(5)) == (900, 0)
        held.when_room(lambda: called.append("room"))
        held.when_room(lambda: called.append("again"))
        assert held.lacking
        held.over_page(1, each, None)
        await asyncio.sleep(0)
        assert held.leave_page(5) == 1
        return called

    assert asyncio.run(waits()) == ["room"]


async def test_a_page_that_may_leave_does_not_keep_those_behind_it_waiting() -> None:
    held, row = BytesHeld(1_000), RowState.of(Pending(1, 1, 1, "k", "{}", FRESH))
    held.over_page(held.leave_page(0), held.left_page(0), 300.0)
    each = held.left_page(1)
    held.when_room(lambda: None)
    behind = asyncio.create_task(held.leave(row))
    await asyncio.sleep(0)
    assert held.lacking
    held.over_page(1, each, None)
    async with asyncio.timeout(PATIENCE):
        await behind
    assert row.left


async def test_a_failing_journal_stops_the_run(tmp_path: Path) -> None:
    def full(number: int) -> None:
        if number > 8:
            raise OSError(28, "No space left on device")

    stage = Stage(tmp_path, ROWS, faults=full, concurrency_fixed=True)
    assert (await Senders(Provider()).play(stage)).ending.exit_code is ExitCode.STORAGE


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _gate(limits: Limits, clock: Callable[[], float]) -> PageGate:
    return PageGate(limits, emit=lambda _: None, clock=clock, senders=True)


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 12)), max_size=30))
def test_pages_hold_as_many_slots_as_they_have_requests(steps: list[tuple[int, int]]) -> None:
    clock = Clock()
    gate, flying = _gate(Limits(16, fixed=True), clock), list[PagePermit]()
    for most, ended in steps:
        clock.now += 0.01
        if (permit := gate.admit_page(most)) is not None:
            flying.append(permit)
        for _ in range(ended):
            if flying and not flying[0].count:
                flying.pop(0)
            if not flying:
                break
            if ended % 2:
                gate.settle(flying[0].taken_out(), Feedback())
            else:
                gate.settle_page(flying[0], 1, 0.1, (100, 7, 3))
        assert gate.view().in_flight == sum(one.count for one in flying) <= 16


def test_a_request_of_a_page_that_is_refused_counts_those_before_and_beside_it() -> None:
    clock = Clock()
    gate = _gate(Limits(16, fixed=True), clock)
    first, second = gate.admit_page(5), gate.admit_page(3)
    assert first is not None
    assert second is not None
    assert gate.flights.beside(second.taken_out()) == 5
    gate.settle_page(first, 4, 0.1, (100, 7, 3))
    assert gate.flights.beside(second.taken_out()) == 1 + 4
    gate.cancel(second.taken_out())
    assert gate.view().in_flight == 1 + 2


def in_a_file(monkeypatch: pytest.MonkeyPatch, file: Path, missing: Sequence[int] = ()) -> None:
    """Each request that is rendered has its body in the file; those of the rows `missing` end behind it."""
    rendered = RowRunner.rendered

    def placed(runner: RowRunner, row: Pending) -> Request | None:
        request = rendered(runner, row)
        assert request is not None
        with file.open("ab") as stream:
            at = stream.tell()
            stream.write(bytes(request.body))
        size = len(request.body) + 10**6 * (row.seq in missing)
        return request._replace(body=Span(str(file), at, size, base64=False))

    monkeypatch.setattr(RowRunner, "rendered", placed)


@pytest.mark.parametrize("alone", [True, False])
async def test_rows_whose_bodies_are_in_a_file_end_as_others_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pages: list[int], alone: bool
) -> None:
    in_a_file(monkeypatch, tmp_path / "texts")
    senders = Senders(Provider())
    stage = stage_of(tmp_path, max_requests=1000 if alone else None)
    story = await senders.play(stage)
    assert story.ending.exit_code is ExitCode.OK
    assert bool(pages) is not alone
    assert stage.totals.done == ROWS
    assert sorted(senders.provider.calls) == sorted(f"row {number}" for number in range(1, ROWS + 1))


@pytest.mark.parametrize("alone", [True, False])
async def test_a_body_that_cannot_be_read_stops_the_run_and_its_row_stays_pending_unpaid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pages: list[int], alone: bool
) -> None:
    file, missing = tmp_path / "texts", [40, 41]
    in_a_file(monkeypatch, file, missing)
    senders = Senders(Provider())
    stage = stage_of(tmp_path, max_requests=1000 if alone else None)
    story = await senders.play(stage)
    assert bool(pages) is not alone
    assert (story.ending.exit_code, story.ending.message, story.ending.hint) == (
        ExitCode.STORAGE,
        f"cannot read a request from {file}: it is shorter than the journal says",
        "restore the file, then resume the run",
    )
    totals = stage.totals
    assert totals.pending >= 2
    assert (totals.failed, totals.unknown, totals.possibly_billed) == (0, 0, 0)
    assert len(senders.provider.calls) == totals.replies == totals.done
    missing.clear()
    await senders.play(stage)
    assert stage.totals.done == ROWS
    assert len(senders.provider.calls) == ROWS


def batch_line(line: int, text: str) -> IntakeRow:
    """A long line of a Batch file, the text its prompt; every fourth has a limit of its own, and a picture."""
    own = {"max_tokens": 9} if line % 4 == 0 else {}
    prompt = text.ljust(LONG_TEXT) + (";base64," if own else "")
    body = {"model": "m", "messages": [{"role": "user", "content": prompt}], **own}
    fields = {"custom_id": f"id-{line}", "method": "POST", "url": "/v1/chat/completions", "body": body}
    request = batch_renderer().render(restore(line, None, row := json.dumps(fields)))
    return IntakeRow(line, f"id-{line}", f"request {line}", row, ready=Ready.of(request))


@pytest.fixture
def batch_lines(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr("engine.ingested", batch_line)
    return {"kind": Kind.BATCH, "prompt_source": None, "prompt_path": None, "model": None}


async def test_long_lines_of_a_batch_file_end_in_pages_as_they_do_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_lines: dict[str, Any]
) -> None:
    sent, in_pages = Hub.send_page, list[int]()

    def recorded(hub: Hub, leases: Sequence[Any]) -> None:
        in_pages.extend(lease.row.seq for lease in leases if lease.future is None)
        sent(hub, leases)

    monkeypatch.setattr(Hub, "send_page", recorded)
    plan = {**batch_lines, "input_price": 1.0, "output_price": 2.0}
    alone, together = stage_of(tmp_path, **plan), stage_of(tmp_path, "r2", **plan)
    one_by_one = Provider()
    await alone.play(one_by_one)
    senders = Senders(Provider())
    story = await senders.play(together)
    assert story.ending.exit_code is ExitCode.OK
    assert len(in_pages) > ROWS // 4
    assert len({seq % 4 == 0 for seq in in_pages}) == 1, "rows with another limit go by themselves"
    assert outcomes(together) == outcomes(alone)
    assert together.totals == alone.totals
    assert sorted(map(str, senders.provider.bodies)) == sorted(map(str, one_by_one.bodies))


async def test_a_limit_that_comes_after_the_intake_is_in_every_body(
    tmp_path: Path, batch_lines: dict[str, Any]
) -> None:
    alone, together = stage_of(tmp_path, **batch_lines), stage_of(tmp_path, "r2", **batch_lines)
    one_by_one, senders = Provider(), Senders(Provider())
    await alone.play(one_by_one, max_output_tokens=7)
    await senders.play(together, max_output_tokens=7)
    for provider in (one_by_one, senders.provider):
        limits = [body.get("max_tokens", body.get("max_completion_tokens")) for body in provider.bodies]
        assert sorted(limits) == [7] * (ROWS - ROWS // 4) + [9] * (ROWS // 4)


class Slow(Provider):
    async def send(self, request: Request, *, timeout: float) -> Exchange:  # noqa: ASYNC109  as the client's
        self.under_way = getattr(self, "under_way", 0) + 1
        self.together = max(getattr(self, "together", 0), self.under_way)
        await asyncio.sleep(1)
        self.under_way -= 1
        return await super().send(request, timeout=timeout)


@pytest.mark.looptime
@pytest.mark.parametrize("most", [1, 3 * LONG_TEXT + 1000])
async def test_bodies_that_senders_read_have_room_in_the_bytes_in_flight(
    tmp_path: Path, pages: list[int], batch_lines: dict[str, Any], most: int
) -> None:
    stage = stage_of(tmp_path, max_bytes_in_flight=most, concurrency=12, timeout=9.0, **batch_lines)
    senders = Senders(Slow(usual=ok("short")))
    story = await senders.play(stage)
    assert story.ending.exit_code is ExitCode.OK
    assert stage.totals.done == ROWS
    assert pages
    assert senders.provider.together == max(1, most // LONG_TEXT)


@given(st.lists(st.integers(0, 90), min_size=1, max_size=9), st.integers(1, 200), st.integers(0, 200), st.booleans())
def test_a_page_has_the_bodies_that_have_room_or_one_where_nothing_was_sent(
    sizes: list[int], most: int, total: int, sent: bool
) -> None:
    held = BytesHeld(most)
    held.count_page(total)
    held.left_page(int(sent))
    count = held.fit_page(sizes)
    assert sum(sizes[:count]) <= most - total or count <= (not sent)
    assert count == len(sizes) or sum(sizes[: count + 1]) > most - total
    assert count or sent
