"""Senders without a process: how they stand, what passes between them and the driver, and what the driver makes of it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from engine import Provider, Stage, fault, garbage, ok, status
from hypothesis import given
from hypothesis import strategies as st

from batchrun.client import UnsentError
from batchrun.client.senders.exchanges import Kept, Lost
from batchrun.client.senders.frames import PACING, SLICE, Frame, Frames, Kind, Receiver, encoded
from batchrun.client.senders.hub import Hub
from batchrun.client.senders.sender import VALID, Sender
from batchrun.client.senders.states import Beat, State, counted_silence, next_state, pause, shares
from batchrun.errors import ExitCode, RefusedError
from batchrun.events import Notice, SendersChanged, Waiting, WaitReason
from batchrun.models import Endpoint, Exchange, Fault, Request
from batchrun.progress import Fold
from batchrun.report import words

BEAT = Beat(every=1.0, suspect=5.0, lost=30.0, start=60.0)
DONE = orjson.dumps({"choices": []})
REQUEST = Request(Endpoint.CHAT, b'{"messages": []}', None)
BOOT = 1000.0


@pytest.fixture(autouse=True)
def _the_machine_is_never_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchrun.client.senders.sender.boot_time", lambda: BOOT)


@pytest.mark.parametrize(
    ("state", "silent", "opened", "then"),
    [
        (State.STARTING, 0.0, False, State.STARTING),
        (State.STARTING, 59.9, False, State.STARTING),
        (State.STARTING, 60.0, False, State.LOST),
        (State.STARTING, 1.0, True, State.READY),
        (State.READY, 4.9, True, State.READY),
        (State.READY, 5.0, True, State.SUSPECT),
        (State.SUSPECT, 29.9, True, State.SUSPECT),
        (State.SUSPECT, 0.0, True, State.READY),
        (State.SUSPECT, 30.0, True, State.LOST),
        (State.READY, 30.0, True, State.LOST),
        (State.READY, 0.0, False, State.STARTING),  # another place is to be opened
        (State.LOST, 0.0, True, State.LOST),
    ],
)
def test_a_sender_stands_as_long_as_it_is_heard(state: State, silent: float, opened: bool, then: State) -> None:
    assert next_state(state, silent, opened=opened, beat=BEAT) is then


def test_the_time_in_which_the_driver_stood_still_is_no_silence() -> None:
    assert counted_silence(1.1, BEAT) == 1.1
    assert counted_silence(3600.0, BEAT) == 2.0


def test_senders_that_die_at_once_are_replaced_ever_more_slowly() -> None:
    assert [pause(failed) for failed in range(8)] == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


@given(
    st.lists(st.tuples(st.sampled_from(Kind), st.lists(st.integers(0, 9)), st.lists(st.binary(max_size=40)))),
    st.lists(st.integers(1, 50), min_size=1),
)
def test_frames_are_the_same_however_the_stream_is_cut(frames: list[Any], sizes: list[int]) -> None:
    stream = b"".join(encoded(kind, [head, *map(len, bodies)], bodies) for kind, head, bodies in frames)
    reader, found, start, number = Frames(), list[Frame](), 0, 0
    while start < len(stream):
        end = start + sizes[number % len(sizes)]
        found += reader.feed(stream[start:end])
        start, number = end, number + 1
    assert [frame.kind for frame in found] == [kind for kind, _, _ in frames]
    assert [frame.head[0] for frame in found] == [head for _, head, _ in frames]
    assert [frame.head[1:] for frame in found] == [list(map(len, bodies)) for _, _, bodies in frames]
    assert [frame.bodies for frame in found] == [b"".join(bodies) for _, _, bodies in frames]


def test_a_head_that_is_longer_than_its_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="longer"):
        Frames().feed(b"\0\0\0\x05\x01\0\0\xff\xff")


class Wire:
    """A transport without a process: the test is the sender."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.frames: list[Frame] = []
        self.opens = True
        self.killed = False
        self._reader = Frames()

    def write(self, frame: bytes) -> None:
        for one in self._reader.feed(frame):
            self.frames.append(one)
            if one.kind == Kind.OPEN and self.opens:
                self.says(Kind.OPENED, one.head[1])

    def says(self, kind: Kind, head: Any, *bodies: bytes) -> None:
        self.receiver.received(encoded(kind, head, bodies))

    def kill(self) -> None:
        self.killed = True
        asyncio.get_running_loop().call_soon(self.receiver.gone, "killed")

    async def close(self) -> None:
        self.killed = True

    @property
    def leases(self) -> list[int]:
        return [lease[0] for frame in self.frames if frame.kind == Kind.LEASES for lease in frame.head[2:]]

    def answers(self, *leases: int) -> None:
        self.says(Kind.NAMES, [1, ["x-request-id"]])
        said = [[lease, 200, "", True, 1.0, 2.0, "", 1, [f"r{lease}"], len(DONE)] for lease in leases]
        self.says(Kind.COMPLETIONS, [1, *said], *[DONE] * len(leases))


