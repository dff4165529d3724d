"""Requests that nobody will answer any more, told from slow ones, in a loop whose time is simulated."""

import asyncio
from collections.abc import Callable

import pytest
from gates import OK, Scene, now

from batchrun.engine.monitors import Outage
from batchrun.limits import Feedback, Limits

pytestmark = pytest.mark.looptime(noop_cycles=0)

ENDED = Feedback()


class Server:
    """Answers after so many seconds; what comes while `hangs` is true is never answered.

    It stands in the place of the client: `ended` are the times at which requests that hung were ended, with their age.
    """

    def __init__(self, seconds: Callable[[], float], *, hangs: Callable[[], bool], accepts: Callable[[], bool]) -> None:
        self._seconds, self._hangs, self._accepts = seconds, hangs, accepts
        self._waiting: dict[asyncio.Future[Feedback], float] = {}
        self.ended: list[tuple[float, float]] = []
        self.renewed = self.connected = 0

    async def answer(self) -> Feedback:
        if not self._hangs():
            await asyncio.sleep(self._seconds())
            if not self._hangs():
                return OK
        waiting: asyncio.Future[Feedback] = asyncio.get_running_loop().create_future()
        self._waiting[waiting] = now()
        return await waiting

    def renew(self) -> None:
        self.renewed += 1

    async def reachable(self, *, seconds: float) -> bool:
        self.connected += 1
        return self._accepts()

    def end(self, *, before: float) -> int:
        old = [waiting for waiting, left in self._waiting.items() if left < before]
        for waiting in old:
            self.ended.append((now(), now() - self._waiting.pop(waiting)))
            waiting.set_result(ENDED)
        return len(old)


class Play:
    """Rows through a gate to a server; `down` is when the watch said that the server is gone."""

    def __init__(self, server: Server, cap: int = 8) -> None:
        self.scene, self.server = Scene(Limits(cap=cap, fixed=True)), server
        self.down: list[float] = []
        self.outage = Outage(self.scene.gate, server, gone=self._gone)  # type: ignore[arg-type]
        self.done = 0

    def _gone(self) -> None:
        self.down.append(now())
        self.scene.gate.set_half_open(1.0)
        self.outage.start()

    async def row(self) -> None:
        while True:
            permit = await self.scene.send()
            if self.down and not self.server._accepts():
                self.scene.gate.settle(permit, Feedback(failed=True))
                continue
            said = await self.server.answer()
            self.scene.gate.settle(permit, said)
            if said is OK:
                if self.scene.gate.down:
                    self.scene.gate.set_half_open(None)
                self.done += 1
                return

    async def go(self, rows: int) -> None:
        watch = asyncio.create_task(self.outage.watch())
        await asyncio.gather(*(self.row() for _ in range(rows)))
        watch.cancel()


async def test_what_hangs_since_a_restart_is_ended_and_sent_again() -> None:
    server = Server(lambda: 0.2, hangs=lambda: 3.1 <= now() < 6.0, accepts=lambda: not 3.1 <= now() < 6.0)
    play = Play(server)
    await play.go(1000)
    assert len(play.down) == 1
    assert play.down[0] <= 3.1 + 3.0
    assert len(server.ended) == 8
    assert all(10.0 <= age <= 12.5 for _, age in server.ended)
    assert server.renewed
    assert play.done == 1000
    assert now() <= 1000 / 8 * 0.2 + 3.0 + 3.0


async def test_rows_go_on_while_those_from_before_the_outage_are_waited_for() -> None:
    server = Server(lambda: 0.2, hangs=lambda: 3.1 <= now() < 6.0, accepts=lambda: not 3.1 <= now() < 6.0)
    play = Play(server)
    task = asyncio.create_task(play.go(1000))
    await asyncio.sleep(10.0)
    assert not server.ended
    assert play.done > 200  # of which 120 before it
    assert play.scene.gate.view().in_flight <= 8
    await task


@pytest.mark.parametrize("accepts", [True, False])
async def test_a_slow_model_keeps_all(accepts: bool) -> None:
    """Replies of 300 s: nobody has ever seen a faster one, whether the host accepts connections or not."""
    server = Server(lambda: 300.0, hangs=lambda: False, accepts=lambda: accepts)
    play = Play(server)
    await play.go(24)
    assert not server.ended
    assert not play.down
    assert now() == pytest.approx(900.0, abs=1)


async def test_replies_that_become_slow_are_no_outage_while_the_host_accepts_connections() -> None:
    server = Server(lambda: 0.2 if now() < 3 else 300.0, hangs=lambda: False, accepts=lambda: True)
    play = Play(server)
    await play.go(200)
    assert server.connected
    assert not server.ended
    assert not play.down


async def test_one_refused_connection_is_an_outage_for_what_left_before_it() -> None:
    """Too few for the breaker, and the server was back before anybody looked."""
    server = Server(lambda: 0.2, hangs=lambda: 3.1 <= now() < 3.3, accepts=lambda: True)
    play = Play(server)
    task = asyncio.create_task(play.go(1000))
    await asyncio.sleep(3.5)
    play.outage.refused()
    assert play.scene.gate.view().in_flight <= 8
    await task
    assert not play.down
    assert {round(age) for _, age in server.ended} <= {10, 11, 12}
    assert len(server.ended) == 8
    assert now() <= 1000 / 8 * 0.2 + 3.0
