"""A run without the app: signals in, lines out, a summary at the end. The functions raise BatchrunError."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, Self, TextIO

import click

from batchrun.client.event_loop import run_coroutine
from batchrun.display import coloured, counted, printable
from batchrun.engine.batch_mode import BatchMode
from batchrun.engine.execute import execute, pilot
from batchrun.engine.output_files import UnreadError
from batchrun.engine.prediction import Prediction, prediction
from batchrun.engine.resume import prepare_import, prepare_post, prepare_resume
from batchrun.engine.run import Run
from batchrun.engine.run_result import HASTY, RunResult
from batchrun.engine.start import Prepared, prepare
from batchrun.errors import ExitCode, RefusedError, StorageError
from batchrun.events import Event, RunEnded, single
from batchrun.journal import Reader
from batchrun.plan import Plan
from batchrun.plan.outputs import STREAM
from batchrun.plan.resolve import Access
from batchrun.plan.settings import Settings
from batchrun.plan.sources import Gathered
from batchrun.progress import Fold
from batchrun.registry import RunFile
from batchrun.report import event_log, pages, words
from batchrun.report.observers import Observers
from batchrun.report.reporters import OF_ROWS, JsonLines, choose, plain

PAINT_EVERY = 0.2
JSON_EVERY = 1.0
CAUSES = 3  # shown at the end
# seconds after SIGTERM and SIGHUP: service managers kill soon
HASTY_DRAIN = 8.0
_SIGNALS = {
    "SIGINT": ExitCode.INTERRUPTED,
    "SIGTERM": ExitCode.TERMINATED,
    "SIGHUP": ExitCode.HANGUP,
}


def run(gathered: Gathered, access: Access) -> ExitCode:
    headless = Headless(gathered.settings)
    if gathered.settings.dry_run:
        from batchrun.engine.request_stats import dry_run  # noqa: PLC0415  a run does not need it

        pages.show_dry_run(dry_run(gathered, headless.emit), as_json=gathered.settings.as_json)
        return ExitCode.OK
    with headless:
        try:
            prepared = prepare(gathered, headless.emit)
        except KeyboardInterrupt:
            headless.print_line("interrupted while the input was checked; nothing was sent")
            return ExitCode.INTERRUPTED
        return headless.finish(prepared, access)


def plan(gathered: Gathered, access: Access | None, *, pilot: int | None, show: int = 0) -> ExitCode:
    settings = gathered.settings
    quiet = replace(settings, as_json=False, metrics_file=None, otel=False, notify=None, notify_url=None)
    with Headless(quiet) as headless:
        if pilot is None or access is None:
            return headless.plan(gathered, as_json=settings.as_json, show=show)
        with closing(prepare(gathered, headless.emit)) as prepared:
            return headless.pilot(prepared, pilot, access, as_json=settings.as_json, show=show)


def resume(  # noqa: PLR0913  what is to be sent again, each by name
    reference: str,
    flags: dict[str, Any],
    *,
    admit: Callable[[Plan, Gathered], Access],
    failed: bool,
    cause: str | None = None,
    chosen: str | None = None,
    done: bool = False,
    batch_mode: BatchMode = BatchMode.RESUME,
) -> ExitCode:
    """`admit` finds the key."""
    prepared, gathered = prepare_resume(reference, flags, failed=failed, cause=cause, chosen=chosen, done=done)
    prepared.batch_mode = batch_mode
    return _finish(prepared, gathered, lambda: admit(prepared.plan, gathered))


def post(reference: str, flags: dict[str, Any], prepare_log: Callable[[Gathered], None]) -> ExitCode:
    prepared, gathered = prepare_post(reference, flags)
    return _finish(prepared, gathered, lambda: prepare_log(gathered))


def import_results(
    reference: str, flags: dict[str, Any], files: Sequence[str], prepare_log: Callable[[Gathered], None]
) -> ExitCode:
    prepared, gathered = prepare_import(reference, flags, files)
    return _finish(prepared, gathered, lambda: prepare_log(gathered))


def forget_chunk(run: RunFile, chunk: str) -> ExitCode:
    if not chunk.isascii() or not chunk.isdecimal():
        raise RefusedError(f"forget needs the number of a chunk, not {chunk!r}", "`batchrun batches RUN` lists them")
    from batchrun.engine import batch_commands  # noqa: PLC0415  a run does not need it

    rows = batch_commands.forget(run, int(chunk))
    print(
        f"batchrun: chunk {chunk} is forgotten: {counted(rows)} pending again, possibly billed; "
        f"resume with: batchrun resume {run.reference}",
        file=sys.stderr,
    )
    return ExitCode.OK


def adopt_batch(ref: str, flags: dict[str, Any], remote: str, *, admit: Callable[[Plan, Gathered], Access]) -> ExitCode:
    from batchrun.engine import batch_commands  # noqa: PLC0415  a run does not need it

    prepared, gathered = prepare_resume(ref, flags, failed=False)
    try:
        access = admit(prepared.plan, gathered)
        ticket = asyncio.run(batch_commands.adopt(prepared, access, remote))
    finally:
        prepared.close()
    print(
        f"batchrun: {printable(remote, 80)} now belongs to chunk {ticket.chunk}; resume with: batchrun resume {prepared.run.reference}",
        file=sys.stderr,
    )
    return ExitCode.OK


def _finish(prepared: Prepared, gathered: Gathered, admit: Callable[[], Access | None]) -> ExitCode:
    try:
        access = admit()
        headless = Headless(gathered.settings)
    except BaseException:
        prepared.close()
        raise
    with headless:
        return headless.finish(prepared, access)


class Headless:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._fold = Fold()
        self._signals: list[int] = []
        self._reporter = choose(
            settings, environ=os.environ, on_closed=self._events_closed, interrupted=partial(_is_urgent, self._signals)
        )
        self._run: Run | None = None
        self._observers = Observers(settings)
        self._drain = settings.drain
        self._events_lost: RunResult | None = None
        self._logs = settings.verbose or settings.log_file is not None
        all_used = self._observers.listen or self._logs or self._reporter.of_rows
        self._only_folded: frozenset[type] = frozenset() if all_used else OF_ROWS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reporter.close()

    def emit(self, event: Event) -> None:
        """Every event passes here, in order."""
        self._fold(event)
        if type(event) in self._only_folded:
            return
        if self._observers.listen:
            self._observers.handle(event)
        if self._logs:
            for each in single(event):
                event_log.record(each)
        self._reporter.handle(event)

    def print_line(self, text: str) -> None:
        self._reporter.close()
        print(f"batchrun: {text}", file=sys.stderr, flush=True)

    def finish(self, prepared: Prepared, access: Access | None) -> ExitCode:
        try:
            ended = run_coroutine(self._go(prepared, access))
        except KeyboardInterrupt:  # before there was a run that obeys signals
            text = "interrupted before anything was sent"
            ended = RunEnded(ExitCode.INTERRUPTED, prepared.journal.totals, text, None, (), time.monotonic())
        self._reporter.close()
        if isinstance(self._reporter, JsonLines):
            self._reporter.write(end_event(ended, prepared.run))
        failures, shares = failure_lines(ended, prepared.run), share_lines(ended, prepared.plan, prepared.run)
        print_summary(ended, prepared.run, sys.stderr, quiet=self._settings.quiet, failures=failures, shares=shares)
        return ended.exit_code

    def plan(self, gathered: Gathered, *, as_json: bool, show: int) -> ExitCode:
        from batchrun.engine.estimate import estimate  # noqa: PLC0415  a run does not need it
        from batchrun.report import estimates  # noqa: PLC0415  likewise

        try:
            found = estimate(gathered, self.emit, show)
        except KeyboardInterrupt:
            self.print_line("interrupted while the input was checked; nothing was sent")
            return ExitCode.INTERRUPTED
        self._reporter.close()
        estimates.show(found, as_json=as_json, requests=show)
        return ExitCode.OK

    def pilot(self, prepared: Prepared, rows: int, access: Access, *, as_json: bool, show: int) -> ExitCode:
        from batchrun.engine.estimate import estimate_after  # noqa: PLC0415  a run does not need it
        from batchrun.report import estimates  # noqa: PLC0415  likewise

        def on_start(run: Run) -> None:
            self._run = run
            stop_on_signals(run, prepared.plan, self._signals)

        async def go() -> RunResult:
            painting = asyncio.get_running_loop().create_task(self._paint())
            try:
                return await pilot(prepared, rows, access, self.emit, on_start=on_start)
            finally:
                painting.cancel()

        ending = run_coroutine(go())
        self._reporter.close()
        if ending.exit_code is not ExitCode.OK:
            for line in (f"stopped: {ending.message}", *([f"next: {ending.hint}"] if ending.hint else ())):
                print(f"batchrun: {printable(line, 2000)}", file=sys.stderr)
        estimates.show(
            estimate_after(prepared, *(self._run.stated if self._run is not None else (None, None))),
            as_json=as_json,
            requests=show,
        )
        return ending.exit_code

    async def _go(self, prepared: Prepared, access: Access | None) -> RunEnded:
        loop = asyncio.get_running_loop()
        painting = loop.create_task(self._paint())
        stream = sys.stdout.buffer if prepared.plan.output == STREAM else None

        def on_start(run: Run) -> None:
            self._run = run
            stop_on_signals(run, prepared.plan, self._signals)
            if self._events_lost is not None:
                run.stop(self._events_lost, drain=self._drain)

        try:
            ended = await execute(prepared, access, self.emit, on_start=on_start, stream=stream)
            before, secrets = len(self._signals), () if access is None or access.key is None else (access.key.value,)
            return await self._observers.finish(
                ended,
                end_event(ended, prepared.run),
                secrets=secrets,
                interrupted=lambda: len(self._signals) > before,
            )
        finally:
            await self._observers.close()
            painting.cancel()
            self._reporter.paint(self._fold.snapshot(loop.time()))

    async def _paint(self) -> None:
        loop = asyncio.get_running_loop()
        every = JSON_EVERY if isinstance(self._reporter, JsonLines) else PAINT_EVERY
        while True:
            await asyncio.sleep(every)
            self._reporter.paint(self._fold.snapshot(loop.time()))

    def _events_closed(self, error: OSError) -> None:
        # earlier signals take precedence
        if isinstance(error, UnreadError):
            return
        ending = RunResult(ExitCode.STORAGE, f"the events cannot be written: {error.strerror}")
        if isinstance(error, BrokenPipeError):
            ending = RunResult(ExitCode.BROKEN_PIPE, "the program that reads the events has ended")
        self._events_lost = ending
        if self._run is not None:
            self._run.stop(ending, drain=self._drain)


def stop_on_signals(run: Run, plan: Plan, received: list[int]) -> None:
    """The first signal drains, a second Ctrl-C abandons; one that was ignored before stays ignored, for `nohup`.
    Signals are added to `received` at once, even while the loop waits for a reader.
    """
    loop = asyncio.get_running_loop()
    codes: list[ExitCode] = []
    for name, code in _SIGNALS.items():
        number = getattr(signal, name, None)
        if number is None or signal.getsignal(number) is signal.SIG_IGN:
            continue
        stop = partial(_stop, run, plan, code, codes)
        try:
            loop.add_signal_handler(number, stop)
            signal.signal(
                number, lambda number, _: received.append(number)
            )  # the loop gets it by its wakeup descriptor
        except NotImplementedError:  # Windows has no loop.add_signal_handler
            signal.signal(number, partial(_stop_on_loop, loop, stop))


def _stop_on_loop(loop: asyncio.AbstractEventLoop, stop: Callable[[], None], *_: object) -> None:
    loop.call_soon_threadsafe(stop)


def _is_urgent(signals: list[int]) -> bool:
    # a second signal, or any but Ctrl-C
    return len(signals) > 1 or any(number != signal.SIGINT for number in signals)


def _stop(run: Run, plan: Plan, code: ExitCode, codes: list[ExitCode]) -> None:
    codes.append(code)
    if len(codes) == 1:
        drain = plan.drain if code is ExitCode.INTERRUPTED else min(plan.drain, HASTY_DRAIN)
        run.stop(RunResult(code, code.name.lower()), drain=drain)
    elif code is ExitCode.INTERRUPTED or codes[0] is ExitCode.INTERRUPTED:
        run.leave()


def failure_lines(ended: RunEnded, run: RunFile) -> list[str]:
    if not ended.totals.failed or ended.exit_code in HASTY:
        return []
    try:
        with Reader.open(run.path) as reader:
            causes, known = reader.errors_by_cause(CAUSES), len(reader.failures(limit=1000))
    except StorageError as error:
        return [f"why rows failed cannot be read: {printable(error.message, 500)}"]
    lines: list[str] = []
    for cause in sorted(causes, key=lambda each: each.retryable == 0):
        kind = "retryable" if cause.retryable == cause.rows else "permanent"
        lines.append(f"failed, {kind}: {words.cause(cause)}")
        command = words.retry_command(cause, run.reference, ended.totals, simulated=run.meta.simulated)
        lines.append(f"  to send them again: {command}")
    if known > len(causes):
        left = ended.totals.failed - sum(cause.rows for cause in causes)
        lines.append(f"{counted(known - len(causes), 'more cause')} ({counted(left)}): batchrun show {run.reference}")
    return lines


def share_lines(ended: RunEnded, plan: Plan, run: RunFile) -> list[str]:
    if not (plan.tier or plan.lanes) or ended.exit_code in HASTY:
        return []
    lines: list[str] = []
    try:
        with Reader.open(run.path) as reader:
            if plan.tier and (tiers := words.bill_by_tier(reader.tiers(), chosen=True)):
                lines.append(f"tiers: {tiers}")
            if plan.lanes:
                lines += words.lane_lines(words.lane_shares(reader, plan))
    except StorageError as error:
        return [f"the shares of tiers and lanes cannot be read: {printable(error.message, 500)}"]
    return lines


def print_summary(  # noqa: PLR0913  the lines of the summary, each by name
    ended: RunEnded,
    run: RunFile,
    stream: TextIO,
    *,
    quiet: bool,
    failures: Sequence[str] = (),
    shares: Sequence[str] = (),
) -> None:
    text, colour = words.outcome(ended.totals, ended.exit_code)
    stopped = ended.exit_code not in (ExitCode.OK, ExitCode.ROWS_FAILED) and ended.message
    if stopped:
        how = "waiting" if ended.exit_code is ExitCode.WAITING else "stopped"
        text = f"{how}: {printable(ended.message or '', 2000)}"
    first = click.style(text, fg=colour, bold=True) if coloured(stream) else text
    lines = [first] if stopped or not quiet else []
    if stopped and ended.hint:
        lines.append(f"next: {printable(ended.hint, 1000)}")
    lines += failures
    lines += [printable(note, 500) for note in ended.notes]
    if not quiet:
        lines += [f"wrote {printable(name)}" for name in ended.files]
    if not quiet and (text := words.bill(ended.totals, simulated=run.meta.simulated)):
        lines.append(f"cost: {text}")
    if not quiet:
        lines += shares
    if not quiet and (text := words.read_from_cache(ended.totals)):
        lines.append(f"cache: {text}")
    if not quiet and (text := words.savings(ended.totals)):
        lines.append(f"saved: {text}")
    if not quiet and (found := _prediction(run)) is not None and (text := words.prediction(found)):
        lines.append(text)
    lines.append(words.account(ended.totals))
    command = _resume_command(ended, run)
    if command is not None:
        lines[-1] += f"; resume with: {command}"
    with contextlib.suppress(OSError):
        for line in lines:
            print(f"batchrun: {line}", file=stream, flush=True)


def _resume_command(ended: RunEnded, run: RunFile) -> str | None:
    return words.resume_command(ended.totals, run.reference, run.runs_dir) if run.path.exists() else None


def _prediction(run: RunFile) -> Prediction | None:
    # an unreadable journal is reported elsewhere
    try:
        return prediction(run)
    except StorageError:
        return None


def end_event(ended: RunEnded, run: RunFile) -> dict[str, object]:
    command = _resume_command(ended, run)
    found = _prediction(run)
    return {
        "event": "ended",
        **plain(ended),
        "resume": command,
        "prediction": None if found is None else found._asdict(),
    }
