"""Parquet, Arrow and Feather (extra `data`, pyarrow).

Dates and times are read as stored numbers, because Python's types have no nanoseconds, year 0 or infinity, and written
as ISO 8601 in microseconds.
"""

import base64
import datetime
import re
import struct
import zoneinfo
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

from batchrun.display import printable
from batchrun.errors import InputError
from batchrun.models import Invalid
from batchrun.rows.check import Record, Remarks
from batchrun.rows.extras import explained, library, record
from batchrun.rows.source import Source

PER_SECOND = {"s": 1, "ms": 1000, "us": 1_000_000, "ns": 1_000_000_000}
_EPOCH = datetime.datetime(1970, 1, 1)
_SPAN = (datetime.datetime.min - _EPOCH).days, (datetime.datetime.max - _EPOCH).days
_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)")
_INFINITE = {2**63 - 1: "infinity", -(2**63 - 1): "-infinity", -(2**63): "-infinity"}
_INFINITE_DAYS = {2**31 - 1: "infinity", -(2**31 - 1): "-infinity", -(2**31): "-infinity"}


def zone_of(name: str) -> datetime.tzinfo:
    """An offset or a tz name."""
    if found := _OFFSET.fullmatch(name):
        minutes = int(found[2]) * 60 + int(found[3])
        return datetime.timezone(datetime.timedelta(minutes=-minutes if found[1] == "-" else minutes))
    return datetime.UTC if name.upper() in ("UTC", "Z", "GMT") else zoneinfo.ZoneInfo(name)


def timestamp(value: int, unit: str, zone: datetime.tzinfo | None) -> str:
    """`value`: since 1970 UTC."""
    if value in _INFINITE:
        return _INFINITE[value]
    micros = value * 1_000_000 // PER_SECOND[unit]
    days, rest = divmod(micros, 86_400_000_000)
    if _SPAN[0] < days < _SPAN[1]:
        found = _EPOCH + datetime.timedelta(microseconds=micros)
        return found.isoformat() if zone is None else found.replace(tzinfo=datetime.UTC).astimezone(zone).isoformat()
    return f"{day(days)}T{clock(rest)}{'' if zone is None else '+00:00'}"


def day(days: int) -> str:
    """Days since 1970 (howardhinnant.github.io/date_algorithms.html, civil_from_days)."""
    if days in _INFINITE_DAYS:
        return _INFINITE_DAYS[days]
    if _SPAN[0] < days < _SPAN[1]:
        return (_EPOCH + datetime.timedelta(days=days)).date().isoformat()
    era, of_era = divmod(days + 719_468, 146_097)
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month += 3 if month < 10 else -9
    year += era * 400 + (month <= 2)
    return f"{'-' if year < 0 else '+' if year > 9999 else ''}{abs(year):04d}-{month:02d}-{day:02d}"


