"""When only single requests leave, and how often: while the provider is down, loads its model, or may have refused for
good. Pure."""

from dataclasses import dataclass

from batchrun.events import WaitReason
from batchrun.retry import DOUBTED_FOR, Health


@dataclass(frozen=True, slots=True)
class Probing:
    """Why only one request leaves `every` so many seconds."""

    every: float
    reason: WaitReason
    said: str


_DOWN = Probing(1.0, WaitReason.DOWN, "the provider is down: one try a second")
_LOADING = Probing(1.0, WaitReason.LOADING, "the server is loading its model: one try a second")
_DOUBT = Probing(
    1.0, WaitReason.DOUBT, f"{WaitReason.DOUBT}: six single tries, later and later, within {DOUBTED_FOR:.0f} seconds"
)


def probing_of(health: Health) -> Probing | None:
    """Why only single requests are to leave, None where that is not so.

    Where a quota may be used up the pauses double: a limit of a second is seen after one, and that of a minute is over
    after the sixth, when 63 have passed.
    """
    if health.doubt is not None:
        return Probing(_DOUBT.every * 2**health.doubt_tries, _DOUBT.reason, _DOUBT.said)
    if health.loading_since is not None:
        return _LOADING
    return _DOWN if health.breaker_open else None
