"""Durations (`1h30m`), times and sizes (`48MB`) as people write them."""

import contextlib
import datetime
import re

_UNITS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_PLAIN = re.compile(_NUMBER)
_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)")
_PARTS = re.compile("".join(rf"(?:{_NUMBER}{unit})?" for unit in _UNITS))
_CLOCK = re.compile(r"[0-9]{1,2}:[0-9]{2}")
_LONGEST = 10 * 365 * _UNITS["d"]


def parse_duration(value: object) -> float:
    """Returns seconds. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(_expected(value))
    seconds = _parse(value.strip().lower()) if isinstance(value, str) else float(value)
    if seconds is None:
        raise ValueError(_expected(value))
    if not 0 <= seconds <= _LONGEST:
        raise ValueError(f"must be between 0 and ten years, not {value}")
    return seconds


def parse_time(value: object) -> float:
    """Unix seconds for `07:00`, an ISO time, or `8h` from now. Raises ValueError."""
    text, now = str(value).strip(), datetime.datetime.now().astimezone()
    if _CLOCK.fullmatch(text):
        hour, minute = map(int, text.split(":"))
        if hour < 24 and minute < 60:
            time = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
            return (time if time > now else time + datetime.timedelta(days=1)).timestamp()
    with contextlib.suppress(ValueError):
        return now.timestamp() + parse_duration(text)
    with contextlib.suppress(ValueError):
        time = datetime.datetime.fromisoformat(text).astimezone()
        if "T" in text.upper() or " " in text:
            return time.timestamp()
    raise ValueError(f"must be a time such as 07:00, 2026-11-30T07:00 or 8h, not {value!r}")


def _parse(text: str) -> float | None:
    if _PLAIN.fullmatch(text):
        return float(text)
    match = _PARTS.fullmatch(text)
    if not text or match is None:
        return None
    return sum(float(number) * unit for number, unit in zip(match.groups(), _UNITS.values(), strict=True) if number)


def _expected(value: object) -> str:
    return f"must be a finite duration such as 90s, 10m or 1h30m, not {value!r}"


def parse_size(value: object) -> int:
    """Returns bytes. Raises ValueError."""
    found = _SIZE.fullmatch(str(value).strip().lower()) if isinstance(value, int | float | str) else None
    unit = None if found is None or isinstance(value, bool) else _BYTES.get(found[2])
    size = 0 if found is None or unit is None else int(float(found[1]) * unit)
    if size < 1:
        raise ValueError(f"must be a size such as 48MB, 500kB or 1GB, not {value!r}")
    return size
