"""The way of a call through the simulated provider.

the door      key asked for, faults of key, quota and model      nothing is taken from a bucket
the body      400 for what cannot be answered                    the same
the limits    concurrency, requests, tokens                      429
the service   its latency, at most so many at once
the answer    the reply, or the fault drawn for this attempt
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from batchrun.models import Endpoint
from batchrun.sim import problems
from batchrun.sim.asks import Ask, understand
from batchrun.sim.faults import Fault, Moment, draw, fraction
from batchrun.sim.limiter import Limiter, retry_after
from batchrun.sim.problems import Answer
from batchrun.sim.replies import Made, dump, make
from batchrun.sim.settings import Settings
from batchrun.sim.tally import Stats
from batchrun.sim.twists import VALUES, twisted
from batchrun.sim.wire import Call, Connection

_ENDPOINTS: dict[str, Endpoint] = {str(endpoint): endpoint for endpoint in Endpoint}
_MODELS = ("sim-small", "sim-large", "sim-embedding")


@dataclass(slots=True, eq=False)
class _Visit:
    connection: Connection
    endpoint: Endpoint
    call: Call
    digest: bytes
    serial: int
    number: int
    at: float
    fault: Fault | None = None
    ask: Ask | None = None
    made: Made | None = None


class Provider:
    """Answers calls; sockets are the server's. Times come from `clock`, monotonic seconds."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self.settings = settings
        self.stats = Stats(record=settings.record)
        self._clock = clock
        self._started = clock()
        self._limiter = Limiter(settings, self._started)
        self._serving = 0
        self._queue: deque[_Visit] = deque()

    def change(self, settings: Settings) -> None:
        """Go on with other settings; a bucket whose limit stays keeps its level."""
        limiter = Limiter(settings, self._clock())
        limiter.keep(self._limiter)
        self.settings, self._limiter = settings, limiter
        self.stats.record(settings.record)
        self._serve_waiting()

    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started

    def handle(self, connection: Connection, call: Call) -> None:
        """Answer one call, now or later."""
        endpoint = _ENDPOINTS.get(call.path)
        if endpoint is None or call.method != "POST":
            connection.send(_elsewhere(call))
            return
        visit = self._welcome(connection, endpoint, call)
        answer = self._door(visit) or self._body(visit) or self._limits(visit)
        if answer is not None:
            self._end(visit, answer)
        elif self._full():
            self._queue.append(visit)
        else:
            self._serve(visit)

    def _welcome(self, connection: Connection, endpoint: Endpoint, call: Call) -> _Visit:
        digest = blake2b(endpoint.encode() + b"\0" + call.body, digest_size=16).digest()
        at = self.elapsed()
        number = self.stats.arrive(digest, at)
        visit = _Visit(connection, endpoint, call, digest, self.stats.calls, number, at)
        if faults := self.settings.faults:
            lot = fraction(self.settings.seed, digest, number, b"fault")
            visit.fault = draw(faults, lot, number, call.body, at)
        return visit

    def _door(self, visit: _Visit) -> Answer | None:
        authorization = visit.call.headers.get("authorization", "")
        if self.settings.require_key and not authorization.removeprefix("Bearer").strip():
            return problems.wrong_key("")
        fault = visit.fault
        if fault is None or fault.moment is not Moment.DOOR:
            return None
        self.stats.by_fault[fault.name] += 1
        return self._turned_away(fault.name, visit)

    def _turned_away(self, name: str, visit: _Visit) -> Answer:
        match name:
            case "key":
                return problems.wrong_key(visit.call.headers.get("authorization", ""))
            case "quota":
                # Some gateways send a retry-after with it, which is to be ignored.
                style = self.settings.retry_after
                return problems.no_quota()._replace(headers=retry_after(style, 0) if style.startswith("=") else "")
            case "model":
                ask = understand(visit.endpoint, visit.call.body)
                return problems.no_model(ask.model if isinstance(ask, Ask) else "")
            case "html404":
                return problems.html(404, "404 Not Found")
            case _:
                return problems.of_status(int(name))

    def _body(self, visit: _Visit) -> Answer | None:
        ask = understand(visit.endpoint, visit.call.body)
        if not isinstance(ask, Ask):
            return problems.refusal(ask)
        settings = self.settings
        visit.ask = ask
        visit.made = make(
            ask,
            visit.digest.hex()[:24],
            reply_tokens=settings.reply_tokens,
            reasoning=settings.reasoning,
            cached=settings.cached,
        )
        return None

    def _limits(self, visit: _Visit) -> Answer | None:
        assert visit.ask is not None
        if self._full() and not self.settings.queue:
            self.stats.refuse(visit.digest)
            return problems.too_many_at_once(visit.ask.model, self.settings.concurrency or 0)
        refused = self._limiter.admit(self._charge(visit), visit.ask.model, self._clock())
        if refused is None:
            self.stats.admissions.append(visit.at)
            return None
        self.stats.refuse(visit.digest)
        headers = "" if refused.wait is None else retry_after(self.settings.retry_after, refused.wait)
        return problems.error(429, refused.message, refused.kind, "rate_limit_exceeded")._replace(headers=headers)

    def _charge(self, visit: _Visit) -> int:
        assert visit.ask is not None
        assert visit.made is not None
        if self.settings.charge == "usage":
            return visit.made.total
        stated = (visit.ask.limit or 0) * visit.ask.choices
        return max(stated, -(-len(visit.call.body) // 4))

    def _full(self) -> bool:
        allowed = self.settings.concurrency
        return allowed is not None and self._serving >= allowed

    def _serve(self, visit: _Visit) -> None:
        assert visit.made is not None
        self._serving += 1
        lot = fraction(self.settings.seed, visit.digest, visit.number, b"latency")
        seconds = self.settings.latency.seconds(lot, visit.made.output_tokens)
        if seconds > 0 or self._queue:
            asyncio.get_running_loop().call_later(seconds, self._served, visit)
        else:
            self._served(visit)

    def _served(self, visit: _Visit) -> None:
        self._serving -= 1
        self._answer(visit)
        self._serve_waiting()

    def _serve_waiting(self) -> None:
        while self._queue and not self._full():
            self._serve(self._queue.popleft())

    def _answer(self, visit: _Visit) -> None:
        assert visit.made is not None
        fault = visit.fault
        if fault is None:
            self._end(visit, Answer(200, dump(visit.made.value)), whole=True)
            return
        self.stats.by_fault[fault.name] += 1
        answer = self._instead(fault.name, visit)
        if answer is not None:
            self._end(visit, answer, whole=fault.name in VALUES)
            return
        answer = Answer(200, dump(visit.made.value), self._headers(visit))
        self._account(visit, fault.name, whole=fault.name == "slow")
        self._break(fault.name, visit.connection, answer)

    def _instead(self, name: str, visit: _Visit) -> Answer | None:
        """The answer that a fault puts in the reply's place; None for one of the connection."""
        assert visit.ask is not None
        assert visit.made is not None
        match name:
            case "reset" | "reset-late" | "close" | "hang" | "truncate" | "slow" | "garbage":
                return None
            case "context":
                return problems.too_long(visit.made.input_tokens)
            case "concurrency":
                return problems.too_many_at_once(visit.ask.model, self.settings.concurrency or 1)
            case "throttle":
                return problems.of_status(429)._replace(headers=retry_after(self.settings.retry_after, 1.0))
            case _ if name.isdigit():
                return problems.of_status(int(name))
            case _:
                return twisted(name, visit.made.value)

    def _break(self, name: str, connection: Connection, answer: Answer) -> None:
        match name:
            case "reset":
                connection.reset()
            case "close":
                connection.close()
            case "truncate":
                connection.send_part(answer)
            case "reset-late":
                connection.send_part_and_reset(answer)
            case "slow":
                connection.send_slowly(answer, self.settings.drip)
            case "garbage":
                connection.garbage()
            case _:
                pass  # "hang": no answer ever comes

    def _end(self, visit: _Visit, answer: Answer, *, whole: bool = False) -> None:
        self._account(visit, str(answer.status), whole=whole)
        visit.connection.send(answer._replace(headers=answer.headers + self._headers(visit)))

    def _headers(self, visit: _Visit) -> str:
        name = f"x-request-id: req_sim_{visit.serial}\r\n"
        return name + self._limiter.headers(self._clock()) if self.settings.headers else name

    def _account(self, visit: _Visit, label: str, *, whole: bool) -> None:
        there = visit.connection.open
        made = visit.made
        paid = (made.input_tokens, made.output_tokens) if whole and there and made else None
        self.stats.leave(visit.digest, label if there else "gone", paid)
        if self.stats.log is not None:
            self.stats.log.append(_entry(visit, label if there else "gone", self.elapsed()))


def _entry(visit: _Visit, label: str, ended: float) -> dict[str, Any]:
    return {
        "hash": visit.digest.hex(),
        "endpoint": visit.endpoint.value,
        "text": visit.ask.texts[0][:200] if visit.ask else None,
        "number": visit.number,
        "at": visit.at,
        "ended": ended,
        "status": label,
        "fault": visit.fault.name if visit.fault else None,
    }


def _elsewhere(call: Call) -> Answer:
    """What is not an endpoint: the models, a wrong method, a wrong address."""
    if not call.path.startswith("/v1/"):
        return problems.html(404, "404 Not Found")
    if call.path in _ENDPOINTS:
        return problems.error(405, f"Not allowed to {call.method} on {call.path}.", "invalid_request_error")
    name = call.path.removeprefix("/v1/models").strip("/")
    if call.method == "GET" and call.path.startswith("/v1/models"):
        models = [{"id": each, "object": "model", "created": 0, "owned_by": "batchrun-sim"} for each in _MODELS]
        if not name:
            return Answer(200, dump({"object": "list", "data": models}))
        return Answer(200, dump({**models[0], "id": name}))
    message = f"Invalid URL ({call.method} {call.path})"
    return problems.error(404, message, "invalid_request_error")
