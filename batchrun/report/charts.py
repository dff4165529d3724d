"""Line charts as the numbers that an SVG needs: paths, ticks and labels. Pure."""

import datetime
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from batchrun.report import words

WIDTH, HEIGHT = 720, 180
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 10, 24


class Tick(NamedTuple):
    """A label and where it stands."""

    at: float
    label: str


class Line(NamedTuple):
    """One line of a chart: its name, the `d` of its path, and its last value."""

    name: str
    path: str
    last: str


class Chart(NamedTuple):
    """A chart, ready to be drawn."""

    title: str
    lines: tuple[Line, ...]
    rows: tuple[Tick, ...]
    columns: tuple[Tick, ...]


Series = Sequence[tuple[float, float | None]]
"""Points of Unix time and value; None breaks the line."""


def chart(title: str, series: dict[str, Series], span: tuple[float, float] | None = None) -> Chart | None:
    """The chart of these lines over the `span` of time, else over their own; None where there is nothing to draw."""
    drawn = {name: points for name, points in series.items() if any(value is not None for _, value in points)}
    times = [at for points in drawn.values() for at, _ in points]
    if len(set(times)) < 2:
        return None
    start, end = (min(times), max(times)) if span is None else span
    most = _round_up(max(value for points in drawn.values() for _, value in points if value is not None))

    def x(at: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (at - start) / (end - start)

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * value / most

    lines = tuple(
        Line(
            name,
            _path((x(at), None if value is None else y(value)) for at, value in points),
            next((_label(value) for _, value in reversed(points) if value is not None), ""),
        )
        for name, points in drawn.items()
    )
    rows = tuple(Tick(y(most * part), _label(most * part)) for part in (0, 0.5, 1))
    columns = tuple(
        Tick(x(at), f"{datetime.datetime.fromtimestamp(at).astimezone():%H:%M:%S}")
        for at in (start, (start + end) / 2, end)
    )
    return Chart(title, lines, rows, columns)


def _path(points: Iterable[tuple[float, float | None]]) -> str:
    parts: list[str] = []
    draws = False
    for across, down in points:
        if down is not None:
            parts.append(f"{'L' if draws else 'M'}{across:.1f} {down:.1f}")
        draws = down is not None
    return "".join(parts)


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20 …"""
    if value <= 0:
        return 1.0
    unit = 10 ** math.floor(math.log10(value))
    return next(step * unit for step in (1, 2, 5, 10) if step * unit >= value * 0.999999)


def _label(value: float) -> str:
    if value >= 100_000:
        return words.count(value)
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.3g}"
