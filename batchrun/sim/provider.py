"""Answers calls, in this order:

before the limits   required key, faults of key, account and model    nothing is taken from a limit
the body            400 if it cannot be answered                      the same
the limits          concurrency, then the dialect's limits            a refusal of the dialect
the service         its latency, and the cap on requests at once
the answer          the reply, or the fault drawn for this attempt
"""

import asyncio
import os
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

from batchrun.models import Endpoint
from batchrun.sim.batch_calls import BatchCalls
from batchrun.sim.batches import Row, Store, chat_of, message_of
from batchrun.sim.cache import Lookup, PrefixCache
from batchrun.sim.defects import BODIES, VALUES, defective
from batchrun.sim.dialects import Cost, Limiter
from batchrun.sim.faults import Fault, Stage, draw, fraction, of_call
from batchrun.sim.http import Answer, Call, Connection
from batchrun.sim.replies import UNCACHED, Reply, dump, make
from batchrun.sim.requests import Problem, Request, parse_request
from batchrun.sim.settings import Settings
from batchrun.sim.stats import Stats

_ENDPOINTS: dict[str, Endpoint] = {str(endpoint): endpoint for endpoint in Endpoint}
_TROUBLE = "The server had an error while processing your request."
_MODELS = ("sim-small", "sim-large", "sim-embedding")


@dataclass(slots=True, eq=False)
class _Exchange:
    connection: Connection
    endpoint: Endpoint
    call: Call
    digest: bytes
    serial: int
    number: int
    at: float
    fault: Fault | None = None
    request: Request | None = None
    reply: Reply | None = None
    found: Lookup = UNCACHED


