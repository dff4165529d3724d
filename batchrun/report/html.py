"""The report of one run: an HTML page that loads nothing, or JSON.

Text from outside is escaped; the Content Security Policy, which forbids scripts and loads, is a second defence.
"""

import datetime
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any, NamedTuple, cast

from jinja2 import Environment, StrictUndefined

from batchrun import __version__
from batchrun.account import TOKENS
from batchrun.display import printable
from batchrun.engine.prediction import prediction
from batchrun.journal import Reader, Record
from batchrun.models import Reply, State
from batchrun.plan import Plan, plan_from_json
from batchrun.registry import RunFile
from batchrun.replies import read
from batchrun.report import pages, words
from batchrun.report.words import plain

WIDTH, HEIGHT = 720, 180
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 10, 24


class Tick(NamedTuple):
    at: float
    label: str


class Line(NamedTuple):
    name: str
    path: str  # the `d` of an SVG path
    last: str


class Chart(NamedTuple):
    title: str
    lines: tuple[Line, ...]
    rows: tuple[Tick, ...]
    columns: tuple[Tick, ...]


# points of Unix time and value; None breaks the line
Series = Sequence[tuple[float, float | None]]


def chart(title: str, series: dict[str, Series], span: tuple[float, float] | None = None) -> Chart | None:
    """None if there is nothing to draw."""
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
    if value <= 0:
        return 1.0
    unit = 10 ** math.floor(math.log10(value))
    return next(step * unit for step in (1, 2, 5, 10) if step * unit >= value * 0.999999)


def _label(value: float) -> str:
    if value >= 100_000:
        return words.count(value)
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.3g}"


SHOWN_ROWS = 20
EXCERPT = 600
# points of the lines made from attempts
STRETCHES = 60
# seconds without a sample: no process was running
_GAP = 60.0


def report_values(run: RunFile) -> dict[str, Any]:
    """As `show --json`, with chart lines as [Unix time, value]."""
    values = pages.run_values(run)
    with Reader.open(run.path) as reader:
        samples = [(sample.at, sample.state) for sample in reader.samples()]
        lines = series(samples, reader.timings())
        plan, misses = plan_from_json(reader.meta.plan), reader.misses()
        shown = [row_values(record, plan) for record in _spread(reader)]
    predicted = prediction(run)
    waits = Counter(str(state["waiting"]) for _, state in samples if state.get("waiting"))
    return {
        **values,
        "charts": {
            title: {name: list(map(list, points)) for name, points in of.items()} for title, of in lines.items()
        },
        "waiting": {reason: round(count / len(samples), 3) for reason, count in waits.most_common()},
        "failed_attempts": [plain(miss) for miss in misses],
        "prediction": None if predicted is None else predicted._asdict(),
        "sample": shown,
    }


def report_page(run: RunFile) -> str:
    values = report_values(run)
    with Reader.open(run.path) as reader:
        totals, tiers = reader.totals, reader.tiers()
        of_lanes = words.lane_lines(words.lane_shares(reader, plan_from_json(reader.meta.plan)))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["shown"] = _shown
    environment.filters["clock"] = _clock
    source = resources.files("batchrun.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        run=values,
        account=words.account(totals),
        bill=words.bill(totals) or "not known",
        by_kind=words.bill_by_kind(totals),
        by_tier=words.bill_by_tier(tiers),
        lanes=of_lanes,
        savings=words.savings(totals),
        from_cache=words.read_from_cache(totals),
        money=_money(values),
        prediction=None if (found := prediction(run)) is None else words.prediction(found) or None,
        shares=_shares(values),
        charts=_drawn(values["charts"]),
        width=WIDTH,
        height=HEIGHT,
        version=__version__,
    )


def _drawn(titled: dict[str, dict[str, list[list[Any]]]]) -> list[Chart]:
    times = [at for lines in titled.values() for points in lines.values() for at, _ in points]
    span = (min(times), max(times)) if times else None
    charts = (
        chart(
            title,
            {name.replace("_", " "): [(at, value) for at, value in points] for name, points in lines.items()},
            span,
        )
        for title, lines in titled.items()
    )
    return [found for found in charts if found is not None]


class Share(NamedTuple):
    name: str
    rows: int
    x: float
    width: float


