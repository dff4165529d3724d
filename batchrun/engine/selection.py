"""Which rows of the input a command sends."""

from collections.abc import Callable, Collection, Iterable
from zlib import crc32

from batchrun.engine.pending_queue import AHEAD, RowState
from batchrun.journal import PAGE_BYTES, Page
from batchrun.models import Pending
from batchrun.plan import Plan


def selection(plan: Plan, rows: int, only: Collection[int] | None = None) -> Callable[[int], bool] | None:
    """Whether a command sends the row at a position, of so many `rows`; None where it sends all."""
    if only is not None:
        return frozenset(only).__contains__
    limit, sample = plan.limit or rows, plan.sample or rows
    if limit >= rows and sample >= rows:
        return None
    return lambda position: position <= limit and in_sample(position, sample, rows)


def in_sample(position: int, size: int, total: int) -> bool:
    """Whether a row (positions count from 1) belongs to the sample of `size` rows from all over `total`.

    The rows are cut into `size` stretches, and each gives one, at a place that no period of the input can meet.
    """
    if size >= total:
        return True
    stretch = (position - 1) * size // total
    first = -(-stretch * total // size)
    length = -(-(stretch + 1) * total // size) - first
    return position - 1 - first == crc32(stretch.to_bytes(8)) % length


def at_places(pending: Callable[[int, int, int], Page], places: Iterable[int], after: int) -> Page:
    """A page of the rows behind the position `after`, at these places of the input, that have no outcome."""
    rows: list[Pending] = []
    size = 0
    for place in sorted(place for place in places if place > after):
        if size >= PAGE_BYTES or len(rows) == AHEAD:
            return Page(rows, full=True)
        found = pending(place - 1, 1, place)
        rows += found
        size += sum(RowState.of(row).size for row in found)
    return Page(rows, full=False)