class Provider:
    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self.settings = settings
        self.stats = Stats(record=settings.record)
        self._clock = clock
        self._started = clock()
        self._limiter = Limiter(settings, self._started)
        self._cache = PrefixCache()
        self._serving = 0
        self._queue: deque[_Exchange] = deque()
        self._epoch = time.time() - self._started
        self.batches = BatchCalls(Store(Path(settings.state) if settings.state else None), self._now, self._complete)
        self.batches.settings = settings
        self._faults = of_call(settings.faults, "")
        self._rows: Counter[bytes] = Counter()

    def change(self, settings: Settings) -> None:
        """Unchanged limits keep their state."""
        limiter = Limiter(settings, self._clock())
        limiter.keep(self._limiter)
        self.settings, self._limiter, self.batches.settings = settings, limiter, settings
        self._faults = of_call(settings.faults, "")
        self.stats.record(settings.record)
        self._serve_waiting()

    def elapsed(self) -> float:
        return self._clock() - self._started

    def handle(self, connection: Connection, call: Call) -> None:
        endpoint = _ENDPOINTS.get(call.path)
        if endpoint is None or call.method != "POST":
            kind = self.batches.kind(call)
            if kind is None:
                connection.send(self._other_path(call))
            else:
                self._batch_call(connection, kind, call)
            return
        digest = blake2b(endpoint.encode() + b"\0" + call.body, digest_size=16).digest()
        at = self.elapsed()
        number = self.stats.arrive(digest, at)
        exchange = _Exchange(connection, endpoint, call, digest, self.stats.calls, number, at)
        if faults := self._faults:
            drawn = fraction(self.settings.seed, digest, number, b"fault")
            exchange.fault = draw(faults, drawn, number, call.body, at)
        refusal = self._before_limits(exchange) or self._read(exchange) or self._limits(exchange)
        if refusal is not None:
            self._end(exchange, refusal)
        elif self._full():
            self._queue.append(exchange)
        else:
            self._serve(exchange)

    def _before_limits(self, exchange: _Exchange) -> Answer | None:
        authorization = exchange.call.headers.get("authorization", "")
        if self.settings.require_key and not authorization.removeprefix("Bearer").strip():
            return wrong_key("")
        fault = exchange.fault
        if fault is None or fault.stage is not Stage.BEFORE_LIMITS:
            return None
        if fault.name == "flex" and b'"flex"' not in exchange.call.body:
            exchange.fault = None
            return None
        self.stats.by_fault[fault.name] += 1
        if fault.name == "key":
            return wrong_key(authorization)
        request = parse_request(exchange.endpoint, exchange.call.body)
        return self._limiter.answer(fault.name, model=request.model if isinstance(request, Request) else "")

    def _read(self, exchange: _Exchange) -> Answer | None:
        request = parse_request(exchange.endpoint, exchange.call.body)
        if isinstance(request, Problem):
            return _refusal(request)
        found = self._cache.look(self.settings.cache, self.settings.cache_minimum, request, exchange.at)
        if isinstance(found, Problem):
            return _refusal(found)
        exchange.request, exchange.found = request, found
        exchange.reply = make(
            request,
            exchange.digest.hex()[:24],
            self.settings,
            found,
            broken=exchange.fault is not None and exchange.fault.name == "broken",
        )
        return None

    def _limits(self, exchange: _Exchange) -> Answer | None:
        request, reply = exchange.request, exchange.reply
        assert request is not None
        assert reply is not None
        if self._full() and not self.settings.queue:
            self.stats.refuse(exchange.digest)
            return self._limiter.answer("concurrency", model=request.model, limit=self._limiter.places)
        tokens = reply.input_tokens + reply.output_tokens
        if self.settings.charge == "stated":
            tokens = max((request.limit or 0) * request.choices, -(-len(exchange.call.body) // 4))
        cost = Cost(tokens, reply.input_tokens, reply.output_tokens)
        refused = self._limiter.admit(cost, request.model, self._clock())
        if refused is None:
            self.stats.admissions.append(exchange.at)
            return None
        self.stats.refuse(exchange.digest)
        return refused.answer

    def _full(self) -> bool:
        return self._limiter.places is not None and self._serving >= self._limiter.places

    def _serve(self, exchange: _Exchange) -> None:
        assert exchange.reply is not None
        self._serving += 1
        drawn = fraction(self.settings.seed, exchange.digest, exchange.number, b"latency")
        seconds = self.settings.latency.seconds(drawn, exchange.reply.output_tokens)
        if seconds > 0 or self._queue:
            asyncio.get_running_loop().call_later(seconds, self._served, exchange)
        else:
            self._served(exchange)

    def _served(self, exchange: _Exchange) -> None:
        self._serving -= 1
        self._cache.keep(exchange.found, self.elapsed())
        self._answer(exchange)
        self._serve_waiting()

    def _serve_waiting(self) -> None:
        while self._queue and not self._full():
            self._serve(self._queue.popleft())

    def _answer(self, exchange: _Exchange) -> None:
        request, reply, fault = exchange.request, exchange.reply, exchange.fault
        assert request is not None
        assert reply is not None
        if fault is None:
            self._end(exchange, Answer(200, dump(reply.value)), whole=True)
            return
        self.stats.by_fault[fault.name] += 1
        if fault.name in _CONNECTION_FAULTS:
            answer = Answer(200, dump(reply.value), self._headers(exchange))
            self._account(exchange, fault.name, whole=fault.name == "slow")
            _CONNECTION_FAULTS[fault.name](exchange.connection, answer, self.settings.drip)
        elif fault.name.isdigit() or fault.name in ("context", "concurrency", "throttle", "error"):
            name = "500" if fault.name == "error" else fault.name
            tokens = reply.input_tokens
            limit = tokens - 1 if name == "context" else self._limiter.places or 1
            answer = self._limiter.answer(name, self._clock(), model=request.model, tokens=tokens, limit=limit)
            self._end(exchange, answer._replace(status=200) if fault.name == "error" else answer)
        else:
            self._end(
                exchange, defective(fault.name, reply.value), whole=fault.name in VALUES or fault.name == "broken"
            )

    def _end(self, exchange: _Exchange, answer: Answer, *, whole: bool = False) -> None:
        self._account(exchange, str(answer.status), whole=whole)
        headers = answer.headers + self._headers(exchange, states=answer.states)
        exchange.connection.send(answer._replace(headers=headers))

    def _headers(self, exchange: _Exchange, *, states: bool = True) -> str:
        name = f"x-request-id: req_sim_{exchange.serial}\r\n"
        return name + self._limiter.headers(self._clock()) if states and self.settings.headers else name

    def _account(self, exchange: _Exchange, label: str, *, whole: bool) -> None:
        connected = exchange.connection.open
        reply = exchange.reply
        label = label if connected else "gone"
        self.stats.leave(label)
        if whole and connected and reply:
            self.stats.pay(exchange.digest, reply.input_tokens, reply.output_tokens, exchange.found)
        if self.stats.log is not None:
            entry: dict[str, Any] = {
                "hash": exchange.digest.hex(),
                "endpoint": exchange.endpoint.value,
                "text": exchange.request.texts[0][:200] if exchange.request else None,
                "number": exchange.number,
                "at": exchange.at,
                "ended": self.elapsed(),
                "status": label,
                "fault": exchange.fault.name if exchange.fault else None,
            }
            self.stats.log.append(entry)

    def _now(self) -> float:
        return self._clock() + self._epoch

    def _batch_call(self, connection: Connection, kind: str, call: Call) -> None:
        # a 4xx fault refuses the call; any other fault loses the answer
        self.stats.batch_calls[kind] += 1
        number = self.stats.batch_calls[kind]
        digest = blake2b(f"{kind} {call.path}".encode("latin-1"), digest_size=16).digest()
        drawn = fraction(self.settings.seed, digest, number, b"fault")
        fault = draw(of_call(self.settings.faults, kind), drawn, number, call.body, self.elapsed())
        name = fault.name if fault else ""
        if fault:
            self.stats.by_fault[f"{name}@{kind}"] += 1
        if name == "gateway":
            connection.send(Answer(500, b"Internal Server Error", kind="text/plain"))
            return
        if fault and (fault.stage is Stage.BEFORE_LIMITS or name[:1] == "4" or name == "throttle"):
            key = call.headers.get("x-api-key") or call.headers.get("authorization", "")
            connection.send(wrong_key(key) if name == "key" else self._limiter.answer(name, self._clock(), model=""))
            return
        self.batches.stuck = name == "stuck"
        for _ in range(2 if name == "thrice" else 0):
            self.batches.do(kind, call)
        answer = self.batches.do(kind, call)
        self.batches.stuck = False
        if name == "crash":
            os._exit(70)
        if name in _CONNECTION_FAULTS:
            _CONNECTION_FAULTS[name](connection, answer, self.settings.drip)
        elif name.isdigit():
            connection.send(self._limiter.answer(name, self._clock(), model=""))
        elif name == "loop":
            connection.send(answer._replace(body=dump({**orjson.loads(answer.body), "has_more": True})))
        elif name == "stale":
            page = orjson.loads(answer.body)
            new = {"status": "validating", "output_file_id": None, "error_file_id": None, "request_counts": None}
            connection.send(answer._replace(body=dump({**page, "data": [{**each, **new} for each in page["data"]]})))
        else:
            connection.send(BODIES[name](answer.body) if name in BODIES else answer)

    def _complete(self, endpoint: str, body: dict[str, Any], name: str) -> Row:
        messages = endpoint == "messages"
        params = chat_of(body) if messages else body
        request = parse_request(Endpoint.CHAT if messages else Endpoint(endpoint), dump(params))
        if isinstance(request, Problem):
            return Row(status=request.status, body=orjson.loads(_refusal(request).body))
        digest = blake2b(endpoint.encode() + b"\0" + dump(body), digest_size=16).digest()
        self._rows[digest] += 1
        number = self._rows[digest]
        drawn = fraction(self.settings.seed, digest, number, b"fault")
        fault = draw(of_call(self.settings.faults, "row"), drawn, number, dump(params), self.elapsed())
        what = fault.name if fault else ""
        if what:
            self.stats.by_fault[f"{what}@row"] += 1
        if what.isdigit() or what in ("context", "quota", "throttle", "concurrency"):
            facts = {"model": request.model, "tokens": request.input_tokens, "limit": request.input_tokens - 1}
            answer = self._limiter.answer(what, self._clock(), **facts)
            refusal: Any = orjson.loads(answer.body) if answer.kind == "application/json" else answer.body.decode()
            return Row(status=answer.status, body=refusal)
        if what in ("status0", "error-text", "error-object"):
            trouble = {"error-text": _TROUBLE, "error-object": {"code": "server_error", "message": _TROUBLE}}
            return Row(status=0, body={}, error=trouble.get(what))
        cached = self._cache.look(self.settings.cache, self.settings.cache_minimum, request, self.elapsed())
        if isinstance(cached, Problem):
            return Row(status=cached.status, body=orjson.loads(_refusal(cached).body))
        reply = make(request, digest.hex()[:24], self.settings, cached, broken=what == "broken")
        self._cache.keep(cached, self.elapsed())
        self.stats.pay_batch(digest, reply.input_tokens, reply.output_tokens, cached)
        value = orjson.loads(defective(what, reply.value).body) if what in VALUES else reply.value
        return Row(
            status=200,
            body=message_of(value) if messages else value,
            usage={"input_tokens": reply.input_tokens, "output_tokens": reply.output_tokens},
            copies={"missing": 0, "repeat": 2}.get(what, 1),
            foreign=what == "foreign",
            text=what == "text-body",
        )

    def _other_path(self, call: Call) -> Answer:
        if not call.path.startswith("/v1/"):
            return self._limiter.answer("html404")
        if call.path in _ENDPOINTS:
            return error(405, f"Not allowed to {call.method} on {call.path}.")
        name = call.path.removeprefix("/v1/models").strip("/")
        if call.method == "GET" and call.path.startswith("/v1/models"):
            models = [{"id": each, "object": "model", "created": 0, "owned_by": "batchrun-sim"} for each in _MODELS]
            return Answer(200, dump({**models[0], "id": name} if name else {"object": "list", "data": models}))
        return error(404, f"Invalid URL ({call.method} {call.path})")


_CONNECTION_FAULTS: dict[str, Callable[[Connection, Answer, float], None]] = {
    "reset": lambda connection, _answer, _pause: connection.reset(),
    "close": lambda connection, _answer, _pause: connection.close(),
    "hang": lambda _connection, _answer, _pause: None,
    "truncate": lambda connection, answer, _pause: connection.send_part(answer),
    "reset-late": lambda connection, answer, _pause: connection.send_part_and_reset(answer),
    "slow": lambda connection, answer, pause: connection.send_slowly(answer, pause),
    "garbage": lambda connection, _answer, _pause: connection.garbage(),
}


def error(status: int, message: str, code: str | None = None, param: str | None = None) -> Answer:
    inner = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return Answer(status, orjson.dumps({"error": inner}, option=orjson.OPT_APPEND_NEWLINE))


def _refusal(problem: Problem) -> Answer:
    return error(problem.status, problem.message, problem.code, problem.param)


def wrong_key(authorization: str) -> Answer:
    key = authorization.removeprefix("Bearer ").strip()
    if not key:
        hint = "You need to provide your API key in an Authorization header using Bearer auth."
        return error(401, f"You didn't provide an API key. {hint}")
    where = "You can find your API key at https://platform.openai.com/account/api-keys."
    return error(401, f"Incorrect API key provided: {masked(key)}. {where}", "invalid_api_key")


def masked(key: str) -> str:
    head, tail = (8, 4) if len(key) > 20 else (2, 2) if len(key) > 8 else (0, 0)
    return key[:head] + "*" * (len(key) - head - tail) + key[len(key) - tail :]
