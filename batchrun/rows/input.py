"""An input that is open: what it is, and its rows as often as they are asked for."""

import math
import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from batchrun.display import printable
from batchrun.errors import InputError
from batchrun.models import Invalid, Kind, Row
from batchrun.rows import files
from batchrun.rows.check import RESERVED, Record
from batchrun.rows.columnar import read_arrow, read_parquet
from batchrun.rows.detect import BY_SUFFIX, DOCUMENTS, format_of, is_wrapped
from batchrun.rows.dialect import COMMAS, Table, csv_dialect, tsv_dialect
from batchrun.rows.extras import library
from batchrun.rows.jsons import read_array, read_jsonl, read_sequence
from batchrun.rows.kinds import NO_COLUMN, Identity, identity_of, is_note, list_in, pandas_orient
from batchrun.rows.remarks import Remarks
from batchrun.rows.source import Source, is_stream, recoded, regular, spooled, suffix_of, unpacked_name, with_line_feeds
from batchrun.rows.table import read_table, read_text
from batchrun.rows.workbook import read_excel

_LOOKED_AT = 100
_LOOKED_AT_MOST = 4_000_000
_LINES = frozenset({".jsonl", ".ndjson", ".jsonlines"})
"""Suffixes of files whose objects are rows, each on a line."""
_OF_JSON = frozenset({"jsonl", "json", "objects"})
_OF_TEXT = frozenset({*_OF_JSON, "csv", "tsv", "text", "files"})
_TABLES = frozenset(suffix for suffix, format in BY_SUFFIX.items() if format != "text")

Records = Callable[[], Iterator[Record | Invalid]]


class Refusal(NamedTuple):
    """Why a file is not read a line at a time, and what to do instead."""

    what: str
    hint: str


class Reading(NamedTuple):
    """How an input is to be read, where that is chosen.

    `encoding` of text, `sheet` of a workbook (a name, or a number from 1), `path` of the list of rows in a JSON object
    (`data.items`). `structured` tells of a file by its name and beginning whether its lines are no rows; `lines` reads
    them as rows all the same, and `whole` makes one row of a file of text. `is_sent` is set for a prompt that sends files:
    it tells of a file by its beginning whether it is one of those, which have rows without a text.
    """

    encoding: str | None = None
    sheet: str | None = None
    path: str | None = None
    lines: bool = False
    structured: Callable[[str, bytes], Refusal | None] = lambda _name, _head: None
    whole: bool = False
    is_sent: Callable[[bytes], bool] | None = None


class Place(NamedTuple):
    """What an input is called and where its format comes from; `where` names the place of a line of it."""

    format: str
    name: str
    stem: str
    size: int | None
    where: Callable[[int], str]
    table: Table = COMMAS


class Input:
    """One input. Iterating reads it from its beginning, each time anew, and holds no more than a record or two.

    `kind` is what the first valid record is; `format` one of jsonl, json, objects, csv, tsv, text, files, parquet,
    arrow, excel; `name` what messages call it, safe to show; `stem` the file's name without its suffixes, the beginning
    of a default output name; `columns` the members of the first 100 records in order of appearance; `size` the bytes on
    disk, None for several files; `id_column` the column that identifies the rows, None if that is their content;
    `wrapped` the list that looks like the rows, where the input is one object. `where` names the place of a line;
    `remarks` are those of the last reading.

    Iterating raises InputError where the rest cannot be read: a cut archive, an array or a quotation that is never
    closed, a file that changes meanwhile. A single bad record is an `Invalid`, one of another kind a `Mixed`.
    """

    row_size = 0
    """Characters of a record, on average of those at its beginning; 0 where that is not known."""
    table = COMMAS
    """How a CSV output of the rows is written: the delimiter and byte order mark of a CSV input."""

    def __init__(self, records: Records, look: "_Look", place: Place, remarks: Remarks) -> None:
        self._records = records
        self._identity = look.identity
        self.kind: Kind = look.identity.kind
        self.id_column: str | None = look.identity.id_column
        self.format = place.format
        self.name = place.name
        self.stem = place.stem
        self.size = place.size
        self.where = place.where
        self.table = place.table
        self.columns = tuple(look.columns)
        self.wrapped = look.wrapped
        self.row_size = look.size // look.seen
        self.remarks = remarks

    def __iter__(self) -> Iterator[Row | Invalid]:
        self.remarks.clear()
        row_of = self._identity.noting(self.remarks).row
        for record in self._records():
            if isinstance(record, Invalid):
                yield record
            elif (row := row_of(record)) is not None:
                yield row
                del row
            del record  # may be as large as the next one

    def head(self, n: int, room: float = math.inf) -> list[Row | Invalid]:
        """The first n rows and invalid records; fewer where these have more than `room` characters, but one."""
        found: list[Row | Invalid] = []
        for row in islice(self, n):
            found.append(row._replace(encoded=None) if isinstance(row, Row) else row)
            room -= len(row.text)
            if room <= 0:
                break
        return found


