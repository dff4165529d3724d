"""An open input, whose rows can be read repeatedly."""

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
from batchrun.rows.check import RESERVED, Record, Remarks
from batchrun.rows.detect import BY_SUFFIX, DOCUMENTS, format_of, is_wrapped
from batchrun.rows.extras import library
from batchrun.rows.jsons import read_array, read_jsonl, read_sequence
from batchrun.rows.kinds import NO_COLUMN, Identity, identity_of, is_note, list_in, pandas_orient
from batchrun.rows.source import Source, is_stream, recoded, regular, spooled, suffix_of, unpacked_name, with_line_feeds
from batchrun.rows.table import COMMAS, Table, csv_dialect, read_table, read_text, tsv_dialect
from batchrun.rows.workbook import read_excel

_SAMPLE_ROWS = 100
_SAMPLE_CHARACTERS = 4_000_000
_LINES = frozenset({".jsonl", ".ndjson", ".jsonlines"})
_OF_JSON = frozenset({"jsonl", "json", "objects"})
_OF_TEXT = frozenset({*_OF_JSON, "csv", "tsv", "text", "files"})
_TABLES = frozenset(suffix for suffix, format in BY_SUFFIX.items() if format != "text")

Records = Callable[[], Iterator[Record | Invalid]]


class Refusal(NamedTuple):
    what: str
    hint: str


class Reading(NamedTuple):
    encoding: str | None = None
    sheet: str | None = None  # a name, or a number from 1
    path: str | None = None  # of the list of rows in a JSON object (`data.items`)
    lines: bool = False  # read a file's lines as rows even if `structured` refuses it
    structured: Callable[[str, bytes], Refusal | None] = lambda _name, _head: None
    whole: bool = False  # a text file is one row
    is_sent: Callable[[bytes], bool] | None = None  # set if the prompt sends files: whether one that begins so is sent


class Place(NamedTuple):
    format: str
    name: str
    stem: str
    size: int | None
    where: Callable[[int], str]  # formats a line's place
    table: Table = COMMAS


class Input:
    """Iterating raises InputError for a cut archive, an unclosed array or quotation, or a changed file."""

    table: Table = COMMAS  # how a CSV output is written

    def __init__(self, records: Records, sample: "_Sample", place: Place, remarks: Remarks) -> None:
        self._records = records
        self._identity = sample.identity
        self.kind: Kind = sample.identity.kind
        self.id_column: str | None = sample.identity.id_column  # None: identified by content
        self.format = place.format
        self.name = place.name  # safe to show
        self.stem = place.stem  # the file name without suffixes
        self.size = place.size  # bytes on disk, None for several files
        self.where = place.where
        self.table = place.table
        self.columns = tuple(sample.columns)  # of the first records, in order of appearance
        self.wrapped = sample.wrapped  # the path of the list that may be the rows of a single object
        self.remarks = remarks  # of the last reading

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
        """The first n rows, or fewer of `room` characters."""
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
    """`id_column` None means `custom_id` or `id`, "none" no column. A stream is copied to `spool`. Raises InputError."""
    remarks = Remarks()
    place, records = _resolve(source, spool, reading, remarks)
    if reading.sheet is not None and place.format != "excel":
        raise InputError(f"--sheet is for Excel workbooks, but {place.name} is not one.", "Omit --sheet.")
    if reading.encoding is not None and place.format not in _OF_TEXT:
        raise InputError(f"--encoding is for text, but {place.name} is not text.", "Omit --encoding.")
    sample = _Sample(id_column, has_prompt=has_prompt, json=place.format in _OF_JSON)
    for record in records():
        if sample.enough(record):
            break
    if not sample.seen:
        raise InputError(f"{place.name} has no rows.")
    if not has_prompt and place.format in _OF_JSON:
        sample.refuse_invalid(place)
    if id_column is not None and id_column != NO_COLUMN:
        sample.refuse_missing(id_column, place.name)
    if place.format in _OF_JSON and sample.alone is not None:
        sample.find_list(place)
    return Input(records, sample, place, remarks)