class Scene:
    """A hub with wires in the place of processes, and the events that it told."""

    def __init__(self, count: int = 2) -> None:
        self.wires: list[Wire] = []
        self.told: list[SendersChanged] = []
        self.hub = Hub(self.start, count, beat=BEAT)

    async def start(self, receiver: Receiver) -> Wire:
        self.wires.append(Wire(receiver))
        return self.wires[-1]

    async def __aenter__(self) -> "Scene":
        await self.hub.__aenter__()
        self.hub.add({})
        self.hub.subscribe(self.told.append)
        await self.hub.ready()
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.hub.__aexit__(*error)

    async def sends(self, count: int) -> list[asyncio.Task[Exchange]]:
        tasks = [asyncio.create_task(self.hub.send(0, REQUEST, 60.0)) for _ in range(count)]
        await asyncio.sleep(2 * SLICE)
        return tasks

    async def lives(self, seconds: float, *silent: Wire) -> None:
        """So many seconds pass in which all but `silent` answer."""
        for _ in range(int(seconds * 2)):
            await asyncio.sleep(0.5)
            for wire in self.wires:
                if wire not in silent and not wire.killed:
                    wire.says(Kind.PONG, None)


@pytest.mark.looptime
async def test_leases_go_to_the_sender_with_the_fewest_and_come_back_by_their_numbers() -> None:
    async with Scene() as scene:
        tasks = await scene.sends(5)
        first, second = scene.wires
        assert (len(first.leases), len(second.leases)) == (3, 2)
        first.answers(*reversed(first.leases))
        await asyncio.sleep(0)
        done = [task.result().headers["x-request-id"] for task in tasks if task.done()]
        assert done == [f"r{lease}" for lease in first.leases]
        again = await scene.sends(2)
        assert (len(first.leases), len(second.leases)) == (5, 2)
        for task in (*tasks, *again):
            task.cancel()


@pytest.mark.looptime
async def test_a_sender_that_dies_loses_what_it_had_and_another_one_is_started() -> None:
    async with Scene() as scene:
        tasks = await scene.sends(4)
        first, second = scene.wires
        first.receiver.gone("process 1: killed by SIGKILL")
        await asyncio.sleep(0)
        lost = [task.result() for task in tasks if task.done()]
        assert [(one.fault, one.sent, one.status) for one in lost] == [(Fault.LOST, True, 0)] * 2
        assert lost[0].detail == "sender 1 was lost: process 1: killed by SIGKILL"
        second.answers(*second.leases)
        await asyncio.sleep(1.1)
        assert sorted(task.result().status for task in tasks) == [0, 0, 200, 200]
        assert [(told.starting, told.ready, told.suspect, told.lost, told.why) for told in scene.told[-3:]] == [
            (0, 1, 0, 1, "process 1: killed by SIGKILL"),
            (1, 1, 0, 1, ""),
            (0, 2, 0, 1, ""),
        ]


@pytest.mark.looptime
async def test_a_silent_sender_gets_nothing_new_after_five_seconds_and_is_lost_after_thirty() -> None:
    async with Scene() as scene:
        (task, other) = await scene.sends(2)
        first, second = scene.wires
        await scene.lives(6, first)
        assert scene.told[-1].suspect == 1
        more = await scene.sends(4)
        assert (len(first.leases), len(second.leases)) == (1, 5)
        await scene.lives(23, first)
        assert not task.done()
        await scene.lives(3, first)
        assert (task.result().fault, task.result().detail) == (
            Fault.LOST,
            "sender 1 was lost: no message for 30 s",
        )
        assert first.killed
        assert not other.done()
        assert len(scene.wires) == 3
        for one in (other, *more):
            one.cancel()


