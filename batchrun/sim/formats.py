"""Formats of time spans, dates and texts."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any


class Span(float):
    """Seconds that a template writes in a named form, such as `{reset:go}`."""

    __slots__ = ("epoch",)

    def __new__(cls, seconds: float, epoch: float) -> "Span":
        self = super().__new__(cls, seconds)
        self.epoch = epoch
        return self

    def __format__(self, form: str) -> str:
        write = _FORMS.get(form)
        return write(self, self.epoch) if write else super().__format__(form)


def go_duration(seconds: float) -> str:
    """Rounded up to a millisecond: `12ms`, `1.5s`, `6m0s`."""
    millis = rounded_up(seconds * 1000)
    if millis < 1000:
        return f"{millis}ms" if millis > 0 else "0s"
    minutes, millis = divmod(millis, 60_000)
    whole, part = divmod(millis, 1000)
    text = f"{whole}.{part:03d}".rstrip("0") if part else f"{whole}"
    if minutes < 60:
        return f"{minutes}m{text}s" if minutes else f"{text}s"
    return f"{minutes // 60}h{minutes % 60}m{text}s"


def rounded_up(number: float) -> int:
    return math.ceil(number - 1e-6)


def plain(number: float) -> str:
    """`0.00001`, where `str` writes `1e-05`."""
    return f"{number:.9f}".rstrip("0").rstrip(".")


def http_date(epoch: float) -> str:
    """RFC 9110, section 5.6.7."""
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(epoch))


def filled(value: Any, context: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        return value.format_map(context) if "{" in value else value
    if isinstance(value, list):
        return [filled(each, context) for each in value]  # pyright: ignore[reportUnknownVariableType]  # any JSON
    if isinstance(value, dict):
        return {name: filled(each, context) for name, each in value.items()}  # pyright: ignore[reportUnknownVariableType]  # any JSON
    return value


_FORMS: dict[str, Callable[[float, float], str]] = {
    "go": lambda seconds, _: go_duration(seconds),
    "s": lambda seconds, _: str(rounded_up(seconds)),
    "floor": lambda seconds, _: str(math.floor(seconds)),
    "ms": lambda seconds, _: str(rounded_up(seconds * 1000)),
    "rfc3339": lambda seconds, epoch: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(rounded_up(epoch + seconds))),
    "unix": lambda seconds, epoch: str(rounded_up(epoch + seconds)),
    "unixms": lambda seconds, epoch: str(rounded_up((epoch + seconds) * 1000)),
    "date": lambda seconds, epoch: http_date(rounded_up(epoch + seconds)),
}
