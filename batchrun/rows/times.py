"""Dates and times as the numbers that Parquet and Arrow hold, written as ISO 8601 text, cut to microseconds.

Python's own types have no nanoseconds, no year 0 and no infinity. A year beyond 0001 to 9999 has a sign and at least
four digits (ISO 8601-1, expanded representation); the largest and smallest values are DuckDB's and PostgreSQL's
`infinity` and `-infinity`.
"""

import datetime
import re
import struct
import zoneinfo

PER_SECOND = {"s": 1, "ms": 1000, "us": 1_000_000, "ns": 1_000_000_000}
"""Ticks of each of Arrow's units."""
_EPOCH = datetime.datetime(1970, 1, 1)
_SPAN = (datetime.datetime.min - _EPOCH).days, (datetime.datetime.max - _EPOCH).days
_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)")
_INFINITE = {2**63 - 1: "infinity", -(2**63 - 1): "-infinity", -(2**63): "-infinity"}
_INFINITE_DAYS = {2**31 - 1: "infinity", -(2**31 - 1): "-infinity", -(2**31): "-infinity"}


def zone_of(name: str) -> datetime.tzinfo:
    """The zone of an Arrow type: an offset or a name of the tz database."""
    if found := _OFFSET.fullmatch(name):
        minutes = int(found[2]) * 60 + int(found[3])
        return datetime.timezone(datetime.timedelta(minutes=-minutes if found[1] == "-" else minutes))
    return datetime.UTC if name.upper() in ("UTC", "Z", "GMT") else zoneinfo.ZoneInfo(name)


def timestamp(value: int, unit: str, zone: datetime.tzinfo | None) -> str:
    """A moment, counted from 1970 UTC in `unit`; with an offset where it has a zone."""
    if value in _INFINITE:
        return _INFINITE[value]
    micros = value * 1_000_000 // PER_SECOND[unit]
    days, rest = divmod(micros, 86_400_000_000)
    if _SPAN[0] < days < _SPAN[1]:
        moment = _EPOCH + datetime.timedelta(microseconds=micros)
        return moment.isoformat() if zone is None else moment.replace(tzinfo=datetime.UTC).astimezone(zone).isoformat()
    return f"{day(days)}T{clock(rest)}{'' if zone is None else '+00:00'}"


def day(days: int) -> str:
    """A day, counted from 1970, in the proleptic Gregorian calendar. Source: howardhinnant.github.io/date_algorithms.html,
    civil_from_days."""
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
    """A day that is counted in milliseconds."""
    return day(value // 86_400_000)


def time_of_day(value: int, unit: str) -> str:
    """A time of day, counted in `unit`."""
    return clock(value * 1_000_000 // PER_SECOND[unit])


def seconds(value: int, unit: str) -> float:
    """A duration in seconds, counted in `unit`."""
    return value / PER_SECOND[unit]


def clock(micros: int) -> str:
    """A time of day in microseconds."""
    seconds, rest = divmod(micros, 1_000_000)
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}" + (f".{rest:06d}" if rest else "")


def parquet_interval(value: bytes) -> str:
    """Parquet's INTERVAL: months, days and milliseconds, each in four bytes, low byte first (parquet-format,
    LogicalTypes.md)."""
    months, days, millis = struct.unpack("<III", value)
    return interval(months, days, millis / 1000)


def arrow_interval(value: tuple[int, int, int]) -> str:
    """Arrow's interval: months, days and nanoseconds."""
    return interval(value[0], value[1], value[2] / 1e9)


def interval(months: int, days: int, seconds: float) -> str:
    """A period as ISO 8601 writes it: `P1M2DT3.5S`."""
    date = "".join(f"{number}{unit}" for number, unit in ((months, "M"), (days, "D")) if number)
    time = f"T{seconds:.9f}".rstrip("0").rstrip(".") + "S" if seconds or not date else ""
    return f"P{date}{time}"