@pytest.mark.looptime
async def test_what_a_sender_said_before_it_was_killed_is_heard_before_its_rows_come_back() -> None:
    async with Scene() as scene:
        tasks = await scene.sends(4)
        first = scene.wires[0]
        kill = first.kill

        def killed() -> None:
            first.answers(first.leases[0])
            kill()

        first.kill = killed  # type: ignore[method-assign]
        await scene.lives(32, first)
        assert [task.result().fault for task in tasks if task.done()] == [None, Fault.LOST]
        for task in tasks:
            task.cancel()


@pytest.mark.looptime
async def test_a_silent_sender_that_cannot_be_killed_is_lost_all_the_same() -> None:
    async with Scene() as scene:
        (task, other) = await scene.sends(2)
        scene.wires[0].kill = lambda: None  # type: ignore[method-assign]
        await scene.lives(34, scene.wires[0])
        assert not task.done()
        await scene.lives(3, scene.wires[0])
        lost, late = task.result(), list[Exchange]()
        assert isinstance(lost, Lost)
        assert lost.fault is Fault.LOST
        lost.late = late.append
        scene.wires[0].answers(1)
        assert [(one.status, one.body) for one in late] == [(200, DONE)], "it was only slow"
        other.cancel()


@pytest.mark.looptime
async def test_a_sender_that_is_heard_again_in_time_keeps_its_leases() -> None:
    async with Scene(1) as scene:
        (task,) = await scene.sends(1)
        (only,) = scene.wires
        await scene.lives(20, only)
        (waits,) = await scene.sends(1)
        assert only.leases == [1], "a suspect sender gets no new lease"
        assert scene.hub.none_for(asyncio.get_running_loop().time()) > 10
        only.answers(1)
        await asyncio.sleep(0.1)
        assert task.result().status == 200
        assert only.leases == [1, 2]
        assert scene.hub.none_for(asyncio.get_running_loop().time()) == 0
        waits.cancel()


@pytest.mark.looptime
async def test_what_never_left_comes_back_unsent() -> None:
    async with Scene(1) as scene:
        (task,) = await scene.sends(1)
        scene.wires[0].says(Kind.UNSENT, [1])
        with pytest.raises(UnsentError):
            await task
        await scene.lives(6, scene.wires[0])
        (waits,) = await scene.sends(1)
        scene.hub.recall()
        with pytest.raises(UnsentError):
            await waits


@pytest.mark.looptime
async def test_a_sender_keeps_a_reply_until_it_is_in_the_journal() -> None:
    async with Scene(1) as scene:
        tasks = await scene.sends(3)
        (wire,) = scene.wires
        wire.answers(1, 2)
        first, second = await asyncio.gather(*tasks[:2])
        assert isinstance(first, Kept)
        assert isinstance(second, Kept)
        cursors = []
        for stored in (lambda: second.stored(None), lambda: first.stored(None), lambda: None):
            await scene.lives(1)
            cursors.append(wire.frames[-1].head[1])
            stored()
        assert cursors == [1, 1, 3]
        tasks[2].cancel()


@pytest.mark.looptime
async def test_requests_of_a_rate_leave_their_sender_at_the_distance_that_the_gate_gave_them() -> None:
    async with Scene(1) as scene:
        loop = asyncio.get_running_loop()
        tasks = []
        for _ in range(3):
            tasks.append(asyncio.create_task(scene.hub.send(0, REQUEST, 60.0, spaced=True)))
            await asyncio.sleep(SLICE / 4)
        began = loop.time() - 3 * SLICE / 4
        await asyncio.sleep(2 * SLICE)
        departs = [lease[4] for frame in scene.wires[0].frames if frame.kind == Kind.LEASES for lease in frame.head[2:]]
        assert departs == pytest.approx([began + PACING.ahead + n * SLICE / 4 for n in range(3)])
        for task in tasks:
            task.cancel()