def _shares(values: dict[str, Any]) -> list[Share]:
    counted = [(name, int(values[name])) for name in ("done", "failed", "skipped", "unknown", "in_batches", "pending")]
    unit, x, found = WIDTH / max(1, sum(rows for _, rows in counted)), 0.0, list[Share]()
    for name, rows in counted:
        found += [Share(name, rows, round(x, 2), round(unit * rows, 2))] if rows else []
        x += unit * rows
    return found


def _money(values: dict[str, Any]) -> list[tuple[str, str]]:
    counted = [(name.replace("_", " "), f"{values[name]:,}") for name in TOKENS]
    return [
        *counted,
        ("attempts", f"{values['attempts']:,}"),
        ("may have been billed", f"{values['possibly_billed']:,}"),
    ]


def _shown(value: object) -> str:
    return printable(str(value), EXCERPT)


def _clock(at: float) -> str:
    return f"{datetime.datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M:%S}"


def series(
    samples: list[tuple[float, dict[str, Any]]], timings: list[tuple[float, float, int]]
) -> dict[str, dict[str, Series]]:
    return {
        "Rows done a minute": {"rows": _rate(samples, "done")},
        "Tokens a minute": {"in": _rate(samples, "input_tokens"), "out": _rate(samples, "output_tokens")},
        "Seconds of an exchange": _latency(timings),
        "Requests at once": {name: _plain(samples, name) for name in ("in_flight", "allowed")},
        "Limits a minute": {"requests": _plain(samples, "rpm"), "tokens": _plain(samples, "tpm")},
        "Cost so far, USD": {"cost": _plain(samples, "cost")},
    }


def _plain(samples: list[tuple[float, dict[str, Any]]], name: str) -> Series:
    return [(at, state.get(name)) for at, state in samples]


def _rate(samples: list[tuple[float, dict[str, Any]]], name: str) -> Series:
    found: list[tuple[float, float | None]] = []
    for (before, old), (at, new) in itertools.pairwise(samples):
        grown = new.get(name, 0) - old.get(name, 0)
        known = 0 < at - before < _GAP
        found.append((at, 60 * max(0, grown) / (at - before) if known else None))
    return found


def _latency(timings: list[tuple[float, float, int]]) -> dict[str, Series]:
    answered = sorted((ended, seconds) for ended, seconds, status in timings if status == 200)
    if not answered:
        return {}
    start, end = answered[0][0], answered[-1][0]
    width = max((end - start) / STRETCHES, 0.001)
    groups: dict[int, list[float]] = {}
    for ended, seconds in answered:
        groups.setdefault(int((ended - start) / width), []).append(seconds)
    points = [(start + (place + 0.5) * width, sorted(group)) for place, group in sorted(groups.items())]
    return {
        "median": [(at, group[len(group) // 2]) for at, group in points],
        "95 %": [(at, group[min(len(group) - 1, len(group) * 95 // 100)]) for at, group in points],
    }


def _spread(reader: Reader) -> Iterable[Record]:
    rows = reader.totals.rows
    for place in range(min(SHOWN_ROWS, rows)):
        found = reader.entries(place * rows // SHOWN_ROWS if rows > SHOWN_ROWS else place, 1)
        record = reader.row(seq=found[0].seq) if found else None
        if record is not None:
            yield record


def row_values(record: Record, plan: Plan) -> dict[str, Any]:
    return {
        "line": record.line,
        "id": printable(record.key, 80),
        "state": record.state.value,
        "flags": sorted(record.flags),
        "text": excerpt(_columns(record.text)),
        "reply": None if record.state is not State.DONE else excerpt(_reply(record, plan)),
        "cause": record.cause and printable(record.cause, 200),
        "message": record.message and printable(record.message, EXCERPT),
        "seconds": record.seconds,
        "output_tokens": record.output_tokens,
    }


def excerpt(text: str) -> str:
    cut = text[: EXCERPT + 1]
    shown = "\n".join(printable(line) for line in cut.replace("\r\n", "\n").replace("\t", "    ").split("\n"))
    return shown if len(text) <= EXCERPT else f"{shown[:EXCERPT]}…"


def _columns(text: str) -> str:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(row, dict):
        return text
    columns = cast("dict[str, Any]", row)
    return "\n".join(
        f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in columns.items()
    )


def _reply(record: Record, plan: Plan) -> str:
    if record.value is not None:
        return record.value
    if record.body is None:
        return ""
    found = read(plan.endpoint, record.body)
    return found.text if isinstance(found, Reply) and found.text is not None else record.body
