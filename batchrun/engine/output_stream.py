"""Writes rows to a stream (`-o -`) during the run."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import BinaryIO, TypeVar

from batchrun.engine.export import Streamer, columns_of
from batchrun.engine.output_files import POLL_EVERY, UnreadError, outlet
from batchrun.engine.run import Run
from batchrun.engine.run_result import HASTY, RunResult
from batchrun.engine.start import Prepared
from batchrun.errors import ExitCode
from batchrun.journal import Reader
from batchrun.models import Kind

T = TypeVar("T")


class ReaderWait:
    """A hurried end stops it; once `alone`, any end does."""

    def __init__(self, run: Run | None) -> None:
        self._run = run
        self._alone = self._cancelled = False
        self._before: RunResult | None = None

    @property
    def ending(self) -> RunResult:
        return self._ending or RunResult(ExitCode.INTERRUPTED, "interrupted")

    def over(self) -> bool:
        """Thread-safe."""
        ending = self._ending
        hasty = ending is not None and (ending.hasty or ending.exit_code in HASTY)
        return hasty or self._cancelled or (self._alone and ending is not self._before)

    def alone(self) -> None:
        self._before, self._alone = self._ending, True  # Only writing is left

    async def write(self, work: Callable[[], T]) -> T:
        """Without a run, Ctrl-C is a cancellation."""
        self.alone()
        writing = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            self._cancelled = True
            return await writing

    @property
    def _ending(self) -> RunResult | None:
        return None if self._run is None else self._run.ending


class RowsOut:
    def __init__(self, prepared: Prepared, stream: BinaryIO, run: Run | None) -> None:
        self.changed = asyncio.Event()
        self._over = asyncio.Event()
        self._reader_wait = ReaderWait(run)
        self._failure: RunResult | None = None
        self._hint = f"`batchrun export {prepared.run.reference} --output FILE` writes what is done"
        self._plan = prepared.plan
        self._reader = Reader.open(prepared.journal.path)
        columns = columns_of(prepared.plan, self._reader)
        stream = outlet(stream, self._reader_wait.over)
        batch = prepared.plan.kind is Kind.BATCH
        fetch = self._reader.exchanges if batch else self._reader.export_rows
        self._streamer = Streamer(prepared.plan, fetch, stream, columns)

    async def beside(self, run: Run) -> RunResult:
        """Writes final rows meanwhile, in input order."""
        writing = asyncio.get_running_loop().create_task(self._write(run))
        ending = await run.run()
        self._reader_wait.alone()
        self._over.set()
        self.changed.set()
        await writing
        return await self.rest(ending)

    async def _write(self, run: Run) -> None:
        # One thread at a time, awaited even after the run: two would write the same rows.
        while not self._over.is_set():
            await self.changed.wait()
            self.changed.clear()
            self._failure = await asyncio.to_thread(self._tried, self._streamer.advance)
            if self._failure is not None:
                run.stop(self._failure, drain=self._plan.drain)
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), POLL_EVERY)

    def _tried(self, write: Callable[[], object]) -> RunResult | None:
        try:
            write()
        except UnreadError:
            ending = self._reader_wait.ending
            return ending._replace(hint=ending.hint or self._hint)
        except BrokenPipeError:
            return RunResult(ExitCode.BROKEN_PIPE, "the program that reads the output has ended")
        except OSError as error:
            return RunResult(ExitCode.STORAGE, f"the output cannot be written: {error.strerror}")
        return None

    async def rest(self, ending: RunResult) -> RunResult:
        with contextlib.closing(self._reader):
            if self._failure is None and ending.exit_code is not ExitCode.STORAGE:
                self._failure = await self._reader_wait.write(partial(self._tried, self._all))
        return self._failure or ending

    def _all(self) -> None:
        self._streamer.advance(all_rows=True)
        self._streamer.close()
