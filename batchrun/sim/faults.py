"""The faults that the simulated provider injects, spelled NAME=WHEN or NAME@CALL=WHEN (docs/sim.md).

A share of the requests is drawn from seed, prompt and attempt number: the same in every run. The shares of several
faults add up. A 4xx refuses a call about files and batches, any other fault performs it and loses its answer.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from enum import Enum
from hashlib import blake2b
from typing import NamedTuple

from batchrun.errors import RefusedError
from batchrun.sim.formats import plain


class Stage(Enum):
    BEFORE_LIMITS = "before the limits: nothing is taken from them"
    REPLY = "instead of the reply, after its latency"
    OUTAGE = "the port does not listen"


NAMED: dict[str, str] = {
    "reset": "the connection is reset (RST) instead of an answer",
    "reset-late": "the connection is reset after the headers and half of the body",
    "close": "the connection is closed (FIN) without an answer",
    "hang": "no answer",
    "truncate": "the connection is closed in the middle of the body",
    "cut": "a whole answer whose JSON is cut in the middle",
    "slow": "the body is sent in pieces, `drip` seconds apart",
    "garbage": "bytes that are not HTTP",
    "html": "a 200 with an HTML page",
    "html404": "a 404 with an HTML page",
    "empty": "a 200 with an empty body",
    "null": "a 200 with the body null",
    "list": "a 200 with the body []",
    "error": "a 200 with an error as its body",
    "badutf8": "a 200 whose body is not UTF-8",
    "nochoices": "a reply with no choices",
    "nocontent": "a reply whose content is null",
    "nousage": "a reply without usage",
    "refusal": "a reply in which the model refuses",
    "filter": "a reply cut by the content filter",
    "broken": "a reply that fails a check: a placeholder lost, a number changed, not translated, blank, …",
    "invalid": "a reply whose text is no valid JSON",
    "throttle": "a 429 about requests with a wait of 1 s, in the form that `retry_after` sets",
    "concurrency": "a 429 about requests at once",
    "context": "400 context_length_exceeded",
    "model": "404 model_not_found",
    "key": "401 invalid_api_key, echoing the key masked",
    "quota": "the account is empty: 429 insufficient_quota, or what the dialect says",
    "flex": "no capacity for service_tier flex; other requests are served",
    "down": "connections are refused, those that are open are reset; WHEN is 10-20",
}
CALLS = ("upload", "create", "list", "retrieve", "cancel", "content", "delete", "row")
BATCH_FAULTS: dict[str, tuple[tuple[str, ...], str]] = {
    "gateway": (CALLS[:-1], "500 with a plain text, and nothing was done"),
    "thrice": (("upload", "create"), "the call is done three times, the last answer comes"),
    "stuck": (("create",), "the batch never ends"),
    "loop": (("list",), "the page has has_more, and a cursor that leads back to it"),
    "stale": (("list",), "batches are listed in the state in which they were created"),
    "crash": (CALLS[:-1], "the server's process ends once the call is done"),
    "status0": (("row",), "a line with status_code 0 and an empty body"),
    "missing": (("row",), "no line, though the row was done and is paid for"),
    "repeat": (("row",), "the line comes twice"),
    "foreign": (("row",), "an extra line with an unknown custom_id"),
    "text-body": (("row",), "the body is JSON in a text"),
    "error-text": (("row",), "a line without a response, whose error is a text"),
    "error-object": (("row",), "a line without a response, whose error is an object"),
}
_BEFORE_LIMITS = frozenset({"key", "quota", "model", "flex", "401", "402", "403", "404", "html404"})
_HINT = "write NAME=WHEN, such as 503=0.1, reset=first, 400=text:POISON, quota=10-, down=10-20"


class Fault(NamedTuple):
    """Times are seconds after the start; `str()` is its spelling."""

    name: str
    share: float = 0.0
    tries: int = 0
    text: str = ""
    start: float | None = None
    end: float = float("inf")
    call: str = ""

    @property
    def stage(self) -> Stage:
        if self.name == "down":
            return Stage.OUTAGE
        return Stage.BEFORE_LIMITS if self.name in _BEFORE_LIMITS else Stage.REPLY

    def certain(self, number: int, body: bytes, at: float) -> bool:
        """Whatever the draw; `number` counts from 1."""
        if self.start is not None:
            return self.start <= at < self.end
        return number <= self.tries or bool(self.text and self.text.encode() in body)

    def __str__(self) -> str:
        if self.start is not None:
            when = f"{plain(self.start)}-" if self.end == float("inf") else f"{plain(self.start)}-{plain(self.end)}"
        elif self.text:
            when = f"text:{self.text}"
        else:
            when = f"first:{self.tries}" if self.tries else f"{self.share!r}"
        return f"{self.name}@{self.call}={when}" if self.call else f"{self.name}={when}"


def parse_fault(text: str) -> Fault:
    """Raises RefusedError."""
    name, equals, when = text.partition("=")
    name, when = name.strip().lower(), when.strip()
    if not equals:
        raise RefusedError(f"Invalid fault: {text!r}", _HINT)
    name, _, call = name.partition("@")
    _check_name(name, call)
    fault = _when(name, when)
    if fault is None or (name == "down" and fault.start is None):
        raise RefusedError(f"Invalid condition of the fault {name}: {when!r}", _HINT)
    return fault._replace(call=call)


def fraction(seed: int, digest: bytes, number: int, what: bytes) -> float:
    drawn = blake2b(b"%d %d %b" % (seed, number, digest), digest_size=7, person=what).digest()
    return int.from_bytes(drawn, "big") / (1 << 56)


def draw(faults: Sequence[Fault], lot: float, number: int, body: bytes, at: float) -> Fault | None:
    reach = 0.0
    for fault in faults:
        reach += fault.share
        if fault.name != "down" and (fault.certain(number, body, at) or (fault.share and lot < reach)):
            return fault
    return None


def of_call(faults: Sequence[Fault], call: str) -> tuple[Fault, ...]:
    return tuple(fault for fault in faults if fault.call == call)


def _check_name(name: str, call: str) -> None:
    if call and call not in CALLS:
        raise RefusedError(f"Unknown call of a fault: {call!r}", f"one of {', '.join(CALLS)}")
    if name in BATCH_FAULTS:
        if call not in BATCH_FAULTS[name][0]:
            raise RefusedError(
                f"The fault {name} does not apply to {call or 'completions'}", f"{name}@{BATCH_FAULTS[name][0][0]}=…"
            )
        return
    if name in NAMED or (name.isascii() and name.isdigit() and 400 <= int(name) <= 599):
        return
    known = (*NAMED, *BATCH_FAULTS)
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"a status from 400 to 599, or one of {', '.join(known)}"
    raise RefusedError(f"Unknown fault: {name!r}", hint)


def _when(name: str, when: str) -> Fault | None:
    kind, colon, rest = when.partition(":")
    if kind == "text":
        return Fault(name, text=rest) if rest else None
    if kind == "first":
        tries = (int(rest) if rest.isascii() and rest.isdigit() else 0) if colon else 1
        return Fault(name, tries=tries) if tries else None
    share = _number(when)
    if share is not None:
        return Fault(name, share=share) if share <= 1 else None
    first, _, last = when.partition("-")
    start, end = _number(first), _number(last or "inf")
    return Fault(name, start=start, end=end) if start is not None and end is not None and start < end else None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if number >= 0 else None