def open_input(
    source: str,
    *,
    id_column: str | None = None,
    has_prompt: bool,
    spool: Path | None = None,
    reading: Reading = Reading(),  # noqa: B008  a frozen value
) -> Input:
    """Open a file, a directory, a glob or a stream (`-`, a FIFO) and look at its beginning.

    `id_column` None takes `custom_id` or `id` if the first valid record has one, "none" none, another name that
    column. A stream is read to its end into `spool` first (None: a temporary file). Raises InputError with one plain
    line for what cannot be an input, an empty one too.
    """
    remarks = Remarks()
    place, records = _resolve(source, spool, reading, remarks)
    _refuse_unfit(reading, place)
    look = _Look(id_column, has_prompt=has_prompt, json=place.format in _OF_JSON)
    for record in records():
        if look.enough(record):
            break
    if not look.seen:
        raise InputError(f"{place.name} has no rows.")
    if id_column is not None and id_column != NO_COLUMN:
        look.refuse_missing(id_column, place.name)
    if place.format in _OF_JSON and look.alone is not None:
        look.look_inside(place)
    return Input(records, look, place, remarks)


class _Look:
    """What the beginning of an input says. It ends after 100 records, or 4 million characters of at least two of them,
    but not before a valid one.

    `alone` are the fields of the only record, None where there are more; `wrapped` is the list of objects in it.
    """

    def __init__(self, id_column: str | None, *, has_prompt: bool, json: bool) -> None:
        self._decide = partial(identity_of, id_column=id_column, has_prompt=has_prompt, json=json)
        self._decided = False
        named = None if id_column == NO_COLUMN else id_column
        self.identity = Identity(Kind.ROWS, named, 1, has_prompt, json)
        self.columns: dict[str, None] = {}
        self.seen = 0
        self.size = 0
        self.alone: dict[str, object] | None = None
        self.wrapped: str | None = None

    def enough(self, record: Record | Invalid) -> bool:
        """Take one record in; whether no more are needed."""
        self.size += len(record[1])
        if isinstance(record, Invalid):
            self.seen += 1
        elif not (RESERVED in record[2] and is_note(record[2])):
            self.seen += 1
            if not self._decided:
                self.identity, self._decided = self._decide(record), True
            self.columns.update((name, None) for name in record[2] if name != RESERVED)
            self.alone = record[2] if self.seen == 1 else None
        if self.seen > 1:
            self.alone = None
        many = self.seen >= _LOOKED_AT or (self.seen > 1 and self.size >= _LOOKED_AT_MOST)
        return self._decided and many

    def refuse_missing(self, column: str, name: str) -> None:
        """Raises InputError if no record has the column that was asked for."""
        if self._decided and column not in self.columns:
            raise InputError(
                f'{name} has no column "{printable(column, 60)}" to identify its rows by.',
                f"Its columns are {printable(', '.join(self.columns), 200)}.",
            )

    def look_inside(self, place: Place) -> None:
        """Note the list in the only record, unless it is one by its name. Raises InputError where the record is a whole pandas table."""
        assert self.alone is not None
        if (orient := pandas_orient(self.alone)) is not None:
            raise InputError(
                f'{place.name} is one object that holds a whole table, as pandas writes it with orient="{orient}".',
                'Write a row a line: df.to_json("rows.jsonl", orient="records", lines=True).',
            )
        if suffix_of(place.name) not in _LINES:
            self.wrapped = list_in(self.alone)


