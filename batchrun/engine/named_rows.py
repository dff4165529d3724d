"""Rows that a user names: by id or by line, one by one, in a list, or in a file."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from batchrun.errors import RefusedError
from batchrun.journal import Reader, Record
from batchrun.rows.check import RESERVED


def record_of(reader: Reader, name: str) -> Record:
    """The row with this id, else the one at this line of the input. Raises RefusedError where there is neither."""
    found = reader.row(key=name)
    if found is None and name.isascii() and name.isdecimal() and len(name) < 16:
        found = reader.row(line=int(name))
    if found is None or found.position is None:
        raise RefusedError(
            f"no row has the id {name!r}, and none is at such a line", "`batchrun show RUN` has examples"
        )
    return found


def cause_of(reader: Reader, name: str) -> str:
    """The cause by which rows failed, in full; the beginning of one is enough. Raises RefusedError with those there are."""
    causes = list(reader.failures())
    found = [cause for cause in causes if cause == name] or [cause for cause in causes if cause.startswith(name)]
    if len(found) == 1:
        return found[0]
    said = f"{name!r} begins {len(found)} causes" if found else f"no row failed for {name!r}"
    raise RefusedError(said, f"causes here: {', '.join(found or causes) or 'none'}")


def positions_of(reader: Reader, rows: str) -> tuple[int, ...]:
    """The places in the input of the rows that a file names, or a list of ids and lines with commas.

    A file has one row a line: an id, a line number, or a JSON object such as those of an errors file. Raises
    RefusedError where a row is not found or none is named.
    """
    names = list(_names_in(Path(rows), reader)) if Path(rows).is_file() else [each.strip() for each in rows.split(",")]
    found = {record_of(reader, name).position for name in names if name}
    if not found:
        raise RefusedError(f"{rows} names no row", "give ids or lines: --rows r1,r2,17, or a file with one a line")
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
        raise RefusedError(f"{where}: not JSON ({error})", "one id, line number or JSON object a line") from error
    for column in columns:
        if isinstance(row.get(column), str | int):
            return str(row[column])
    if isinstance(row.get(RESERVED), dict) and "line" in row[RESERVED]:
        return str(row[RESERVED]["line"])
    raise RefusedError(f"{where}: names no row", "an object needs the run's id column, or `_batchrun` with its line")
