"""When only single requests leave, and how often: while the provider is down, loads its model, or may have refused for
good. Pure."""

from dataclasses import dataclass

from batchrun.retry import DOUBTED_FOR, Health


@dataclass(frozen=True, slots=True)
class Probing:
    """Why only one request leaves `every` so many seconds; `down` is whether the provider does not answer."""

    every: float
    said: str
    down: bool = False


_DOWN = Probing(1.0, "the provider is down: one try a second", down=True)
_LOADING = Probing(1.0, "the server is loading its model: one try a second")
_UNCLEAR = Probing(DOUBTED_FOR / 6, "the provider speaks of a used up quota: one try every 10 seconds, for a minute")


def probing_of(health: Health) -> Probing | None:
    """Why only single requests are to leave, None where that is not so."""
    if health.unclear_since is not None:
        return _UNCLEAR
    if health.loading_since is not None:
        return _LOADING
    return _DOWN if health.breaker_open else None
