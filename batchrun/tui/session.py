"""One run of this process, prepared in a thread, executed on the app's loop. Only this module uses the engine."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchrun.display import counted, printable
from batchrun.engine.estimate import estimate, estimate_after
from batchrun.engine.execute import execute, pilot
from batchrun.engine.export import write_chosen, write_output
from batchrun.engine.resume import prepare_resume
from batchrun.engine.run import Run
from batchrun.engine.run_result import RunResult
from batchrun.engine.start import DriftError, Prepared, prepare
from batchrun.errors import BatchrunError, ExitCode, RefusedError
from batchrun.events import Event, IntakeProgress, Notice
from batchrun.journal import Reader, Wanted
from batchrun.limits import Limits
from batchrun.plan import plan_from_json
from batchrun.plan.resolve import Access, access, check_input, check_provider
from batchrun.plan.sources import Gathered, gather
from batchrun.progress import Fold, Progress
from batchrun.registry import RunFile
from batchrun.report import estimates
from batchrun.report.headless import end_event
from batchrun.report.observers import Observers
from batchrun.report.row_text import title_of
from batchrun.tui.services import Bounds, EstimateText, NewRun, Phase, Point, ResumedRun, RunSnapshot, Task, Trouble

HISTORY = 240  # points, one per second


class _CancelledError(Exception):
    pass


class Session:
    def __init__(self, task: Task) -> None:
        self.task = task
        self.done: asyncio.Task[None] | None = None
        self.exit_code: ExitCode | None = None
        self.drift: DriftError | None = None
        self._fold = Fold()
        self._final: RunSnapshot | None = None
        self._run: Run | None = None
        self._prepared: Prepared | None = None
        self._access: Access | None = None
        self._observers: Observers | None = None
        self._checked = 0
        self._trouble: Trouble | None = None
        self._stop: RunResult | None = None
        self._drain: float | None = None
        self._notices: deque[str] = deque(maxlen=3)
        self._history: deque[Point] = deque(maxlen=HISTORY)
        self._identity: dict[str, Any] = {"reference": task.reference} if isinstance(task, ResumedRun) else {}

    def start(self) -> asyncio.Task[None]:
        self.done = asyncio.get_running_loop().create_task(self._go())
        return self.done

    @property
    def active(self) -> bool:
        return self.done is not None and not self.done.done()

    @property
    def prepared(self) -> bool:
        return self._prepared is not None

    async def _go(self) -> None:
        try:
            self._prepared = await asyncio.to_thread(self._prepare)
        except _CancelledError:
            self._fail(RefusedError("cancelled before anything was sent"), ExitCode.INTERRUPTED)
        except BatchrunError as error:
            self._fail(error, error.exit_code)
        else:
            await self._send(self._prepared)

    async def _send(self, prepared: Prepared) -> None:
        self._identity = {"reference": prepared.run.reference, "journal": prepared.journal.path}
        assert self._access is not None
        if isinstance(self.task, NewRun) and self.task.pilot is not None:
            await self._predict(prepared, self._access, self.task.pilot)
            return
        try:
            ended = await execute(prepared, self._access, self._emit, on_start=self._on_start)
            if self._observers is not None:
                secrets = () if self._access.key is None else (self._access.key.value,)
                ended = await self._observers.finish(ended, end_event(ended, prepared.run), secrets=secrets)
                self._notices.extend(printable(self._masked(note), 300) for note in ended.notes)
        except BatchrunError as error:
            self._fail(error, error.exit_code)
        else:
            self.exit_code = ended.exit_code
            if ended.message and ended.exit_code not in (ExitCode.OK, ExitCode.ROWS_FAILED):
                self._trouble = Trouble(self._masked(ended.message), ended.hint)

    async def _predict(self, prepared: Prepared, access: Access, rows: int) -> None:
        with contextlib.closing(prepared):
            try:
                ending = await pilot(prepared, rows, access, self._emit, on_start=self._on_start)
            except BatchrunError as error:
                self._fail(error, error.exit_code)
                return
            stated = (None, None) if self._run is None else self._run.stated
            await asyncio.to_thread(estimate_after, prepared, *stated)
        self.exit_code = ending.exit_code
        if ending.exit_code is not ExitCode.OK:
            self._trouble = Trouble(self._masked(ending.message or ending.exit_code.name.lower()), ending.hint)

    def _fail(self, error: BatchrunError, exit_code: ExitCode) -> None:
        self.exit_code = exit_code
        self.drift = error if isinstance(error, DriftError) else None
        self._trouble = Trouble(self._masked(error.message), error.hint)

    def _masked(self, text: str) -> str:
        return text if self._access is None else self._access.mask.text(text)

    def _prepare(self) -> Prepared:
        task = self.task
        if isinstance(task, NewRun):
            gathered = gather(task.flags)
            check_input(gathered.settings)
            self._access = check_provider(gathered)
            if task.whole:
                self._observers = Observers(gathered.settings)
            return prepare(gathered, self._emit, only=task.only)
        found, gathered = prepare_resume(
            task.reference, dict(task.flags), failed=task.failed, cause=task.cause, only=task.only, done=task.done
        )
        return self._admitted(found, gathered)

    def _admitted(self, prepared: Prepared, gathered: Gathered) -> Prepared:
        try:
            self._access = access(prepared.plan, gathered)
            self._observers = Observers(gathered.settings)
        except BaseException:
            prepared.close()
            raise
        return prepared

    def _emit(self, event: Event) -> None:
        self._fold(event)
        if self._observers is not None:
            self._observers.handle(event)
        if isinstance(event, IntakeProgress):
            self._checked = event.rows
            if self._stop is not None:
                raise _CancelledError
        elif isinstance(event, Notice):
            self._notices.append(printable(self._masked(event.message), 300))

    def _on_start(self, run: Run) -> None:
        self._run = run
        if self._stop is not None:
            run.stop(self._stop, drain=0.0)

    def snapshot(self) -> RunSnapshot:
        """The same object once the run has ended."""
        if self._final is not None:
            return self._final
        snapshot = RunSnapshot(
            phase=self._phase(),
            progress=self._progress(),
            title=self._title(),
            checked=self._checked,
            bounds=self._bounds(),
            history=tuple(self._history),
            notices=tuple(self._notices),
            trouble=self._trouble,
            tried=isinstance(self.task, NewRun) and not self.task.whole,
            **self._identity,
        )
        if self.done is not None and self.done.done():
            self._final = snapshot
        return snapshot

    def _progress(self) -> Progress:
        now = time.monotonic() if self._run is None else asyncio.get_running_loop().time()
        progress = self._fold.snapshot(now)
        if progress.ended is not None:
            return overall(replace(progress, now=progress.ended.at))
        if not self._history or progress.now - self._history[-1].at >= 1.0:
            tokens = progress.input_tokens + progress.output_tokens
            self._history.append(Point(progress.now, progress.finished_here, tokens))
        return progress

    def read_again(self) -> bool:
        return self.active

    def _phase(self) -> Phase:
        if not self.active:
            return Phase.ENDED if self._prepared is not None else Phase.REFUSED
        if self._stop is not None or (self._run is not None and self._run.ending is not None):
            return Phase.STOPPING
        if self._prepared is None:
            return Phase.CHECKING
        if self._run is None:
            return Phase.CONNECTING
        return Phase.PAUSED if self._run.paused else Phase.RUNNING

    def _title(self) -> str:
        if self._prepared is not None:
            return title_of(self._prepared.plan)
        if isinstance(self.task, ResumedRun):
            return printable(self.task.reference, 80)
        flags = self.task.flags
        return printable(f"{flags.get('prompt') or 'requests'} · {flags.get('input')}", 120)

    def _bounds(self) -> Bounds | None:
        if self._run is None:
            return None
        limits = self._run.limits
        return Bounds(limits.cap, limits.rpm, limits.tpm)

    def pause(self) -> None:
        if self._run is not None and self.active:
            self._run.pause()

    def resume(self) -> None:
        if self._run is not None and self.active:
            self._run.resume()

    def bound(self, bounds: Bounds) -> None:
        if self._run is not None and self.active:
            now = self._run.limits
            self._run.change(Limits(bounds.cap, now.fixed, bounds.rpm, bounds.tpm))

    def drain(self) -> None:
        self.stop(ExitCode.INTERRUPTED)

    def stop(self, code: ExitCode, drain: float | None = None) -> None:
        """Wait `drain` seconds, by default as planned; another call can only shorten it."""
        if self._stop is not None:
            if self._run is not None and drain is not None:
                asyncio.get_running_loop().call_later(drain, self._run.leave)
            return
        self._stop = RunResult(code, code.name.lower())
        if self._run is not None and self._prepared is not None:
            planned = self._prepared.plan.drain
            self._run.stop(self._stop, drain=planned if drain is None else min(drain, planned))

    def abandon(self) -> None:
        """Rows in flight become unknown."""
        self.drain()
        if self._run is not None:
            self._run.abandon()


def overall(progress: Progress) -> Progress:
    spent, tokens = progress.elapsed, progress.input_tokens + progress.output_tokens
    if spent <= 0:
        return progress
    return replace(progress, row_rate=progress.finished_here / spent, token_rate=tokens / spent)


def refusal(flags: Mapping[str, Any]) -> BatchrunError | None:
    """Blocks. `api_key_command` is not run: it may ask its user."""
    try:
        gathered = gather(flags)
        if not gathered.profile.api_key_command:
            check_provider(gathered)
    except BatchrunError as error:
        return error
    return None


def estimate_text(flags: Mapping[str, Any], wanted: Callable[[], bool]) -> EstimateText | None:
    """Reads the whole input. Raises BatchrunError."""

    def emit(_: Event) -> None:
        if not wanted():
            raise _CancelledError

    gathered = gather(flags)
    check_input(gathered.settings)
    try:
        found = estimate(gathered, emit)
    except _CancelledError:
        return None
    return EstimateText(estimates.brief(found), tuple(estimates.lines(found)))


def exported_rows(journal: Path, wanted: Wanted) -> str:
    """Raises BatchrunError."""
    with Reader.open(journal) as reader:
        plan = plan_from_json(reader.meta.plan)
        output = RunFile(journal, reader.meta).output
        if output is None:
            raise RefusedError("this run has no output file", "batchrun export RUN --output FILE")
        target = output.with_name(f"{output.stem}.filtered.jsonl")
        rows = write_chosen(plan, reader, wanted, target)
    return f"{target.name} ({counted(rows)})"


def exported(run: RunFile) -> str:
    """Raises BatchrunError."""
    if run.output is None:
        raise RefusedError(f"run {run.id} has no output file", f"batchrun export {run.id} --output FILE")
    with Reader.open(run.path) as reader:
        plan = plan_from_json(reader.meta.plan)
    found = write_output(plan, run.path, run.output, run.output)
    return ", ".join(str(path) for path in (*found.outputs, found.errors) if path is not None)
