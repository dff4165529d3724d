"""Parquet and Excel, read with the extra `data` (pyarrow, openpyxl), which is imported only here and only when used.

What JSON has no type for becomes: dates and times ISO 8601 text, decimals their digits as text, durations seconds,
bytes their text if they are UTF-8 and else base64, NaN and infinity null.
"""

import base64
import datetime
import importlib
import json
import math
import warnings
import zipfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast
from xml.etree.ElementTree import ParseError

from batchrun.errors import InputError, RefusedError
from batchrun.models import Invalid
from batchrun.rows.check import Record, encodable, encode, invalid
from batchrun.rows.source import Source, refuse_bomb, translated
from batchrun.rows.table import refuse_header

_BATCH = 1000
_AS_IT_IS = frozenset({str, int, bool, type(None)})
_FOREIGN = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    ParseError,
)
_MODULES = {"parquet": "pyarrow.parquet", "excel": "openpyxl", "arrow": "pyarrow"}


def library(format: str) -> Any:
    """The module that reads and writes a format. Raises RefusedError with the command that installs it."""
    try:
        return importlib.import_module(_MODULES[format])
    except ImportError as error:
        raise RefusedError(
            f'{format.capitalize()} files need the extra "data", which is not installed.',
            'pip install "batchrun[data]"',
        ) from error


def read_parquet(source: Source) -> Iterator[Record | Invalid]:
    """A record per row of the file, numbered from 1."""
    parquet = library("parquet")
    number = 0
    with _explained(source.name, "a Parquet file"), parquet.ParquetFile(source.path, pre_buffer=False) as file:
        refuse_header(file.schema_arrow.names, source.name)
        for batch in file.iter_batches(batch_size=_BATCH, use_threads=False):
            for values in _whole_microseconds(batch).to_pylist():
                number += 1
                yield _record(number, values)
    source.refuse_change()


def read_excel(source: Source) -> Iterator[Record | Invalid]:
    """A record per row of the first sheet that is not blank; its line is the row number of the sheet."""
    openpyxl = library("excel")
    _refuse_packed_bomb(source)
    with _explained(source.name, "an Excel workbook"), source.path.open("rb") as file:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        yield from _sheet(book.worksheets[0].iter_rows(values_only=True), source.name)
    source.refuse_change()


def plain(value: object) -> Any:
    """The value in types that JSON has."""
    if type(value) in _AS_IT_IS:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in cast("Sequence[object]", value)]
    return _scalar(value)


def _scalar(value: object) -> str | float:
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    return _bytes_text(value) if isinstance(value, bytes) else str(value)


def _bytes_text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def _record(number: int, values: Mapping[str, object]) -> Record | Invalid:
    try:
        fields = {name: plain(value) for name, value in values.items()}
        text = encode(fields)
    except (ValueError, RecursionError):
        return invalid(number, repr(dict(values)), "a value that JSON cannot hold")
    if encodable(text):
        return number, text, fields
    return invalid(number, json.dumps(fields), "a lone surrogate cannot be stored")


def _sheet(rows: Iterator[tuple[object, ...]], name: str) -> Iterator[Record | Invalid]:
    header: list[str] | None = None
    for number, cells in enumerate(rows, 1):
        values = _trimmed(cells)
        if header is None:
            header = ["" if cell is None else str(cell).strip() for cell in values] or None
            refuse_header(header or (), name)
        elif len(values) > len(header):
            text = encode([plain(value) for value in values])
            yield invalid(number, text, f"{len(values)} cells where the header has {len(header)}")
        elif values:
            missing = [None] * (len(header) - len(values))
            yield _record(number, dict(zip(header, [*values, *missing], strict=True)))


def _trimmed(cells: Sequence[object]) -> Sequence[object]:
    """Sheets are as wide as their widest row: empty cells at the end are none."""
    end = len(cells)
    while end and cells[end - 1] is None:
        end -= 1
    return cells[:end]


def _whole_microseconds(batch: Any) -> Any:
    """Python's datetime has no nanoseconds, so they are cut off."""
    pyarrow = library("arrow")
    schema = batch.schema
    for index, column in enumerate(schema):
        if pyarrow.types.is_timestamp(column.type) and column.type.unit == "ns":
            schema = schema.set(index, column.with_type(pyarrow.timestamp("us", column.type.tz)))
    return batch if schema is batch.schema else batch.cast(schema, safe=False)


def _refuse_packed_bomb(source: Source) -> None:
    with _explained(source.name, "an Excel workbook"), zipfile.ZipFile(source.path) as archive:
        refuse_bomb(sum(entry.file_size for entry in archive.infolist()), source.size, source.name)


@contextmanager
def _explained(name: str, what: str) -> Generator[None]:
    """What the libraries raise about a file that is not what it seems, as InputError."""
    with translated(name):
        try:
            yield
        except _FOREIGN as error:
            raise InputError(f"{name} cannot be read as {what}: {error}.") from error
