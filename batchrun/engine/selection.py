"""Which rows a command sends: by number, at random, or named."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, cast
from zlib import crc32

from batchrun.engine.pending_queue import AHEAD, RowState
from batchrun.errors import RefusedError
from batchrun.journal import PAGE_BYTES, Page, Reader, Record
from batchrun.models import Pending
from batchrun.plan import Plan
from batchrun.rows.check import RESERVED


def selection(plan: Plan, rows: int, only: Collection[int] | None = None) -> Callable[[int], bool] | None:
    """None: all positions are sent."""
    if only is not None:
        return frozenset(only).__contains__
    limit, sample = plan.limit or rows, plan.sample or rows
    if limit >= rows and sample >= rows:
        return None
    return lambda position: position <= limit and in_sample(position, sample, rows)


def in_sample(position: int, size: int, total: int) -> bool:
    """Each of `size` stretches gives one row, at a hashed place: no period of the input matters."""
    if size >= total:
        return True
    stretch = (position - 1) * size // total
    first = -(-stretch * total // size)
    length = -(-(stretch + 1) * total // size) - first
    return position - 1 - first == crc32(stretch.to_bytes(8)) % length


def at_places(pending: Callable[[int, int, int], Page], places: Iterable[int], after: int) -> Page:
    rows: list[Pending] = []
    size = 0
    for place in sorted(place for place in places if place > after):
        if size >= PAGE_BYTES or len(rows) == AHEAD:
            return Page(rows, full=True)
        found = pending(place - 1, 1, place)
        rows += found
        size += sum(RowState.of(row).size for row in found)
    return Page(rows, full=False)


def record_of(reader: Reader, name: str) -> Record:
    """By id, else by line. Raises RefusedError."""
    found = reader.row(key=name)
    if found is None and name.isascii() and name.isdecimal() and len(name) < 16:
        found = reader.row(line=int(name))
    if found is None or found.position is None:
        raise RefusedError(f"no row has the id or line number {name!r}", "`batchrun show RUN` shows examples")
    return found


def cause_of(reader: Reader, name: str) -> str:
    """The cause with this unique prefix. Raises RefusedError."""
    causes = list(reader.failures())
    found = [cause for cause in causes if cause == name] or [cause for cause in causes if cause.startswith(name)]
    if len(found) == 1:
        return found[0]
    message = f"{name!r} is the start of {len(found)} causes" if found else f"no row failed with the cause {name!r}"
    raise RefusedError(message, f"causes here: {', '.join(found or causes) or 'none'}")


def positions_of(reader: Reader, rows: str) -> tuple[int, ...]:
    """`rows`: a file (an id, line number or JSON object per line) or a comma-separated list. Raises RefusedError."""
    names = list(_names_in(Path(rows), reader)) if Path(rows).is_file() else [each.strip() for each in rows.split(",")]
    found = {record_of(reader, name).position for name in names if name}
    if not found:
        raise RefusedError(
            f"--rows {rows!r} names no row", "give ids or lines: --rows r1,r2,17, or a file with one per line"
        )
    return tuple(sorted(cast("set[int]", found)))


def _names_in(path: Path, reader: Reader) -> Iterator[str]:
    plan: dict[str, Any] = json.loads(reader.meta.plan)
    columns = [name for name in (plan.get("id_column"), "custom_id", "id") if name]
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            text = line.strip()
            yield _name_in(text, columns, f"{path}, line {number}") if text.startswith("{") else text


def _name_in(text: str, columns: list[str], where: str) -> str:
    try:
        row: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise RefusedError(f"{where}: not JSON ({error})", "one id, line number or JSON object per line") from error
    for column in columns:
        if isinstance(row.get(column), str | int):
            return str(row[column])
    if isinstance(row.get(RESERVED), dict) and "line" in row[RESERVED]:
        return str(row[RESERVED]["line"])
    raise RefusedError(f"{where}: names no row", "an object needs the run's id column, or `_batchrun` with its line")