def _resolve(source: str, spool: Path | None, reading: Reading, remarks: Remarks) -> tuple[Place, Records]:
    if not source:
        raise InputError("The input has no name.", "Name a file, a directory, a glob, or - for stdin.")
    if is_stream(source):
        return _file(spooled(source, spool), "stdin", reading, remarks)
    path = Path(os.path.expanduser(source))
    name = printable(source)
    if os.path.isdir(path):
        return _files(files.in_directory(path), name, path.resolve().name, reading, remarks)
    if files.is_glob(source) and not os.path.lexists(path):
        return _files(files.matching(str(path)), name, "files", reading, remarks)
    return _file(regular(path, name), path.name, reading, remarks)


def _files(
    found: list[tuple[str, Path]], name: str, stem: str, reading: Reading, remarks: Remarks
) -> tuple[Place, Records]:
    """Several files: one input where all hold rows of one kind, else a row for each."""
    if shards := files.files_of_rows(found):
        opened = [_file(regular(path, printable(label)), path.name, reading, remarks) for label, path in shards]
        formats = {place.format for place, _ in opened}
        if len(formats) == 1 and formats.isdisjoint(("text", "files", "objects")) and not _documents(shards, formats):
            together = _Together(opened, remarks)
            first = opened[0][0]
            return Place(first.format, name, stem or "files", None, together.where, first.table), together.records
    elif not reading.lines and (mixed := files.among_others(found)) is not None:
        one, other = (printable(label, 60) for label in mixed)
        raise InputError(
            f"{name} has files of rows ({one}) among others ({other}).",
            f"Name the files of rows alone, by a pattern such as '**/*{suffix_of(mixed[0])}'; with --yes each file is a row.",
        )
    labels = [label for label, _ in found]

    def where(number: int) -> str:
        return printable(labels[number - 1], 100) if 0 < number <= len(labels) else f"file {number}"

    records = partial(files.read_files, found, reading.encoding, sent=reading.is_sent is not None)
    return Place("files", name, stem or "files", None, where), records


def _documents(shards: Sequence[tuple[str, Path]], formats: set[str]) -> bool:
    """Whether JSON files hold one object each: such a file is a document, not a list of rows."""
    if "jsonl" not in formats or any(suffix_of(label) != files.NEEDS_CONTENT for label, _ in shards):
        return False
    return not all(b"\n{" in regular(path, label).head() for label, path in shards)


class _Together:
    """Files of rows of one kind as one input, in order; a line is counted over all of them."""

    def __init__(self, opened: Sequence[tuple[Place, Records]], remarks: Remarks) -> None:
        self._opened = opened
        self._remarks = remarks
        self._ends: list[int] = []

    def records(self) -> Iterator[Record | Invalid]:
        """Those of each file. Raises InputError where a table has other columns than the first one."""
        self._ends = []
        columns: tuple[str, tuple[str, ...]] | None = None
        last = 0
        for place, records in self._opened:
            self._remarks.offset = before = last
            table = place.format in ("csv", "tsv")
            for record in records():
                last = before + record[0]
                if isinstance(record, Invalid):
                    yield Invalid(last, record.text, record.reason)
                    continue
                if table:
                    table = False
                    columns = columns or (place.name, tuple(record[2]))
                    _refuse_other(columns, place.name, tuple(record[2]))
                yield last, record[1], record[2]
            self._ends.append(last)

    def where(self, line: int) -> str:
        """The file and the line in it."""
        at = min(bisect_left(self._ends, line), len(self._opened) - 1)
        before = self._ends[at - 1] if at and self._ends else 0
        return f"{self._opened[at][0].name}, line {line - before}"


