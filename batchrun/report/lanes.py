"""The account of each lane of a run with several: as values and as lines."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from batchrun.display import counted, printable
from batchrun.journal import LaneShare, Reader
from batchrun.plan import Plan
from batchrun.report import words
from batchrun.report.values import plain


class Named(NamedTuple):
    """What came of a lane, under the name that the run has for it; a lane that is no member any more has its address."""

    name: str
    share: LaneShare


def shares(reader: Reader, plan: Plan) -> list[Named]:
    """The lanes of a run that were sent to, where there are several; reads all attempts."""
    names = {(lane["base_url"], lane["api_key_env"], lane["model"]): str(lane["name"]) for lane in plan.lanes}
    return [
        Named(names.get((share.base_url, share.key_name, share.model), share.base_url), share)
        for share in reader.lanes()
    ]


def values(found: Iterable[Named]) -> list[dict[str, Any]]:
    """The lanes as JSON values."""
    return [{"name": lane.name, **plain(lane.share)} for lane in found]


def lines(found: Iterable[Named]) -> list[str]:
    """`gpu-1: 1,540 replies in 0.58 s each, 12 × 429, 3 errors, 2 may have been billed, $0.0300`, one a lane."""
    return [_line(lane.name, lane.share) for lane in found]


def _line(name: str, share: LaneShare) -> str:
    replies = "1 reply" if share.replies == 1 else f"{share.replies:,} replies"
    said = [
        f"{printable(name, 60)}: {replies}",
        f"{share.seconds:.2f} s each" if share.seconds is not None else "",
        f"{share.throttled:,} × 429" if share.throttled else "",
        counted(share.errors, "error") if share.errors else "",
        f"{share.possibly_billed:,} may have been billed" if share.possibly_billed else "",
        words.money(share.cost) if share.cost else "",
    ]
    return ", ".join(part for part in said if part)
