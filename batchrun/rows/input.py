"""An input that is open: what it is, and its rows as often as they are asked for."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from batchrun.display import printable
from batchrun.errors import InputError
from batchrun.models import Invalid, Kind, Row
from batchrun.rows import files
from batchrun.rows.check import RESERVED, Record
from batchrun.rows.detect import format_of
from batchrun.rows.extras import library, read_excel, read_parquet
from batchrun.rows.jsons import read_array, read_jsonl
from batchrun.rows.kinds import NO_COLUMN, Identity, identity_of, is_note
from batchrun.rows.source import Source, is_stream, regular, spooled, unpacked_name
from batchrun.rows.table import delimiter_of, read_table, read_text

_LOOKED_AT = 100

Records = Callable[[], Iterator[Record | Invalid]]


class Place(NamedTuple):
    """What an input is called and where its format comes from."""

    format: str
    name: str
    stem: str
    size: int | None


class Input:
    """One input. Iterating reads it from its beginning, each time anew, and holds no more than a record or two.

    `kind` is what the first valid record is; `format` one of jsonl, json, csv, tsv, text, files, parquet, excel;
    `name` what messages call it, safe to show; `stem` the file's name without its suffixes, the beginning of a default
    output name; `columns` the members of the first 100 records in order of appearance; `size` the bytes on disk, None
    for several files; `id_column` the column that identifies the rows, None if that is their content.

    Iterating raises InputError where the rest cannot be read: a cut archive, an array or a quotation that is never
    closed, a file that changes meanwhile. A single bad record is an `Invalid`, one of another kind a `Mixed`.
    """

    def __init__(self, records: Records, identity: Identity, place: Place, columns: tuple[str, ...]) -> None:
        self._records = records
        self._identity = identity
        self.kind: Kind = identity.kind
        self.id_column: str | None = identity.id_column
        self.format = place.format
        self.name = place.name
        self.stem = place.stem
        self.size = place.size
        self.columns = columns

    def __iter__(self) -> Iterator[Row | Invalid]:
        row_of = self._identity.row
        for record in self._records():
            if isinstance(record, Invalid):
                yield record
            elif (row := row_of(record)) is not None:
                yield row

    def head(self, n: int) -> list[Row | Invalid]:
        """The first n rows and invalid records."""
        return list(islice(self, n))


def open_input(source: str, *, id_column: str | None = None, has_prompt: bool, spool: Path | None = None) -> Input:
    """Open a file, a directory, a glob or a stream (`-`, a FIFO) and look at its beginning.

    `id_column` None takes `custom_id` or `id` if the first valid record has one, "none" none, another name that
    column. A stream is read to its end into `spool` first (None: a temporary file). Raises InputError with one plain
    line for what cannot be an input, an empty one too.
    """
    place, records = _resolve(source, spool)
    look = _Look(id_column, has_prompt=has_prompt, json=place.format in ("jsonl", "json"))
    for record in records():
        if look.enough(record):
            break
    if not look.seen:
        raise InputError(f"{place.name} has no rows.")
    if id_column is not None and id_column != NO_COLUMN:
        look.refuse_missing(id_column, place.name)
    return Input(records, look.identity, place, tuple(look.columns))


class _Look:
    """What the beginning of an input says. It ends after 100 records, but not before a valid one."""

    def __init__(self, id_column: str | None, *, has_prompt: bool, json: bool) -> None:
        self._decide = partial(identity_of, id_column=id_column, has_prompt=has_prompt, json=json)
        self._decided = False
        named = None if id_column == NO_COLUMN else id_column
        self.identity = Identity(Kind.ROWS, named, 1, has_prompt, json)
        self.columns: dict[str, None] = {}
        self.seen = 0

    def enough(self, record: Record | Invalid) -> bool:
        """Take one record in; whether no more are needed."""
        if isinstance(record, Invalid):
            self.seen += 1
        elif not (RESERVED in record[2] and is_note(record[2])):
            self.seen += 1
            if not self._decided:
                self.identity, self._decided = self._decide(record), True
            self.columns.update((name, None) for name in record[2] if name != RESERVED)
        return self._decided and self.seen >= _LOOKED_AT

    def refuse_missing(self, column: str, name: str) -> None:
        """Raises InputError if no record has the column that was asked for."""
        if self._decided and column not in self.columns:
            raise InputError(
                f'{name} has no column "{printable(column, 60)}" to identify its rows by.',
                f"Its columns are {printable(', '.join(self.columns), 200)}.",
            )


def _resolve(source: str, spool: Path | None) -> tuple[Place, Records]:
    if not source:
        raise InputError("The input has no name.", "Name a file, a directory, a glob, or - for stdin.")
    if is_stream(source):
        return _file(spooled(source, spool), "stdin")
    path = Path(os.path.expanduser(source))
    name = printable(source)
    if os.path.isdir(path):
        return _files(files.in_directory(path), name, path.resolve().name)
    if files.is_glob(source) and not os.path.lexists(path):
        return _files(files.matching(str(path)), name, "files")
    return _file(regular(path, name), path.name)


def _files(found: list[tuple[str, Path]], name: str, stem: str) -> tuple[Place, Records]:
    return Place("files", name, stem or "files", None), lambda: files.read_files(found)


def _file(source: Source, file_name: str) -> tuple[Place, Records]:
    format = format_of(source)
    stem = Path(unpacked_name(file_name)).stem
    return Place(format, source.name, stem, source.size), _reader(source, format)


def _reader(source: Source, format: str) -> Records:
    """How the records of a format are read from a source."""
    if format in ("csv", "tsv"):
        delimiter = "\t" if format == "tsv" else delimiter_of(source.head().decode(errors="replace"))
        return lambda: read_table(source.chunks(), delimiter, source.name)
    if format in ("parquet", "excel"):
        library(format)
        read = read_parquet if format == "parquet" else read_excel
        return lambda: read(source)
    if format == "json":
        return lambda: read_array(source.chunks(), source.name)
    read_lines = read_jsonl if format == "jsonl" else read_text
    return lambda: read_lines(source.chunks())
