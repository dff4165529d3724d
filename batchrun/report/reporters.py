"""The headless reporters of a run that is under way: a bar on a terminal, plain lines elsewhere, JSON events, silence.

A reporter takes events and is asked to paint now and then; it never blocks the engine and never fails it: a terminal
that has gone away is no reason to lose a run.
"""

import contextlib
import json
import math
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from batchrun.account import MONEY, SHOWN
from batchrun.display import counted, printable
from batchrun.engine.pipe import text_outlet, waited_for
from batchrun.events import (
    IMPORT_ONLY,
    POST_ONLY,
    AttemptEnded,
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
from batchrun.report.values import plain

if TYPE_CHECKING:
    from tqdm import tqdm

BAR = 12
"""Columns of the bar at least."""
LINE_EVERY = 5.0
"""Seconds between plain status lines."""
CHECKED_EVERY = 100_000
"""Rows between plain lines while the input is checked: about a second."""


class Reporter(Protocol):
    """What looks on while a run is under way."""

    def hear(self, event: Event) -> None:
        """Take one event; returns at once."""
        ...

    def paint(self, progress: Progress) -> None:
        """Show the picture of the moment; called a few times a second."""
        ...

    def close(self) -> None:
        """Leave the terminal as a line of text can follow."""
        ...


_OF_ROWS = frozenset({AttemptStarted, AttemptEnded, RowFinished, RowsAnswered})
"""What happens to every row, and is only seen in the numbers."""


class Quiet:
    """Says to whom the prompts go, and nothing more until the end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def hear(self, event: Event) -> None:
        """Only the start."""
        if isinstance(event, RunStarted):
            with contextlib.suppress(OSError):
                print(f"batchrun: {started(event)}", file=self._stream, flush=True)

    def paint(self, progress: Progress) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Lines:
    """One plain status line every few seconds unless `status` is off, and a line for each rare fact."""

    def __init__(self, stream: TextIO, *, status: bool = True) -> None:
        self._stream = stream
        self._status = status
        self._next = 0.0
        self._batches: dict[int, str] = {}

    def hear(self, event: Event) -> None:
        """Rare facts at once."""
        if type(event) in _OF_ROWS:
            return
        if self._status and isinstance(event, IntakeProgress) and event.rows % CHECKED_EVERY == 0:
            self._say(f"{counted(event.rows)} checked")
        said = notable(event, self._batches)
        if said is not None:
            self._say(said)

    def paint(self, progress: Progress) -> None:
        """A status line when it is time for one."""
        if self._status and progress.now >= self._next:
            if self._next:
                self._say(words.status(progress))
            self._next = progress.now + LINE_EVERY

    def close(self) -> None:
        """Lines need no end."""

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):
            print(f"batchrun: {text}", file=self._stream, flush=True)


_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
_BAR_STANDING = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
"""The same while no request can be sent and until when is unknown."""


class Bar:
    """A tqdm bar: rows, rate, tokens, failures, in flight and allowed, the reason it waits, ETA."""

    def __init__(self, stream: TextIO, *, ascii_only: bool) -> None:
        self._stream = stream
        self._ascii = ascii_only
        self._bar: tqdm[Any] | None = None
        self._batches: dict[int, str] = {}

    def hear(self, event: Event) -> None:
        """The first event with a total opens the bar; rare facts go above it."""
        if type(event) in _OF_ROWS:
            return
        if isinstance(event, RunStarted):
            self.close()
            totals = event.totals
            self._open(total=event.goal, initial=totals.done + totals.failed + totals.skipped)
        elif isinstance(event, IntakeProgress):
            self._intake(event.rows)
        said = notable(event, self._batches)
        if said is not None:
            self._above(said)

    def paint(self, progress: Progress) -> None:
        """Redraw with the numbers of the moment."""
        bar = self._bar
        if bar is None or progress.started is None:
            return
        bar.n = progress.finished
        bar.bar_format = _BAR if progress.waiting is None or progress.eta is not None else _BAR_STANDING
        with contextlib.suppress(OSError):
            bar.set_postfix_str(postfix(progress, self._room(bar)), refresh=True)

    def _room(self, bar: "tqdm[Any]") -> float:
        """Columns for the numbers behind the bar, so that it stays a bar; endless where the width is not known."""
        columns: int | None = bar.format_dict["ncols"]
        counts, times = 2 * len(str(bar.total)) + 1, 2 * len("0:00:00") + 1
        return math.inf if columns is None else columns - (BAR + counts + times + len("100%|| [, ]"))

    def close(self) -> None:
        """Leave the bar as it was last drawn."""
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
    """What stands behind the bar in so many columns: the most wanted first, and only what is there whole."""
    limits = progress.limits
    allowed = f"/{limits.allowed}" if limits is not None else ""
    parts = [
        words.holding(progress),
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
    """The line for an event that deserves one. `batches` keeps the last line of each, which is not said twice."""
    if isinstance(event, Notice | SendersChanged):
        return words.notice(event)
    if isinstance(event, RunStarted):
        return started(event)
    if isinstance(event, BatchChanged):
        said = words.batch(event)
        if said is None or batches.get(event.chunk) == said:
            return None
        batches[event.chunk] = said
        return said
    if isinstance(event, Draining) and (event.in_flight or event.post):
        return f"stopping ({event.why}); {words.awaited(event.in_flight, event.post)}"
    return None


class JsonLines:
    """One event a line on stdout; docs/events.md describes them. `gone` gets the reason why they can be written no more."""

    def __init__(self, stream: TextIO, gone: Callable[[OSError], None]) -> None:
        self._stream = stream
        self._gone = gone
        self._closed = False

    def hear(self, event: Event) -> None:
        """Write the event, if it is one of those that are documented."""
        for each in single(event):
            name = JSON_EVENTS.get(type(each))
            if name is not None:
                self.say({"event": name, **plain(each)})

    def say(self, value: Mapping[str, Any]) -> None:
        """One line; after one that failed nothing more."""
        if self._closed:
            return
        try:
            self._stream.write(json.dumps(value) + "\n")
            self._stream.flush()
        except OSError as error:
            self._closed = True
            self._gone(error)

    def paint(self, progress: Progress) -> None:
        """The picture as an event of its own."""
        if progress.started is not None:
            self.say({"event": "progress", **progress_values(progress)})

    def close(self) -> None:
        """Nothing is held back."""


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
    """The picture as JSON values."""
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
    gone: Callable[[OSError], None],
    given_up: Callable[[], bool] = waited_for,
) -> Reporter:
    """The reporter that fits where the command runs; no bar where the lines of a log would tear it.

    A reader of events who reads no further holds the run up, until he is `given_up`.
    """
    if settings.as_json:
        return JsonLines(text_outlet(sys.stdout, given_up), gone)
    if settings.quiet:
        return Quiet(sys.stderr)
    if settings.no_progress:
        return Lines(sys.stderr, status=False)
    if settings.verbose or not sys.stderr.isatty() or environ.get("TERM") == "dumb":
        return Lines(sys.stderr)
    return Bar(sys.stderr, ascii_only=(sys.stderr.encoding or "").lower().replace("-", "") != "utf8")


def started(event: RunStarted) -> str:
    """Which run begins, with whom, and how much is left of it."""
    totals = event.totals
    left = totals.pending + totals.unknown if event.to_send is None else event.to_send
    rows = f"{left:,} of {counted(totals.rows)}" if left != totals.rows else counted(left)
    if event.host == IMPORT_ONLY:
        return printable(f"run {event.run}: importing results; no requests", 500)
    if event.host == POST_ONLY:
        return printable(f"run {event.run}: post-processing {rows}; no requests", 500)
    model = f", model {event.model}" if event.model and event.model != "simulated" else ""
    said = f"run {event.run}: {rows} to {event.host}{model}"
    if event.price is not None:
        said += f", {event.price}"
    elif event.model and not event.simulated:
        said += ", price not known"
    if totals.in_batches:
        said += f"; {totals.in_batches:,} more in batches"
    if totals.unknown:
        said += f"; {totals.unknown:,} of them were sent before and may have been billed"
    return printable(said + (" (SIMULATED replies)" if event.simulated else ""), 500)