@pytest.mark.looptime
async def test_an_exchange_that_nobody_waits_for_is_cancelled_at_the_sender() -> None:
    async with Scene(1) as scene:
        (task,) = await scene.sends(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert scene.wires[0].frames[-1][:2] == (Kind.CANCEL, [1])
        scene.wires[0].answers(1)  # it was on its way: nobody receiver of it


@pytest.mark.looptime
async def test_a_bug_in_a_sender_is_one_of_the_row_as_it_is_in_the_driver() -> None:
    async with Scene(1) as scene:
        (task,) = await scene.sends(1)
        scene.wires[0].says(Kind.COMPLETIONS, [1, [1, 0, "bug", True, 0.0, 0.0, "KeyError: 'x'", 0, [], 0]])
        with pytest.raises(RuntimeError, match="in sender 1: KeyError"):
            await task


@pytest.mark.looptime
async def test_senders_that_do_not_start_refuse_the_run() -> None:
    dead: list[Callable[[], None]] = []

    async def start(receiver: Receiver) -> Wire:
        wire = Wire(receiver)
        dead.append(lambda: receiver.gone("process 1: exit 1, No module named aiohttp"))
        return wire

    async with Hub(start, 2) as hub:
        asyncio.get_running_loop().call_later(0.1, lambda: [die() for die in dead])
        with pytest.raises(RefusedError, match="No sender starts: process 1: exit 1, No module named aiohttp"):
            await hub.ready()


async def test_rows_whose_sender_was_lost_are_sent_again_at_no_cost_in_attempts_and_may_have_been_paid(
    tmp_path: Path,
) -> None:
    stage = Stage(tmp_path, 40, max_attempts=1, input_price=1.0, output_price=1.0)
    lost = {f"row {number}": [fault(Fault.LOST), fault(Fault.LOST), ok()] for number in range(2, 32)}
    story = await stage.play(Provider(dict(lost)))
    assert story.ending.exit_code is ExitCode.OK
    assert (stage.totals.done, stage.totals.possibly_billed) == (40, 60)
    assert stage.totals.cost_possibly_billed > 0
    assert not story.of(Notice), "the provider is not taken for down"


async def test_rows_that_come_back_unsent_are_sent_again_and_nothing_was_spent(tmp_path: Path) -> None:
    def unsent(_: str) -> Exchange:
        raise UnsentError

    stage = Stage(tmp_path, 3, max_attempts=1, max_cost=1.0, max_output_tokens=100, input_price=1.0, output_price=1.0)
    story = await stage.play(Provider({"row 2": [unsent, unsent, ok()]}))
    assert story.ending.exit_code is ExitCode.OK
    assert (stage.totals.done, stage.totals.possibly_billed, stage.totals.replies) == (3, 0, 3)
    assert stage.totals.cost == 3 * 10 * 10**6
    assert stage.totals.cost_reserved == 0


@pytest.mark.looptime
async def test_a_run_without_a_sender_says_so_and_stops_after_the_time_of_a_provider_that_is_down(
    tmp_path: Path,
) -> None:
    class Client(Provider):
        async def send(self, request: Request, *, timeout: float) -> Exchange:  # noqa: ASYNC109  as the client's
            return await scene.hub.send(0, request, timeout)

    scene = Scene(1)
    async with scene:
        story = await Stage(tmp_path, 2, give_up_after=20.0, drain=1.0).play(Client(), hub=scene.hub)
    assert story.ending.exit_code is ExitCode.STOPPED
    assert story.ending.message is not None
    assert "no sender process was ready" in story.ending.message
    assert WaitReason.SENDERS in [event.reason for event in story.of(Waiting)]
    assert story.of(SendersChanged)[-1].suspect == 1


class Driver:
    """The driver of a sender whose client is a `Provider`: what it says, and what it receiver."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.heard: list[Frame] = []
        self._reader = Frames()
        self.sender = Sender(self.write)
        self.sender.clients[0] = provider  # type: ignore[assignment]

    def write(self, data: bytes) -> None:
        self.heard += self._reader.feed(data)

    def gives(self, batch: int, *leases: int, ago: float = 0.0, ahead: float = 0.0) -> None:
        body = orjson.dumps({"messages": [{"content": "x"}]})
        depart = asyncio.get_running_loop().time() + ahead if ahead else 0.0
        said = [[lease, 0, 0, 60.0, depart, len(body)] for lease in leases]
        self.says(Kind.LEASES, [self.times(ago), batch, *said], *[body] * len(leases))

    def times(self, ago: float = 0.0) -> tuple[float, float]:
        return asyncio.get_running_loop().time(), BOOT - ago

    def says(self, kind: Kind, head: Any, *bodies: bytes) -> None:
        self.sender.received(encoded(kind, head, bodies))

    @property
    def completed(self) -> list[list[int]]:
        return [[said[0] for said in frame.head[1:]] for frame in self.heard if frame.kind == Kind.COMPLETIONS]

    @property
    def unsent(self) -> list[int]:
        return [lease for frame in self.heard if frame.kind == Kind.UNSENT for lease in frame.head]


@pytest.mark.looptime
async def test_a_batch_that_comes_again_is_answered_and_not_sent_again() -> None:
    driver = Driver(Provider())
    driver.gives(1, 1, 2)
    await asyncio.sleep(0.1)
    driver.gives(1, 1, 2)
    assert driver.completed == [[1, 2], [1, 2]]
    driver.says(Kind.PING, [driver.times(), 2])
    driver.gives(1, 1, 2)
    assert driver.completed[-1] == [2], "the first is in the journal"
    assert len(driver.provider.calls) == 2


@pytest.mark.looptime
async def test_the_names_of_headers_are_said_once_for_all_answers_that_have_the_same() -> None:
    answers = [
        status(500, headers={"X-A": "1", "X-B": "2"}),
        status(500, headers={"X-A": "3", "X-B": "4"}),
        garbage(b""),
    ]
    driver = Driver(Provider({"x": answers}))
    driver.gives(1, 1, 2, 3)
    await asyncio.sleep(0.1)
    names = dict(frame.head for frame in driver.heard if frame.kind == Kind.NAMES)
    said = {one[0]: one[7:9] for frame in driver.heard if frame.kind == Kind.COMPLETIONS for one in frame.head[1:]}
    assert {lease: dict(zip(names.get(named, []), values, strict=True)) for lease, (named, values) in said.items()} == {
        1: {"x-a": "1", "x-b": "2"},
        2: {"x-a": "3", "x-b": "4"},
        3: {},
    }
    assert len(names) == 1


@given(st.lists(st.integers(0, 20), min_size=1, max_size=6), st.integers(0, 60))
def test_leases_go_to_the_senders_that_have_fewest(loads: list[int], count: int) -> None:
    one_by_one = list(loads)
    for _ in range(count):
        one_by_one[one_by_one.index(min(one_by_one))] += 1
    given = shares(loads, count)
    assert sum(given) == count
    assert min(given) >= 0
    assert sorted(map(sum, zip(loads, given, strict=True))) == sorted(one_by_one)


@pytest.mark.looptime
async def test_a_batch_that_a_frozen_sender_reads_late_goes_back_unsent() -> None:
    driver = Driver(Provider())
    driver.says(Kind.PING, [driver.times(), 1])
    driver.gives(1, 1, 2, ago=VALID + 0.1)
    driver.gives(2, 3, ago=VALID - 0.5)
    await asyncio.sleep(0.1)
    assert driver.unsent == [1, 2]
    assert driver.completed == [[3]]


@pytest.mark.looptime
async def test_what_is_planned_leaves_at_its_time_unless_it_is_held_or_cancelled() -> None:
    driver = Driver(Provider())
    driver.gives(1, 1, ahead=0.004)
    driver.gives(2, 2, 3, ahead=0.008)
    driver.says(Kind.CANCEL, [2])
    assert driver.provider.calls == []
    await asyncio.sleep(0.005)
    assert len(driver.provider.calls) == 1
    driver.says(Kind.HOLD, None)
    await asyncio.sleep(0.1)
    assert driver.unsent == [3]
    assert driver.completed == [[1]]
    assert len(driver.provider.calls) == 1


@pytest.mark.parametrize(
    ("told", "line", "notice"),
    [
        (SendersChanged(0, 2, 0, 0, "", 1.0), "", None),
        (SendersChanged(1, 1, 0, 0, "", 1.0), "senders: 1 starting, 1 ready", None),
        (SendersChanged(0, 1, 1, 0, "", 1.0), "senders: 1 ready, 1 suspect", None),
        (
            SendersChanged(1, 1, 0, 1, "process 7: killed by SIGKILL", 1.0),
            "senders: 1 starting, 1 ready, 1 lost",
            "a sender was lost: process 7: killed by SIGKILL; its requests in flight are sent again",
        ),
    ],
)
def test_faces_say_which_senders_are_not_ready(told: SendersChanged, line: str, notice: str | None) -> None:
    fold = Fold()
    fold(told)
    assert words.senders(fold.snapshot(2.0)) == line
    assert words.notice(told) == notice