class _Sample:
    # the first 100 records or 4 million characters

    def __init__(self, id_column: str | None, *, has_prompt: bool, json: bool) -> None:
        self._decide = partial(identity_of, id_column=id_column, has_prompt=has_prompt, json=json)
        self._decided = False
        named = None if id_column == NO_COLUMN else id_column
        self.identity = Identity(Kind.ROWS, named, 1, has_prompt, json)
        self.columns: dict[str, None] = {}
        self.seen = 0
        self.size = 0
        self.alone: dict[str, object] | None = None  # the fields of the only record
        self.wrapped: str | None = None
        self.invalid: Invalid | None = None  # the first

    def enough(self, record: Record | Invalid) -> bool:
        """Adds a record; whether no more are needed."""
        self.size += len(record[1])
        if isinstance(record, Invalid):
            self.seen += 1
            self.invalid = self.invalid or record
        elif not (RESERVED in record[2] and is_note(record[2])):
            self.seen += 1
            if not self._decided:
                self.identity, self._decided = self._decide(record), True
            self.columns.update((name, None) for name in record[2] if name != RESERVED)
            self.alone = record[2] if self.seen == 1 else None
        if self.seen > 1:
            self.alone = None
        many = self.seen >= _SAMPLE_ROWS or (self.seen > 1 and self.size >= _SAMPLE_CHARACTERS)
        return self._decided and many

    def refuse_invalid(self, place: Place) -> None:
        """Raises InputError where nothing shows whether the lines were requests or rows for a prompt."""
        if not self._decided and self.invalid is not None:
            line, _, reason = self.invalid
            raise InputError(f"{place.name} has no valid row: {place.where(line)}: {reason}.", "Fix the lines.")

    def refuse_missing(self, column: str, name: str) -> None:
        if self._decided and column not in self.columns:
            raise InputError(
                f'{name} has no column "{printable(column, 60)}" to identify its rows by.',
                f"Its columns are {printable(', '.join(self.columns), 200)}.",
            )

    def find_list(self, place: Place) -> None:
        """Sets `wrapped`; raises InputError for a whole pandas table."""
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
        raise InputError("The name of the input is empty.", "State a file, a directory, a glob, or - for stdin.")
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
    if shards := files.files_of_rows(found):
        opened = [_file(regular(path, printable(label)), path.name, reading, remarks) for label, path in shards]
        formats = {place.format for place, _ in opened}
        if len(formats) == 1 and formats.isdisjoint(("text", "files", "objects")) and not _documents(shards, formats):
            together, first = _Shards(opened, remarks), opened[0][0]
            return Place(first.format, name, stem or "files", None, together.where, first.table), together.records
    elif not reading.lines and (mixed := files.among_others(found)) is not None:
        one, other = (printable(label, 60) for label in mixed)
        raise InputError(
            f"{name} has files of rows ({one}) among others ({other}).",
            f"Select only the files of rows, with a pattern such as '**/*{suffix_of(mixed[0])}'; with --yes each file is a row.",
        )
    labels = [label for label, _ in found]

    def where(number: int) -> str:
        return printable(labels[number - 1], 100) if 0 < number <= len(labels) else f"file {number}"

    records = partial(files.read_files, found, reading.encoding, sent=reading.is_sent is not None)
    return Place("files", name, stem or "files", None, where), records


def _documents(shards: Sequence[tuple[str, Path]], formats: set[str]) -> bool:
    # whether these are JSON files of one object each
    if "jsonl" not in formats or any(suffix_of(label) != files.NEEDS_CONTENT for label, _ in shards):
        return False
    return not all(b"\n{" in regular(path, label).head() for label, path in shards)


class _Shards:
    # files of rows as one input, with running line numbers

    def __init__(self, opened: Sequence[tuple[Place, Records]], remarks: Remarks) -> None:
        self._opened = opened
        self._remarks = remarks
        self._ends: list[int] = []

    def records(self) -> Iterator[Record | Invalid]:
        """Raises InputError if the columns of tables differ."""
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
        at = min(bisect_left(self._ends, line), len(self._opened) - 1)
        before = self._ends[at - 1] if at and self._ends else 0
        return f"{self._opened[at][0].name}, line {line - before}"


def _refuse_other(first: tuple[str, tuple[str, ...]], name: str, columns: tuple[str, ...]) -> None:
    if columns != first[1]:
        raise InputError(
            f"{name} has other columns ({printable(', '.join(columns), 100)}) than {first[0]} "
            f"({printable(', '.join(first[1]), 100)}).",
            "All files of one input need the same header; run these files separately.",
        )


def _file(source: Source, file_name: str, reading: Reading, remarks: Remarks) -> tuple[Place, Records]:
    def where(_line: int) -> str:
        return source.name

    if reading.is_sent is not None and reading.is_sent(source.head()):
        records = partial(files.read_files, [(source.name, source.path)], None, sent=True)
        stem = Path(file_name).stem
        return Place("files", source.name, stem, source.size, where), records
    format = "json" if reading.path else format_of(source, decoded=reading.encoding is not None)
    stem = Path(unpacked_name(file_name)).stem
    if format in DOCUMENTS or (reading.whole and format == "text"):
        if format == "pdf":
            library("pdf")
        records = partial(files.read_files, [(source.name, source.path)], reading.encoding)
        return Place("files", source.name, stem, source.size, where), records
    table, records = _reader(source, format, reading, remarks)
    return Place(format, source.name, stem, source.size, "line {}".format, table), records


def _reader(source: Source, format: str, reading: Reading, remarks: Remarks) -> tuple[Table, Records]:
    if format in ("parquet", "arrow", "excel"):
        library(format)
        if format == "excel":
            return COMMAS, lambda: read_excel(source, reading.sheet, remarks)
        from batchrun.rows.columnar import read_arrow, read_parquet  # noqa: PLC0415  only such an input pays for it

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
    if source.suffix in _TABLES or (not source.suffix and format in _OF_JSON):
        return
    found = reading.structured(source.path.name if source.suffix else "", head[: 64 * 1024])
    if found is None and format == "text" and is_wrapped(head.decode(errors="replace")):
        found = Refusal(
            "text in paragraphs whose sentences continue on the next line",
            "With -o NAME.txt each paragraph is a row, and the output is the whole text again.",
        )
    if found is not None:
        options = f"With --yes each line is a row anyway; a directory or a pattern ('*{source.suffix or '.txt'}') sends whole files."
        raise InputError(f"{source.name} is {found.what}: its lines are not rows.", f"{found.hint} {options}".strip())
