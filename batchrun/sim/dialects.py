"""Limits, headers and errors of a simulated provider, from providers/simulated.toml."""

import json
import time
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import orjson

from batchrun import providers
from batchrun.sim.formats import Span, filled
from batchrun.sim.http import Answer
from batchrun.sim.settings import Settings


class Bucket:
    """Holds up to `depth`, refills by `rate` a second. When full it meets a need over its depth and goes into debt, so
    the long-term rate is exact.
    """

    __slots__ = ("_at", "_level", "depth", "rate")

    def __init__(self, rate: float, depth: float, now: float) -> None:
        self.rate = rate
        self.depth = depth
        self._level = depth
        self._at = now

    def level(self, now: float) -> float:
        if now > self._at:
            self._level = min(self.depth, self._level + (now - self._at) * self.rate)
            self._at = now
        return self._level

    def wait(self, need: float, now: float) -> float:
        short = min(need, self.depth) - self.level(now)
        # The sum of many small refills is off by some 1e-13.
        return short / self.rate if short > 1e-9 else 0.0

    def take(self, need: float, now: float) -> None:
        self._level = self.level(now) - need

    def reset(self, now: float) -> float:
        return (self.depth - self.level(now)) / self.rate


class Window:
    """Admits up to `depth` in `span` seconds from the first request on; with `offset`, the Unix time at 0, it follows
    the wall clock. An unused window meets a need over the depth.
    """

    __slots__ = ("_end", "_offset", "_used", "depth", "span")

    def __init__(self, depth: float, span: float, offset: float | None) -> None:
        self.depth = depth
        self.span = span
        self._offset = offset
        self._used = 0.0
        self._end = float("-inf")

    def level(self, now: float) -> float:
        if now >= self._end:
            self._used = 0.0
            self._end = now + self.span - (0.0 if self._offset is None else (now + self._offset) % self.span)
        return self.depth - self._used

    def wait(self, need: float, now: float) -> float:
        return 0.0 if min(need, self.depth) <= self.level(now) + 1e-9 else self._end - now

    def take(self, need: float, now: float) -> None:
        self.level(now)
        self._used += need

    def reset(self, now: float) -> float:
        self.level(now)
        return self._end - now


_RETRY_AFTER: dict[str, dict[str, str]] = {
    "both": {"retry-after": "{wait:s}", "retry-after-ms": "{wait:ms}"},
    "ms": {"retry-after-ms": "{wait:ms}"},
    "seconds": {"retry-after": "{wait:s}"},
    "date": {"retry-after": "{wait:date}"},
    "gateway": {"llm_provider-retry-after": "{wait:s}"},
    "none": {},
}
_OPTION_PER = {"rpm": 60, "tpm": 60, "rpd": 86_400}


class Cost(NamedTuple):
    tokens: int
    input: int
    output: int
    requests: int = 1


class Refused(NamedTuple):
    kind: str  # the limit's unit
    wait: float | None  # None if no wait helps
    answer: Answer


class _Limit:
    # `figure` for `per` seconds; `enforced` admits, `stated` fills the headers

    def __init__(self, rule: Mapping[str, Any], figure: float, depth: float | None, now: float, epoch: float) -> None:
        self.unit: str = rule["unit"]
        self.name: str = rule.get("name", f"{self.unit} per {rule['per']} s")
        self.figure = figure
        self.per: int = rule["per"]
        rate = figure / self.per
        self.stated: Bucket | Window = Bucket(rate, figure, now)
        kind, span = rule.get("kind", "bucket"), rule.get("span", self.per)
        if kind == "bucket":
            self.enforced = Bucket(rate, depth or _depth(self.unit, rate, rule.get("depth")), now)
        else:
            depth = max(1.0, rate * span)
            self.enforced = Window(depth, depth / rate, epoch if kind == "aligned" else None)
            if span == self.per:
                self.stated = self.enforced
        if rule.get("states") == "held":
            self.stated = self.enforced
        self.binding: bool = rule.get("enforced", True)
        self.template = "".join(f"{name}: {text}\r\n" for name, text in rule.get("headers", {}).items())
        self._key = (self.unit, self.per, figure, self.enforced.depth)

    def take(self, need: float, now: float) -> None:
        self.enforced.take(need, now)
        if self.stated is not self.enforced:
            self.stated.take(need, now)

    def facts(self, now: float, epoch: float) -> dict[str, Any]:
        return {
            "limit": f"{self.figure:.0f}",
            "remaining": max(0, int(self.stated.level(now) + 1e-9)),
            "used": f"{self.figure - max(0, int(self.enforced.level(now) + 1e-9)):.0f}",
            "reset": Span(max(0.0, self.stated.reset(now)), now + epoch),
            "per": self.per,
            "unit": self.unit,
            "name": self.name,
        }

    def same(self, other: "_Limit") -> bool:
        return self._key == other._key  # of its own class


