"""The settings of the simulated provider; its latency is a distribution."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, NamedTuple

from batchrun import providers
from batchrun.errors import RefusedError
from batchrun.sim.faults import Fault, parse_fault
from batchrun.sim.formats import plain
from batchrun.sim.texts import MODES

_LATENCY_HINT = "write 0.5, 0.3-0.8 or lognormal:0.5:0.4 (median and sigma), and +0.02/token for each output token"


class Latency(NamedTuple):
    """Uniform from `low` to `high`, or log-normal with median `low` and `sigma`."""

    low: float = 0.0
    high: float = 0.0
    sigma: float = 0.0
    per_token: float = 0.0

    def seconds(self, fraction: float, output_tokens: int) -> float:
        """`fraction` is a quantile."""
        return self._base(fraction) + self.per_token * output_tokens

    def _base(self, fraction: float) -> float:
        if self.sigma:
            from statistics import NormalDist  # noqa: PLC0415  # 15 ms at every start, needed by one distribution

            return self.low * math.exp(self.sigma * NormalDist().inv_cdf(min(max(fraction, 1e-9), 1 - 1e-9)))
        return self.low + (self.high - self.low) * fraction

    def __str__(self) -> str:
        if self.sigma:
            base = f"lognormal:{plain(self.low)}:{plain(self.sigma)}"
        else:
            base = plain(self.low) if self.low == self.high else f"{plain(self.low)}-{plain(self.high)}"
        return f"{base}+{plain(self.per_token)}/token" if self.per_token else base


def parse_latency(text: str) -> Latency:
    """`0.5`, `0.3-0.8` or `lognormal:MEDIAN:SIGMA`, and `+SECONDS/token`. Raises RefusedError."""
    spec = text.strip().lower()
    base, plus, rest = spec.rpartition("+") if spec.endswith("/token") else (spec, "", "")
    if spec.endswith("/token") and not plus:
        base, rest = "0", spec
    per_token = _seconds_of(rest.removesuffix("/token"), text) if rest else 0.0
    if base.startswith("lognormal:"):
        return _lognormal(base, per_token, text)
    low, dash, high = base.partition("-")
    first = _seconds_of(low, text)
    last = _seconds_of(high, text) if dash else first
    if last < first:
        raise _not_a_latency(text)
    return Latency(low=first, high=last, per_token=per_token)


def _lognormal(base: str, per_token: float, text: str) -> Latency:
    match base.split(":"):
        case [_, median, sigma]:
            middle = _seconds_of(median, text)
            return Latency(low=middle, high=middle, sigma=_seconds_of(sigma, text), per_token=per_token)
        case _:
            raise _not_a_latency(text)


def _seconds_of(number: str, text: str) -> float:
    try:
        seconds = float(number.strip().removesuffix("s"))
    except ValueError:
        raise _not_a_latency(text) from None
    if not (0 <= seconds <= 86_400):
        raise _not_a_latency(text)
    return seconds


def _not_a_latency(text: str) -> RefusedError:
    return RefusedError(f"Invalid latency: {text!r}", _LATENCY_HINT)


RETRY_AFTER = ("dialect", "both", "ms", "seconds", "date", "gateway", "none")
CHARGE = ("usage", "stated")
EMPTY_FILES = ("null", "text", "file")
CACHES = ("none", "automatic", "explicit", "implicit")
AT_ONCE = Latency()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """See docs/sim.md; times are seconds, None is the dialect's figure. Raises RefusedError."""

    port: int = 0
    dialect: str = "openai"
    rpm: float | None = None
    tpm: float | None = None
    rpd: float | None = None
    request_depth: float | None = None
    token_depth: float | None = None
    charge: str = "usage"
    concurrency: int | None = None
    queue: bool = False
    latency: Latency = AT_ONCE
    headers: bool = True
    retry_after: str = "dialect"
    faults: tuple[Fault, ...] = ()
    seed: int = 0
    reply: str = "auto"
    require_key: bool = False
    reply_tokens: int = 64
    reasoning: int = 0
    cached: float = 0.0
    cache: str = "none"
    cache_minimum: int = 1024
    drip: float = 0.1
    time_scale: float = 1.0
    batch_validation: float = 2.0
    batch_seconds: float = 10.0
    batch_cancelling: float = 2.0
    batch_listed: float = 0.0
    batch_found: float = 0.0
    batch_expire: float | None = None
    enqueued_tokens: int | None = None
    empty_files: str = "null"
    state: str = ""
    record: bool = False

    def __post_init__(self) -> None:
        for name in (
            "rpm",
            "tpm",
            "rpd",
            "request_depth",
            "token_depth",
            "concurrency",
            "reply_tokens",
            "cache_minimum",
            "drip",
            "time_scale",
            "enqueued_tokens",
        ):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise RefusedError(f"Invalid {name} of the simulated provider: {value!r}", "use a number above 0")
        for name in ("batch_validation", "batch_seconds", "batch_cancelling", "batch_listed", "batch_found"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise RefusedError(
                    f"Invalid {name} of the simulated provider: {getattr(self, name)!r}", "use 0 or more"
                )
        if self.batch_expire is not None and not 0 <= self.batch_expire < 1:
            raise RefusedError("batch_expire is a share of the rows, from 0 to below 1")
        if not 0 <= self.port <= 65_535:
            raise RefusedError(f"Invalid port: {self.port}", "use a number from 1 to 65535, or 0 for a free port")
        if self.reasoning < 0 or not 0 <= self.cached <= 1:
            raise RefusedError("reasoning is a number of tokens, cached a share from 0 to 1")
        if self.dialect not in (known := providers.table("simulated")):
            near = get_close_matches(self.dialect, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
            raise RefusedError(f"Unknown dialect: {self.dialect!r}", hint)
        for name, value, known in (
            ("charge", self.charge, CHARGE),
            ("reply", self.reply, MODES),
            ("cache", self.cache, CACHES),
            ("empty_files", self.empty_files, EMPTY_FILES),
        ):
            if value not in known:
                raise RefusedError(f"Unknown {name}: {value!r}", f"one of {', '.join(known)}")
        if self.retry_after not in RETRY_AFTER and not self.retry_after.startswith("="):
            raise RefusedError(f"Unknown retry_after: {self.retry_after!r}", f"one of {', '.join(RETRY_AFTER)}, =VALUE")

    def to_json(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"latency": str(self.latency), "faults": [str(fault) for fault in self.faults]}

    def changed(self, values: Mapping[str, Any]) -> "Settings":
        """Raises RefusedError."""
        return replace(self, **{name: _value(name, value) for name, value in values.items()})


_NAMES = tuple(field.name for field in fields(Settings))


def from_json(values: Mapping[str, Any]) -> Settings:
    """Raises RefusedError."""
    return Settings().changed(values)


def _value(name: str, value: Any) -> Any:
    default: Any = getattr(_DEFAULTS, name, _DEFAULTS)
    if default is _DEFAULTS:
        near = get_close_matches(name, _NAMES, n=1)
        raise RefusedError(f"Unknown setting: {name!r}", f"did you mean {near[0]}?" if near else None)
    if name == "latency":
        return parse_latency(str(value))
    if name == "faults" and isinstance(value, list | tuple):
        return tuple(parse_fault(str(fault)) for fault in value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  # foreign JSON
    if not _fits(value, default):
        raise RefusedError(f"Invalid value of the setting {name}: {value!r}")
    return value


def _fits(value: Any, default: Any) -> bool:
    if default is None:
        return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


_DEFAULTS = Settings()
