"""Metrics file and OpenTelemetry during a run; at its end a command or URL that gets the account as JSON.

Headless runs and the app make one `Observers`. A failed notification is reported and changes no exit code.
"""

import asyncio
import contextlib
import json
import os
import shlex
import signal
import tempfile
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchrun.display import printable
from batchrun.engine.run_result import HASTY
from batchrun.errors import ExitCode, RefusedError
from batchrun.events import Event, RunEnded, RunStarted, single
from batchrun.plan.address import is_loopback
from batchrun.plan.settings import Settings
from batchrun.progress import Fold
from batchrun.report import prometheus

if TYPE_CHECKING:
    from batchrun.report.telemetry import Telemetry

SECONDS = 30.0
"""Time limit of a notification; SECONDS_HASTY after SIGTERM and SIGHUP, as service managers kill soon."""
SECONDS_HASTY = 3.0
_POLL_EVERY = 0.1
_SHOWN_ERROR = 300  # characters


def check_notifications(settings: Settings) -> None:
    """Raises RefusedError for a command that cannot be split into words, and for an unencrypted address."""
    if settings.notify is not None:
        try:
            shlex.split(settings.notify)
        except ValueError as error:
            raise RefusedError(f"--notify: {error}", "quote it as in a shell; it runs without one") from error
    url = settings.notify_url
    if url is not None and url.startswith("http://") and not (is_loopback(url) or settings.insecure_http):
        raise RefusedError(
            "notify_url would be sent unencrypted to another machine",
            "use an https:// address, or add --insecure-http if this network is yours",
        )


async def notify(
    settings: Settings,
    account: Mapping[str, Any],
    exit_code: ExitCode,
    *,
    environ: Mapping[str, str],
    given_up: Callable[[], bool] = lambda: False,
) -> list[str]:
    """Send the account to the command and the address of the settings; returns an error sentence for each failure. Ends
    early once `given_up`."""
    body = json.dumps(account).encode() + b"\n"
    targets: dict[str, Coroutine[Any, Any, str | None]] = {}
    if settings.notify is not None:
        targets["--notify"] = _command(shlex.split(settings.notify), body, environ)
    if settings.notify_url is not None:
        from batchrun.client.webhook import deliver  # noqa: PLC0415  only where an address is notified

        targets["notify_url"] = deliver(settings.notify_url, body, ca_file=settings.ca_file)
    limit = SECONDS_HASTY if exit_code in HASTY else SECONDS
    found = [(name, await _within(limit, work, given_up)) for name, work in targets.items()]
    return [f"{name} failed: {printable(failure, 500)}" for name, failure in found if failure is not None]


async def _within(limit: float, work: Coroutine[Any, Any, str | None], given_up: Callable[[], bool]) -> str | None:
    loop = asyncio.get_running_loop()
    deadline, task = loop.time() + limit, loop.create_task(work)
    try:
        while not task.done():
            if given_up():
                return "interrupted"
            if loop.time() >= deadline:
                return f"did not end within {limit:.0f} s"
            await asyncio.wait({task}, timeout=_POLL_EVERY)
        return task.result()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})


async def _command(words: list[str], body: bytes, environ: Mapping[str, str]) -> str | None:
    """Run it without output, in a process group of its own that is killed on cancellation."""
    with tempfile.TemporaryFile() as errors:
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=errors,
                env=dict(environ),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return getattr(error, "strerror", None) or str(error)
        try:
            await process.communicate(body)
        finally:
            if process.returncode is None:
                _kill(process)
                await process.wait()
        if process.returncode == 0:
            return None
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4 * _SHOWN_ERROR))
        text = errors.read().decode("utf-8", "replace").strip()[-_SHOWN_ERROR:]
        return f"exit {process.returncode}" + (f": {text}" if text else "")


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


WRITE_EVERY = 5.0
"""Seconds between writes of the metrics file; node exporters are scraped every 15 or 60."""


class Observers:
    """Made before anything is sent. Raises RefusedError for unusable settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._file = None if settings.metrics_file is None else Path(settings.metrics_file)
        check_notifications(settings)
        if self._file is not None:
            prometheus.check_place(self._file)
        self._telemetry: Telemetry | None = None
        if settings.otel:
            from batchrun.report import telemetry  # noqa: PLC0415  the extra `otel`, only where it is wanted

            self._telemetry = telemetry.Telemetry()
        self._fold = Fold()
        self.listen = self._file is not None or self._telemetry is not None
        """Whether events are wanted."""
        self._run = ""
        self._writing: asyncio.Task[None] | None = None
        self._error: str | None = None

    def handle(self, event: Event) -> None:
        """Takes every event in order, from RunStarted on in the loop."""
        if self._telemetry is not None:
            for each in single(event):
                self._telemetry.handle(each)
        if self._file is None:
            return
        self._fold(event)
        if isinstance(event, RunStarted):
            self._run = event.run
            self._writing = asyncio.get_running_loop().create_task(self._write_periodically(self._file))

    async def finish(
        self,
        ended: RunEnded,
        account: Mapping[str, Any],
        *,
        secrets: tuple[str, ...] = (),
        given_up: Callable[[], bool] = lambda: False,
    ) -> RunEnded:
        """Write and notify how it ended; returns the end with a note for each failure.

        A command gets no variable that contains one of the `secrets` or the address to notify.
        """
        if self._file is not None and self._run:
            await self.close()
            await self._write(self._file)
        unsent = None if self._telemetry is None else await asyncio.to_thread(self._telemetry.close)
        hidden = (*secrets, self._settings.notify_url)
        environ = {
            name: value for name, value in os.environ.items() if not any(each and each in value for each in hidden)
        }
        failures = await notify(self._settings, account, ended.exit_code, environ=environ, given_up=given_up)
        if unsent is not None:
            failures.insert(0, f"--otel failed: {printable(unsent, 300)}")
        if self._error is not None:
            failures.insert(0, self._error)
        return replace(ended, notes=(*ended.notes, *failures)) if failures else ended

    async def close(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writing

    async def _write_periodically(self, path: Path) -> None:
        while True:
            await self._write(path)
            await asyncio.sleep(WRITE_EVERY)

    async def _write(self, path: Path) -> None:
        """A failed write is retried later; the last error is reported at the end."""
        text = prometheus.text_of(self._fold.snapshot(asyncio.get_running_loop().time()), self._run)
        try:
            await asyncio.to_thread(prometheus.write, path, text)
            self._error = None
        except OSError as error:
            self._error = f"--metrics-file failed: {error.strerror or error}"