class Limiter:
    """Times are monotonic; `epoch` is the Unix time at 0."""

    def __init__(self, settings: Settings, now: float, *, epoch: float | None = None) -> None:
        self.dialect = settings.dialect
        self.places: int | None = settings.concurrency or _table(settings.dialect).get("concurrency")
        self._epoch = time.time() - now if epoch is None else epoch
        self._retry_after = settings.retry_after
        self.limits: list[_Limit] = []
        depths = {"requests": settings.request_depth, "tokens": settings.token_depth}
        for rule in _table(settings.dialect)["limits"]:
            option = rule.get("setting", "")
            stated: float | None = getattr(settings, option, None)
            figure = rule.get("default") if stated is None else stated * rule["per"] / _OPTION_PER[option]
            if figure is not None:
                depth = depths.get(rule["unit"]) if rule["per"] <= 60 else None
                self.limits.append(_Limit(rule, figure, depth, now, self._epoch))
        self._constant = _lines(_table(settings.dialect).get("headers", {}), {})

    def admit(self, cost: Cost, model: str, now: float) -> Refused | None:
        """All limits or none: else the refusal with the longest wait."""
        refused: tuple[float, _Limit] | None = None
        for limit in self.limits:
            need = getattr(cost, limit.unit)
            if not limit.binding:
                continue
            if need > max(limit.figure, 1):
                facts = limit.facts(now, self._epoch) | {"need": need, "model": model}
                return Refused(limit.unit, None, self.answer("too_large", now, **facts))
            wait = limit.enforced.wait(need, now)
            if wait and (refused is None or wait > refused[0]):
                refused = wait, limit
        if refused:
            wait, limit = refused
            facts = limit.facts(now, self._epoch) | {"need": getattr(cost, limit.unit), "model": model}
            name = limit.unit if limit.unit in _table(self.dialect)["answers"] else "rate"
            return Refused(limit.unit, wait, self.answer(name, now, wait, **facts))
        for limit in self.limits:
            limit.take(getattr(cost, limit.unit), now)
        return None

    def headers(self, now: float) -> str:
        lines = [limit.template.format_map(limit.facts(now, self._epoch)) for limit in self.limits if limit.template]
        return "".join(lines) + self._constant if lines else self._constant

    def keep(self, older: "Limiter") -> None:
        if older.dialect == self.dialect:
            self.limits = [next((old for old in older.limits if old.same(new)), new) for new in self.limits]

    def answer(self, name: str, now: float = 0.0, wait: float = 1.0, /, **facts: Any) -> Answer:
        """`name` is a limit's refusal, a fault or a status."""
        found = _answer(self.dialect, name)
        status = found.get("status") or int(name)
        facts |= {"status": status, "wait": Span(wait, now + self._epoch)}
        headers: dict[str, str] = found.get("headers", {})
        style = self._retry_after
        if style != "dialect" and found.get("waits", any("retry-after" in each.lower() for each in headers)):
            headers = {each: text for each, text in headers.items() if "retry-after" not in each.lower()}
            headers |= {"retry-after": style[1:]} if style.startswith("=") else _RETRY_AFTER[style]
        if "body" in found:
            kind = found.get("type", "application/json")
            body = orjson.dumps(filled(found["body"], facts), option=orjson.OPT_APPEND_NEWLINE)
        else:
            kind = found.get("type", "text/html; charset=utf-8")
            body = filled(found["text"], facts).encode()
        return Answer(status, body, _lines(headers, facts), kind, states=found.get("states", True))


@cache
def _answer(dialect: str, name: str) -> dict[str, Any]:
    own, default = _table(dialect)["answers"], _table("openai")["answers"]
    keys = [name]
    if name.isdigit():
        keys += ["52x"] if 520 <= int(name) <= 527 else [f"{name[0]}xx"]
    found = next(table[key] for key in keys for table in (own, default) if key in table)
    return {**found, "body": json.loads(found["body"])} if "body" in found else found


def _table(dialect: str) -> dict[str, Any]:
    return providers.table("simulated")[dialect]


def _depth(unit: str, rate: float, seconds: float | None) -> float:
    # `seconds` of the rate; else two requests or 50 ms, or one second of tokens
    return max(1.0, rate * seconds if seconds is not None else max(2.0, 0.05 * rate) if unit == "requests" else rate)


def _lines(headers: Mapping[str, str], facts: Mapping[str, Any]) -> str:
    return "".join(f"{name}: {filled(text, facts)}\r\n" for name, text in headers.items())
