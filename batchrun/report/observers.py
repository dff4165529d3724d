"""Who is told of a run beside its face, as the settings say: the metrics file, OpenTelemetry, and at the end a command or an address.

Every way to run (`headless`, the app) makes one `Observers`, hands it each event, and lets it `finish`. Where the
settings name nobody it does nothing.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchrun.display import printable
from batchrun.events import Event, RunEnded, RunStarted, single
from batchrun.plan.settings import Settings
from batchrun.progress import Fold
from batchrun.report import notify, prometheus

if TYPE_CHECKING:
    from batchrun.report.telemetry import Telemetry

WRITE_EVERY = 5.0
"""Seconds between two writes of the metrics file; node exporters are scraped every 15 or 60."""


class Observers:
    """Made before anything is sent. Raises RefusedError for what the settings name and cannot be used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._file = None if settings.metrics_file is None else Path(settings.metrics_file)
        notify.check(settings)
        if self._file is not None:
            prometheus.check_place(self._file)
        self._telemetry: Telemetry | None = None
        if settings.otel:
            from batchrun.report import telemetry  # noqa: PLC0415  the extra `otel`, only where it is wanted

            self._telemetry = telemetry.Telemetry()
        self._fold = Fold()
        self.listen = self._file is not None or self._telemetry is not None
        """Whether anybody is to hear of events."""
        self._run = ""
        self._writing: asyncio.Task[None] | None = None
        self._trouble: str | None = None

    def hear(self, event: Event) -> None:
        """Every event, in order; from the start of the run on the loop."""
        if self._telemetry is not None:
            for each in single(event):
                self._telemetry.hear(each)
        if self._file is None:
            return
        self._fold(event)
        if isinstance(event, RunStarted):
            self._run = event.run
            self._writing = asyncio.get_running_loop().create_task(self._write_now_and_then(self._file))

    async def finish(
        self,
        ended: RunEnded,
        account: Mapping[str, Any],
        *,
        secrets: tuple[str, ...] = (),
        given_up: Callable[[], bool] = lambda: False,
    ) -> RunEnded:
        """Write and tell how it ended; the end with a note for each that failed.

        `account` is what is told. A command gets no variable that holds one of the `secrets` or the address to notify.
        """
        if self._file is not None and self._run:
            await self.close()
            await self._write(self._file)
        unsent = None if self._telemetry is None else await asyncio.to_thread(self._telemetry.close)
        hidden = (*secrets, self._settings.notify_url)
        environ = {
            name: value for name, value in os.environ.items() if not any(each and each in value for each in hidden)
        }
        troubles = await notify.tell(self._settings, account, ended.exit_code, environ=environ, given_up=given_up)
        if unsent is not None:
            troubles.insert(0, f"--otel failed: {printable(unsent, 300)}")
        if self._trouble is not None:
            troubles.insert(0, self._trouble)
        return replace(ended, notes=(*ended.notes, *troubles)) if troubles else ended

    async def close(self) -> None:
        """Stop writing now and then; closing twice does nothing."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writing

    async def _write_now_and_then(self, path: Path) -> None:
        while True:
            await self._write(path)
            await asyncio.sleep(WRITE_EVERY)

    async def _write(self, path: Path) -> None:
        """A file that cannot be written now is tried again; the last trouble is told at the end."""
        text = prometheus.text_of(self._fold.snapshot(asyncio.get_running_loop().time()), self._run)
        try:
            await asyncio.to_thread(prometheus.write, path, text)
            self._trouble = None
        except OSError as error:
            self._trouble = f"--metrics-file failed: {error.strerror or error}"