def _refuse_other(first: tuple[str, tuple[str, ...]], name: str, columns: tuple[str, ...]) -> None:
    if columns != first[1]:
        raise InputError(
            f"{name} has other columns ({printable(', '.join(columns), 100)}) than {first[0]} "
            f"({printable(', '.join(first[1]), 100)}).",
            "Files of one input have equal headers; name these files one by one.",
        )


def _file(source: Source, file_name: str, reading: Reading, remarks: Remarks) -> tuple[Place, Records]:
    if reading.is_sent is not None and reading.is_sent(source.head()):
        records = partial(files.read_files, [(source.name, source.path)], None, sent=True)
        stem = Path(file_name).stem
        return Place("files", source.name, stem, source.size, partial(_only_file, source.name)), records
    format = "json" if reading.path else format_of(source, decoded=reading.encoding is not None)
    stem = Path(unpacked_name(file_name)).stem
    if format in DOCUMENTS or (reading.whole and format == "text"):
        if format == "pdf":
            library("pdf")
        records = partial(files.read_files, [(source.name, source.path)], reading.encoding)
        return Place("files", source.name, stem, source.size, partial(_only_file, source.name)), records
    table, records = _reader(source, format, reading, remarks)
    return Place(format, source.name, stem, source.size, "line {}".format, table), records


def _only_file(name: str, _line: int) -> str:
    return name


def _reader(source: Source, format: str, reading: Reading, remarks: Remarks) -> tuple[Table, Records]:
    """How the records of a format are read from a source, and how it is written where it is CSV."""
    if format in ("parquet", "arrow", "excel"):
        library(format)
        if format == "excel":
            return COMMAS, lambda: read_excel(source, reading.sheet, remarks)
        read_columns = read_parquet if format == "parquet" else read_arrow
        return COMMAS, lambda: read_columns(source, remarks)

    def chunks() -> Iterator[bytes]:
        data = recoded(source.chunks(), reading.encoding, source.name) if reading.encoding else source.chunks()
        return with_line_feeds(data)

    head = next((piece for piece in chunks() if piece.strip()), b"")
    if not reading.lines:
        _refuse_structured(source, format, head, reading)
    if format in ("csv", "tsv"):
        dialect = csv_dialect(head.decode(errors="replace"), source.name, "\t" if format == "tsv" else None)
        if dialect.delimiter == "\t":
            dialect = tsv_dialect(chunks, source.name, dialect.skip)
        return Table.of(dialect, head), lambda: read_table(chunks(), dialect, source.name, remarks)
    if format == "json":
        return COMMAS, lambda: read_array(chunks(), source.name, reading.path, remarks)
    if format == "objects":
        return COMMAS, lambda: read_sequence(chunks(), source.name, remarks)
    return COMMAS, (lambda: read_jsonl(chunks(), remarks)) if format == "jsonl" else (lambda: read_text(chunks()))


def _refuse_structured(source: Source, format: str, head: bytes, reading: Reading) -> None:
    """Raises InputError for a file whose lines are no rows."""
    if source.suffix in _TABLES or (not source.suffix and format in _OF_JSON):
        return
    found = reading.structured(source.path.name if source.suffix else "", head[: 64 * 1024])
    if found is None and format == "text" and is_wrapped(head.decode(errors="replace")):
        found = Refusal(
            "text in paragraphs whose sentences continue on the next line",
            "With an output of its kind (-o NAME.txt) each paragraph is a row, and the text comes back whole.",
        )
    if found is not None:
        ways = f"With --yes each line is a row all the same; a directory or a pattern ('*{source.suffix or '.txt'}') sends whole files."
        raise InputError(f"{source.name} is {found.what}: its lines are no rows.", f"{found.hint} {ways}".strip())


def _refuse_unfit(reading: Reading, place: Place) -> None:
    """Raises InputError for an option that the format has no use for."""
    if reading.sheet is not None and place.format != "excel":
        raise InputError(f"--sheet is for Excel workbooks, and {place.name} is none.", "Leave it out.")
    if reading.encoding is not None and place.format not in _OF_TEXT:
        raise InputError(f"--encoding is for text, and {place.name} is none.", "Leave it out.")
