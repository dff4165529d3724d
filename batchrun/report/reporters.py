"""Headless reporters of a run: a bar on a terminal, plain lines elsewhere, JSON events, or nothing.

A reporter never blocks or fails the engine: a closed terminal must not end a run.
"""

import contextlib
import json
import math
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from batchrun.account import MONEY, SHOWN
from batchrun.display import counted, printable
from batchrun.engine.output_files import text_outlet, wait_forever
from batchrun.events import (
    IMPORT_ONLY,
    POST_ONLY,
    AttemptEnded,
    AttemptsStarted,
    AttemptStarted,
    BatchChanged,
    Draining,
    Event,
    IntakeProgress,
    LaneChanged,
    LimitsChanged,
    Notice,
    PostChanged,
    Resumed,
    RowDivided,
    RowFinished,
    RowLost,
    RowsAnswered,
    RunStarted,
    SendersChanged,
    Waiting,
    single,
)
from batchrun.plan.settings import Settings
from batchrun.pricing import usd
from batchrun.progress import Progress
from batchrun.report import words
from batchrun.report.words import plain

if TYPE_CHECKING:
    from tqdm import tqdm

BAR = 12  # columns at least
LINE_EVERY = 5.0  # seconds
# rows: about a second
CHECKED_EVERY = 100_000


# events of every row, which most reporters show only in the numbers
OF_ROWS = frozenset({AttemptStarted, AttemptsStarted, AttemptEnded, RowFinished, RowsAnswered})


class Reporter(Protocol):
    # whether `handle` needs `OF_ROWS`
    of_rows: bool

    def handle(self, event: Event) -> None: ...

    def paint(self, progress: Progress) -> None: ...

    def close(self) -> None: ...


class Quiet:
    of_rows = False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def handle(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            with contextlib.suppress(OSError):
                print(f"batchrun: {started(event)}", file=self._stream, flush=True)

    def paint(self, progress: Progress) -> None:
        pass

    def close(self) -> None:
        pass


class Lines:
    """A line for each rare event, and every few seconds a `status`."""

    of_rows = False

    def __init__(self, stream: TextIO, *, status: bool = True) -> None:
        self._stream = stream
        self._status = status
        self._next = 0.0
        self._batches: dict[int, str] = {}

    def handle(self, event: Event) -> None:
        if type(event) in OF_ROWS:
            return
        if self._status and isinstance(event, IntakeProgress) and event.rows % CHECKED_EVERY == 0:
            self._print(f"{counted(event.rows)} checked")
        line = notable(event, self._batches)
        if line is not None:
            self._print(line)

    def paint(self, progress: Progress) -> None:
        if self._status and progress.now >= self._next:
            if self._next:
                self._print(words.status(progress))
            self._next = progress.now + LINE_EVERY

    def close(self) -> None:
        pass

    def _print(self, text: str) -> None:
        with contextlib.suppress(OSError):
            print(f"batchrun: {text}", file=self._stream, flush=True)


_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
_BAR_STANDING = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"


class Bar:
    of_rows = False

    def __init__(self, stream: TextIO, *, ascii_only: bool) -> None:
        self._stream = stream
        self._ascii = ascii_only
        self._bar: tqdm[Any] | None = None
        self._batches: dict[int, str] = {}

    def handle(self, event: Event) -> None:
        if type(event) in OF_ROWS:
            return
        if isinstance(event, RunStarted):
            self.close()
            totals = event.totals
            self._open(total=event.goal, initial=totals.done + totals.failed + totals.skipped)
        elif isinstance(event, IntakeProgress):
            self._intake(event.rows)
        line = notable(event, self._batches)
        if line is not None:
            self._above(line)

    def paint(self, progress: Progress) -> None:
        bar = self._bar
        if bar is None or progress.started is None:
            return
        bar.n = progress.finished
        bar.bar_format = _BAR if progress.waiting is None or progress.eta is not None else _BAR_STANDING
        with contextlib.suppress(OSError):
            bar.set_postfix_str(postfix(progress, self._room(bar)), refresh=True)

    def _room(self, bar: "tqdm[Any]") -> float:
        # columns after the bar; infinite if the width is unknown
        columns: int | None = bar.format_dict["ncols"]
        counts, times = 2 * len(str(bar.total)) + 1, 2 * len("0:00:00") + 1
        return math.inf if columns is None else columns - (BAR + counts + times + len("100%|| [, ]"))

    def close(self) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.close()
            self._bar = None

    def _open(self, **options: Any) -> None:
        from tqdm import tqdm  # noqa: PLC0415  only where there is a terminal

        form = _BAR
        if "total" not in options:
            form = "{desc}{n_fmt} rows checked [{elapsed}]"
        self._bar = tqdm(
            file=self._stream,
            ascii=self._ascii,
            dynamic_ncols=True,
            bar_format=form,
            leave=True,
            mininterval=0,
            **options,
        )

    def _intake(self, rows: int) -> None:
        if self._bar is None:
            self._open()
        if self._bar is not None:
            self._bar.n = rows
            self._bar.refresh()

    def _above(self, text: str) -> None:
        with contextlib.suppress(OSError):
            if self._bar is None:
                print(f"batchrun: {text}", file=self._stream, flush=True)
            else:
                self._bar.write(f"batchrun: {text}", file=self._stream)


def postfix(progress: Progress, room: float = math.inf) -> str:
    limits = progress.limits
    allowed = f"/{limits.allowed}" if limits is not None else ""
    parts = [
        words.blocked_by(progress),
        "stopping" if progress.draining is not None else "",
        f"{words.count(progress.row_rate)}/s",
        words.spending(progress),
        words.failed(progress),
        f"{progress.in_flight}{allowed} in flight",
        f"{progress.post} in post-processing" if progress.post else "",
        words.tokens(progress),
        f"{progress.retries} retries" if progress.retries else "",
        f"{progress.throttled}×429" if progress.throttled else "",
        words.lanes_not_open(progress),
        words.senders(progress),
    ]
    wanted = [part for part in parts if part]
    while len(wanted) > 1 and len(", ".join(wanted)) > room:
        wanted.pop()
    return ", ".join(wanted)[: None if room == math.inf else max(0, int(room))]


def notable(event: Event, batches: dict[int, str]) -> str | None:
    """`batches` has the last line of each batch, which is not repeated."""
    if isinstance(event, Notice | SendersChanged):
        return words.notice(event)
    if isinstance(event, RunStarted):
        return started(event)
    if isinstance(event, BatchChanged):
        line = words.batch(event)
        if line is None or batches.get(event.chunk) == line:
            return None
        batches[event.chunk] = line
        return line
    if isinstance(event, Draining) and (event.in_flight or event.post):
        return f"stopping ({event.why}); {words.awaited(event.in_flight, event.post)}"
    return None


class JsonLines:
    """See docs/events.md; `on_closed` gets the error when events can no longer be written."""

    of_rows = True

    def __init__(self, stream: TextIO, on_closed: Callable[[OSError], None]) -> None:
        self._stream = stream
        self._on_closed = on_closed
        self._closed = False

    def handle(self, event: Event) -> None:
        for each in single(event):
            name = JSON_EVENTS.get(type(each))
            if name is not None:
                self.write({"event": name, **plain(each)})

    def write(self, value: Mapping[str, Any]) -> None:
        if self._closed:
            return
        try:
            self._stream.write(json.dumps(value) + "\n")
            self._stream.flush()
        except OSError as error:
            self._closed = True
            self._on_closed(error)

    def paint(self, progress: Progress) -> None:
        if progress.started is not None:
            self.write({"event": "progress", **progress_values(progress)})

    def close(self) -> None:
        pass


JSON_EVENTS: dict[type, str] = {
    IntakeProgress: "intake",
    RunStarted: "started",
    AttemptStarted: "attempt",
    AttemptEnded: "attempt_ended",
    RowFinished: "row",
    RowLost: "abandoned",
    RowDivided: "divided",
    Waiting: "waiting",
    Resumed: "resumed",
    LimitsChanged: "limits",
    PostChanged: "post",
    Draining: "draining",
    LaneChanged: "lane",
    SendersChanged: "senders",
    BatchChanged: "batch",
    Notice: "notice",
}


_PICTURE = (
    *(name for name in SHOWN if name not in MONEY),
    *("goal", "pending", "in_flight", "post", "retries", "throttled", "row_rate", "token_rate", "eta", "elapsed"),
)
_MONEY = (*(name for name in MONEY if name in SHOWN), "cost_input", "projected")


def progress_values(progress: Progress) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(progress, name) for name in _PICTURE}
    for name in ("row_rate", "token_rate", "eta", "elapsed"):
        values[name] = None if values[name] is None else round(values[name], 3)
    for name in _MONEY:
        amount = getattr(progress, name)
        values[name] = usd(amount) if amount is not None and (progress.priced or name == "saved") else None
    values["tiers"] = {tier: replies for tier, (replies, _) in progress.tiers.items()}
    values["cost_by_tier"] = {tier: usd(paid) for tier, (_, paid) in progress.tiers.items()}
    values["lanes"] = [plain(lane) for lane in progress.lanes]
    values["senders"] = progress.senders and plain(progress.senders)
    values["waiting"] = None if progress.waiting is None else str(progress.waiting.reason)
    return values