def day_of_milliseconds(value: int) -> str:
    return day(value // 86_400_000)


def time_of_day(value: int, unit: str) -> str:
    return clock(value * 1_000_000 // PER_SECOND[unit])


def seconds(value: int, unit: str) -> float:
    return value / PER_SECOND[unit]


def clock(micros: int) -> str:
    """A time of day in microseconds."""
    seconds, rest = divmod(micros, 1_000_000)
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}" + (f".{rest:06d}" if rest else "")


def parquet_interval(value: bytes) -> str:
    """Months, days, milliseconds as little-endian uint32 (parquet-format, LogicalTypes.md, INTERVAL)."""
    months, days, millis = struct.unpack("<III", value)
    return interval(months, days, millis / 1000)


def arrow_interval(value: tuple[int, int, int]) -> str:
    """Months, days and nanoseconds."""
    return interval(value[0], value[1], value[2] / 1e9)


def interval(months: int, days: int, seconds: float) -> str:
    """Such as `P1M2DT3.5S`."""
    date = "".join(f"{number}{unit}" for number, unit in ((months, "M"), (days, "D")) if number)
    time = f"T{seconds:.9f}".rstrip("0").rstrip(".") + "S" if seconds or not date else ""
    return f"P{date}{time}"


_BATCH = 1000

Value = Callable[[Any], Any]


def read_parquet(source: Source, remarks: Remarks) -> Iterator[Record | Invalid]:
    parquet = library("parquet")
    with explained(source.name, "a Parquet file"), parquet.ParquetFile(source.path, pre_buffer=False) as file:
        groups = file.schema
        intervals = {
            groups.column(at).path
            for at in range(len(groups))
            if groups.column(at).converted_type == "INTERVAL" and groups.column(at).length == 12
        }

        def batches(columns: list[str] | None = None) -> Iterator[Any]:
            return file.iter_batches(batch_size=_BATCH, use_threads=False, columns=columns)

        yield from _records(file.schema_arrow, batches, source.name, remarks, intervals)
    source.refuse_change()


def read_arrow(source: Source, remarks: Remarks) -> Iterator[Record | Invalid]:
    pyarrow = library("arrow")
    ipc = library("ipc")
    with explained(source.name, "an Arrow file"), ExitStack() as files:
        stream = files.enter_context(pyarrow.memory_map(str(source.path)))
        with source.path.open("rb") as raw:
            start = raw.read(6)

        def batches(columns: list[str] | None = None) -> Iterator[Any]:
            stream.seek(0)
            if start.startswith(b"ARROW1"):
                found = ipc.open_file(stream)
                whole = (found.get_batch(at) for at in range(found.num_record_batches))
            else:
                whole = iter(ipc.open_stream(stream))
            for batch in whole:
                part = batch if columns is None else batch.select(columns)
                yield from (part.slice(at, _BATCH) for at in range(0, part.num_rows, _BATCH))

        opened = ipc.open_file(stream) if start.startswith(b"ARROW1") else ipc.open_stream(stream)
        yield from _records(opened.schema, batches, source.name, remarks, set())
    source.refuse_change()


def _records(
    schema: Any, batches: Callable[..., Iterator[Any]], name: str, remarks: Remarks, intervals: set[str]
) -> Iterator[Record | Invalid]:
    # `intervals`: Parquet's INTERVAL columns, 12 bytes in Arrow
    names: list[str] = schema.names
    double = next((column for at, column in enumerate(names) if column in names[:at]), None)
    if double is not None:
        raise InputError(
            f'{name} has the column "{printable(double, 60)}" twice.', "Give each column a name of its own."
        )
    types = [_stored(field.type, field.name, intervals) for field in schema]
    kinds = library("arrow").types
    are_bytes = (kinds.is_binary, kinds.is_large_binary, kinds.is_fixed_size_binary)
    for at, field in enumerate(schema):
        if types[at] is _UNCHANGED and any(is_kind(field.type) for is_kind in are_bytes):
            types[at] = _Stored(None, _bytes_value(field.name, batches, remarks))
    number = 0

    def encoded() -> None:
        remarks.add("bytes that are not UTF-8 text are written as base64", number)

    for batch in batches():
        columns = [
            (batch.column(at) if stored.type is None else batch.column(at).cast(stored.type)).to_pylist()
            for at, stored in enumerate(types)
        ]
        for row in zip(*columns, strict=True):
            number += 1
            cells = zip(names, row, types, strict=True)
            yield record(
                number,
                {column: value if of.read is None or value is None else of.read(value) for column, value, of in cells},
                encoded,
            )


class _Stored(NamedTuple):
    type: Any  # to cast a column to
    read: Value | None


_UNCHANGED = _Stored(None, None)


def _stored(type: Any, path: str, intervals: set[str]) -> _Stored:
    kinds = library("arrow").types
    if path in intervals:
        return _Stored(None, parquet_interval)
    for is_kind, make in (
        (kinds.is_temporal, _temporal),
        (kinds.is_struct, _struct),
        (kinds.is_map, _map),
        (kinds.is_dictionary, _dictionary),
        (kinds.is_list, _list),
        (kinds.is_large_list, _list),
        (kinds.is_fixed_size_list, _list),
    ):
        if is_kind(type):
            return make(type, path, intervals)
    return _UNCHANGED


def _temporal(type: Any, *_: Any) -> _Stored:
    pyarrow = library("arrow")
    kinds = pyarrow.types
    if kinds.is_interval(type):
        return _Stored(None, arrow_interval)
    if kinds.is_date32(type):
        return _Stored(pyarrow.int32(), day)
    if kinds.is_date(type):
        return _Stored(pyarrow.int64(), day_of_milliseconds)
    if kinds.is_time(type):
        whole = pyarrow.int32() if kinds.is_time32(type) else pyarrow.int64()
        return _Stored(whole, partial(time_of_day, unit=type.unit))
    if kinds.is_duration(type):
        return _Stored(pyarrow.int64(), partial(seconds, unit=type.unit))
    zone = None if type.tz is None else zone_of(type.tz)
    return _Stored(pyarrow.int64(), partial(timestamp, unit=type.unit, zone=zone))


def _struct(type: Any, path: str, intervals: set[str]) -> _Stored:
    inner = {field.name: _stored(field.type, f"{path}.{field.name}", intervals) for field in type}
    if all(stored is _UNCHANGED for stored in inner.values()):
        return _UNCHANGED
    fields = [field if (of := inner[field.name]).type is None else field.with_type(of.type) for field in type]

    def read(value: dict[str, Any]) -> dict[str, Any]:
        return {name: _read(stored, value[name]) for name, stored in inner.items()}

    return _Stored(library("arrow").struct(fields), read)


def _map(type: Any, path: str, intervals: set[str]) -> _Stored:
    key = _stored(type.key_type, f"{path}.key_value.key", intervals)
    item = _stored(type.item_type, f"{path}.key_value.value", intervals)
    if key is _UNCHANGED and item is _UNCHANGED:
        return _UNCHANGED

    def read(value: list[tuple[Any, Any]]) -> list[list[Any]]:
        return [[_read(key, one), _read(item, other)] for one, other in value]

    return _Stored(library("arrow").map_(key.type or type.key_type, item.type or type.item_type), read)


def _dictionary(type: Any, path: str, intervals: set[str]) -> _Stored:
    value = _stored(type.value_type, path, intervals)
    return value if value is _UNCHANGED else _Stored(value.type or type.value_type, value.read)


def _list(type: Any, path: str, intervals: set[str]) -> _Stored:
    pyarrow = library("arrow")
    item = _stored(type.value_type, f"{path}.list.element", intervals)
    if item is _UNCHANGED:
        return _UNCHANGED

    def read(value: list[Any]) -> list[Any]:
        return [_read(item, one) for one in value]

    if item.type is None:
        return _Stored(None, read)
    if pyarrow.types.is_fixed_size_list(type):
        return _Stored(pyarrow.list_(item.type, type.list_size), read)
    return _Stored((pyarrow.large_list if pyarrow.types.is_large_list(type) else pyarrow.list_)(item.type), read)


def _text_or_base64(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return _base64(value)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _read(stored: _Stored, value: Any) -> Any:
    return value if value is None or stored.read is None else stored.read(value)


def _bytes_value(column: str, batches: Callable[..., Iterator[Any]], remarks: Remarks) -> Value:
    # text if all of a column is UTF-8, else base64
    pyarrow = library("arrow")
    try:
        for batch in batches([column]):
            if batch.schema.names != [column]:
                return _text_or_base64  # a name with dots, which pyarrow takes for a path
            batch.column(0).cast(pyarrow.large_binary()).cast(pyarrow.large_string())
    except pyarrow.ArrowInvalid:
        remarks.add(f"the column {printable(column, 60)} has bytes that are not UTF-8 text: it is written as base64")
        return _base64
    return bytes.decode
