"""What is told of a run besides its user interface, as the settings say: the metrics file and OpenTelemetry while it runs, and
at the end a command (the account as JSON on its standard input) or an address (posted to it).

Every way to run (`headless`, the app) makes one `Observers`, hands it each event, and lets it `finish`; without such
settings it does nothing. A notification that fails is reported and changes no exit code.
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
from batchrun.report import prometheus

if TYPE_CHECKING:
    from batchrun.report.telemetry import Telemetry

import json
import shlex
import signal
import tempfile
from collections.abc import Coroutine

from batchrun.engine.run_result import HASTY
from batchrun.errors import ExitCode, RefusedError
from batchrun.plan.address import is_loopback

SECONDS = 30.0
"""What a notification may take; SECONDS_HASTY after SIGTERM and SIGHUP, as service managers kill soon."""
SECONDS_HASTY = 3.0
_LOOK_EVERY = 0.1
_SAID = 300
"""Characters of a command's last error output that are shown."""


def check_notifications(settings: Settings) -> None:
    """Raises RefusedError for a command that cannot be split into words, and for an address in the clear."""
    if settings.notify is not None:
        try:
            shlex.split(settings.notify)
        except ValueError as error:
            raise RefusedError(f"--notify: {error}", "quote it as a shell would; no shell runs it") from error
    url = settings.notify_url
    if url is not None and url.startswith("http://") and not (is_loopback(url) or settings.insecure_http):
        raise RefusedError(
            "notify_url would travel unencrypted to another machine",
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
    """Send the account to whom the settings name; what went wrong, a sentence each. Ends early once `given_up`."""
    body = json.dumps(account).encode() + b"\n"
    targets: dict[str, Coroutine[Any, Any, str | None]] = {}
    if settings.notify is not None:
        targets["--notify"] = _command(shlex.split(settings.notify), body, environ)
    if settings.notify_url is not None:
        from batchrun.client.webhook import deliver  # noqa: PLC0415  only where an address is to be told

        targets["notify_url"] = deliver(settings.notify_url, body, ca_file=settings.ca_file)
    limit = SECONDS_HASTY if exit_code in HASTY else SECONDS
    found = [(name, await _within(limit, work, given_up)) for name, work in targets.items()]
    return [f"{name} failed: {printable(trouble, 500)}" for name, trouble in found if trouble is not None]


async def _within(limit: float, work: Coroutine[Any, Any, str | None], given_up: Callable[[], bool]) -> str | None:
    loop = asyncio.get_running_loop()
    deadline, task = loop.time() + limit, loop.create_task(work)
    try:
        while not task.done():
            if given_up():
                return "interrupted"
            if loop.time() >= deadline:
                return f"no end after {limit:.0f} s"
            await asyncio.wait({task}, timeout=_LOOK_EVERY)
        return task.result()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})


async def _command(words: list[str], body: bytes, environ: Mapping[str, str]) -> str | None:
    """Run it, in a process group of its own that is killed where it is given up, and its output nowhere."""
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
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4 * _SAID))
        said = errors.read().decode("utf-8", "replace").strip()[-_SAID:]
        return f"exit {process.returncode}" + (f": {said}" if said else "")


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


WRITE_EVERY = 5.0
"""Seconds between two writes of the metrics file; node exporters are scraped every 15 or 60."""


class Observers:
    """Made before anything is sent. Raises RefusedError for what the settings name and cannot be used."""

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
        troubles = await notify(self._settings, account, ended.exit_code, environ=environ, given_up=given_up)
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
        """A file that cannot be written now is tried again; the last error is printed at the end."""
        text = prometheus.text_of(self._fold.snapshot(asyncio.get_running_loop().time()), self._run)
        try:
            await asyncio.to_thread(prometheus.write, path, text)
            self._trouble = None
        except OSError as error:
            self._trouble = f"--metrics-file failed: {error.strerror or error}"
