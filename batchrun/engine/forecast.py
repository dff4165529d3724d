"""Predicts tokens, cost and time from answered rows. Pure.

Output tokens: a least-squares line over the length, or means of five length classes, whichever has the smaller spread.
Beyond seen lengths the line counts by half; that half, and half the difference of the two, widen the range. Ranges are
95 % intervals by Student's t.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, variance
from typing import NamedTuple

from batchrun.prompts.caching import BYTES_PER_TOKEN

GUESS = 0.25  # Relative error of `BYTES_PER_TOKEN` before any reply
CLASSES = 5
_STEPS = 16  # Length classes per doubling in the histogram


class Range(NamedTuple):
    low: float
    expected: float
    high: float

    def plus(self, amount: float) -> "Range":
        return Range(self.low + amount, self.expected + amount, self.high + amount)


class Seen(NamedTuple):
    size: int  # Bytes
    input_tokens: int  # Of all attempts
    output_tokens: int
    cost: int | None  # Picodollars
    seconds: float  # Of the last attempt
    attempts: int


@dataclass(slots=True)
class Lengths:
    """Number and bytes of requests per class."""

    classes: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    rows: int = 0
    size: int = 0

    def add(self, size: int) -> None:
        found = self.classes.setdefault(int(_STEPS * math.log2(max(1, size))), [0, 0])
        found[0] += 1
        found[1] += size
        self.rows += 1
        self.size += size

    def means(self) -> Iterable[tuple[int, float]]:
        """(Count, mean length) of each class."""
        return ((count, size / count) for count, size in self.classes.values())


def input_tokens(lengths: Lengths, seen: Sequence[Seen]) -> Range:
    known = sum(row.size * row.attempts for row in seen)
    if not known:
        guess = lengths.size / BYTES_PER_TOKEN
        return Range(guess * (1 - GUESS), guess, guess * (1 + GUESS))
    return total(lengths, [(row.size, row.input_tokens) for row in seen])


def total(lengths: Lengths, seen: Sequence[tuple[int, float]]) -> Range:
    """From (length, quantity) of answered rows."""
    if not lengths.rows:
        return Range(0, 0, 0)
    if len(seen) < 3 or len({amount for _, amount in seen}) == 1:
        expected = lengths.rows * fmean(amount for _, amount in seen)
        return Range(expected, expected, expected) if len(seen) >= 3 else Range(0, expected, 2 * expected)
    line, classes = _by_line(lengths, seen), _by_class(lengths, seen)
    expected, spread, doubt = min(line, classes, key=lambda way: way[1])
    if math.isfinite(line[1] + classes[1]):
        doubt = max(doubt, abs(line[0] - classes[0]) / 2)
    half = _student(len(seen) - 2) * spread + doubt
    return Range(max(0.0, expected - half), expected, expected + half)


def _by_line(lengths: Lengths, seen: Sequence[tuple[int, float]]) -> tuple[float, float, float]:
    """The sum, its standard error, and the doubt about unseen lengths."""
    count, rows = len(seen), lengths.rows
    mean_size, mean = fmean(size for size, _ in seen), fmean(amount for _, amount in seen)
    square = sum((size - mean_size) ** 2 for size, _ in seen)
    if not square:
        spread = variance(amount for _, amount in seen)
        return rows * mean, rows * math.sqrt(spread / count * _unseen(count, rows)), 0.0
    slope = sum((size - mean_size) * (amount - mean) for size, amount in seen) / square
    residuals = (
        (amount - mean - slope * (size - mean_size)) / (1 - min(0.9, 1 / count + (size - mean_size) ** 2 / square))
        for size, amount in seen
    )
    noise = sum(residual**2 for residual in residuals) / (count - 1)
    away = lengths.size / rows - mean_size
    error = rows * math.sqrt(noise / count * _unseen(count, rows) * (1 + away**2 / (square / count)))
    least, most = min(size for size, _ in seen), max(size for size, _ in seen)
    beyond = slope * sum(count * (size - min(most, max(least, size))) for count, size in lengths.means())
    return rows * (mean + slope * away) - beyond / 2, error, abs(beyond) / 2


def _by_class(lengths: Lengths, seen: Sequence[tuple[int, float]]) -> tuple[float, float, float]:
    sizes = sorted(size for size, _ in seen)
    edges = sorted({sizes[place * len(sizes) // CLASSES] for place in range(1, CLASSES)})
    groups: list[list[float]] = [[] for _ in range(len(edges) + 1)]
    for size, amount in seen:
        groups[bisect_right(edges, size)].append(amount)
    rows = [0] * len(groups)
    for count, size in lengths.means():
        rows[bisect_right(edges, size)] += count
    if any(count and len(group) < 2 for count, group in zip(rows, groups, strict=True)):
        return 0.0, math.inf, 0.0
    used = [(count, group) for count, group in zip(rows, groups, strict=True) if count]
    expected = sum(count * fmean(group) for count, group in used)
    errors = (count**2 * variance(group) / len(group) * _unseen(len(group), count) for count, group in used)
    return expected, math.sqrt(sum(errors)), 0.0


def _unseen(seen: int, rows: int) -> float:
    """Variance of a sum over unseen rows, against that of a mean."""
    return 1 + seen / rows


def _student(freedom: int) -> float:
    """The 97.5 % point (Cornish-Fisher; within 0.5 % from 4 degrees of freedom on)."""
    freedom = max(1, freedom)
    return 1.96 + 2.372 / freedom + 2.822 / freedom**2 + 2.556 / freedom**3


class Throughput(NamedTuple):
    """Rates per minute (None: unknown)."""

    rpm: float | None
    tpm: float | None
    concurrency: int
    seconds: float | None


class Duration(NamedTuple):
    seconds: Range
    binding: str


def duration(requests: float, tokens: Range, throughput: Throughput) -> Duration | None:
    bounds = [_rate_bound("requests per minute", Range(requests, requests, requests), throughput.rpm)]
    bounds.append(_rate_bound("tokens per minute", tokens, throughput.tpm))
    if throughput.seconds is not None:
        waves = max(1.0, requests / throughput.concurrency) * throughput.seconds if requests else 0.0
        name = "concurrency" if requests > throughput.concurrency else "latency"
        bounds.append(Duration(Range(waves, waves, 2 * waves), name))
    found = [bound for bound in bounds if bound is not None]
    longest = max(found, key=lambda bound: bound.seconds.expected, default=None)
    if longest is None or longest.binding not in ("requests per minute", "tokens per minute"):
        return longest
    low, expected, high = longest.seconds
    return Duration(Range(low * 0.98, expected, high * 1.1 + (throughput.seconds or 0.0)), longest.binding)


def _rate_bound(name: str, amount: Range, rate: float | None) -> Duration | None:
    if rate is None:
        return None
    per_second: Callable[[float], float] = lambda number: number / rate * 60  # noqa: E731  one formula for three
    return Duration(Range(*map(per_second, amount)), name)