def choose(
    settings: Settings,
    *,
    environ: Mapping[str, str],
    on_closed: Callable[[OSError], None],
    interrupted: Callable[[], bool] = wait_forever,
) -> Reporter:
    """A reader that stops reading blocks the run until `interrupted`."""
    if settings.as_json:
        return JsonLines(text_outlet(sys.stdout, interrupted), on_closed)
    if settings.quiet:
        return Quiet(sys.stderr)
    if settings.no_progress:
        return Lines(sys.stderr, status=False)
    if settings.verbose or not sys.stderr.isatty() or environ.get("TERM") == "dumb":
        return Lines(sys.stderr)
    return Bar(sys.stderr, ascii_only=(sys.stderr.encoding or "").lower().replace("-", "") != "utf8")


def started(event: RunStarted) -> str:
    totals = event.totals
    left = totals.pending + totals.unknown if event.to_send is None else event.to_send
    rows = f"{left:,} of {counted(totals.rows)}" if left != totals.rows else counted(left)
    if event.host == IMPORT_ONLY:
        return printable(f"run {event.run}: importing results; no requests", 500)
    if event.host == POST_ONLY:
        return printable(f"run {event.run}: post-processing {rows}; no requests", 500)
    model = f", model {event.model}" if event.model and event.model != "simulated" else ""
    line = f"run {event.run}: {rows} to {event.host}{model}"
    if event.price is not None:
        line += f", {event.price}"
    elif event.model and not event.simulated:
        line += ", price not known"
    if totals.in_batches:
        line += f"; {totals.in_batches:,} more in batches"
    if totals.unknown:
        line += f"; {totals.unknown:,} of them were sent before and may have been billed"
    return printable(line + (" (SIMULATED replies)" if event.simulated else ""), 500)
