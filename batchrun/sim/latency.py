"""The latency of simulated replies, a distribution."""

import math
from typing import NamedTuple

from batchrun.errors import RefusedError
from batchrun.sim.formats import plain

_HINT = "write 0.5, 0.3-0.8 or lognormal:0.5:0.4 (median and sigma), and +0.02/token for each output token"


class Latency(NamedTuple):
    """Seconds until a reply: uniform from `low` to `high`, or log-normal with median `low` and `sigma`; `per_token` is
    added."""

    low: float = 0.0
    high: float = 0.0
    sigma: float = 0.0
    per_token: float = 0.0

    def seconds(self, fraction: float, output_tokens: int) -> float:
        """The latency at the quantile `fraction` (0..1)."""
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
    """Read `0.5`, `0.3-0.8` or `lognormal:MEDIAN:SIGMA`, with or without `+SECONDS/token`. Raises RefusedError."""
    spec = text.strip().lower()
    base, plus, rest = spec.rpartition("+") if spec.endswith("/token") else (spec, "", "")
    if spec.endswith("/token") and not plus:
        base, rest = "0", spec
    per_token = _seconds(rest.removesuffix("/token"), text) if rest else 0.0
    if base.startswith("lognormal:"):
        return _lognormal(base, per_token, text)
    low, dash, high = base.partition("-")
    first = _seconds(low, text)
    last = _seconds(high, text) if dash else first
    if last < first:
        raise _refused(text)
    return Latency(low=first, high=last, per_token=per_token)


def _lognormal(base: str, per_token: float, text: str) -> Latency:
    match base.split(":"):
        case [_, median, sigma]:
            middle = _seconds(median, text)
            return Latency(low=middle, high=middle, sigma=_seconds(sigma, text), per_token=per_token)
        case _:
            raise _refused(text)


def _seconds(number: str, text: str) -> float:
    try:
        seconds = float(number.strip().removesuffix("s"))
    except ValueError:
        raise _refused(text) from None
    if not (0 <= seconds <= 86_400):
        raise _refused(text)
    return seconds


def _refused(text: str) -> RefusedError:
    return RefusedError(f"Not a latency in seconds: {text!r}", _HINT)
