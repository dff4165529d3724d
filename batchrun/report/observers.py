"""Metrics file and OpenTelemetry during a run; at its end a command or URL that gets the account as JSON.

A failed notification changes no exit code. The metrics file is for the textfile collector of a node exporter
(https://prometheus.io/docs/instrumenting/exposition_formats/).
"""

import asyncio
import contextlib
import json
import os
import shlex
import signal
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from batchrun.account import TOKENS
from batchrun.display import printable
from batchrun.engine.run_result import HASTY
from batchrun.errors import ExitCode, RefusedError
from batchrun.events import Event, RunEnded, RunStarted, single
from batchrun.plan.address import is_loopback
from batchrun.plan.settings import Settings
from batchrun.pricing import usd
from batchrun.progress import Fold, Progress

if TYPE_CHECKING:
    from batchrun.report.telemetry import Telemetry

# SECONDS_HASTY after SIGTERM and SIGHUP, as service managers kill soon
SECONDS = 30.0
SECONDS_HASTY = 3.0
_POLL_EVERY = 0.1
_SHOWN_ERROR = 300  # characters


def check_notifications(settings: Settings) -> None:
    """Raises RefusedError."""
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
    interrupted: Callable[[], bool] = lambda: False,
) -> list[str]:
    """Returns a sentence for each failure."""
    body = json.dumps(account).encode() + b"\n"
    targets: dict[str, Coroutine[Any, Any, str | None]] = {}
    if settings.notify is not None:
        targets["--notify"] = _command(shlex.split(settings.notify), body, environ)
    if settings.notify_url is not None:
        from batchrun.client.calls import deliver  # noqa: PLC0415  only where an address is notified

        targets["notify_url"] = deliver(settings.notify_url, body, ca_file=settings.ca_file)
    limit = SECONDS_HASTY if exit_code in HASTY else SECONDS
    found = [(name, await _within(limit, work, interrupted)) for name, work in targets.items()]
    return [f"{name} failed: {printable(failure, 500)}" for name, failure in found if failure is not None]


async def _within(limit: float, work: Coroutine[Any, Any, str | None], interrupted: Callable[[], bool]) -> str | None:
    loop = asyncio.get_running_loop()
    deadline, task = loop.time() + limit, loop.create_task(work)
    try:
        while not task.done():
            if interrupted():
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
    # in a process group of its own, which is killed on cancellation
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


# seconds; exporters are scraped every 15 or 60
WRITE_EVERY = 5.0


class Observers:
    """Made before anything is sent. Raises RefusedError."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._file = None if settings.metrics_file is None else Path(settings.metrics_file)
        check_notifications(settings)
        if self._file is not None:
            check_metrics_file(self._file)
        self._telemetry: Telemetry | None = None
        if settings.otel:
            from batchrun.report import telemetry  # noqa: PLC0415  the extra `otel`, only where it is wanted

            self._telemetry = telemetry.Telemetry()
        self._fold = Fold()
        self.listen = self._file is not None or self._telemetry is not None
        self._run = ""
        self._writing: asyncio.Task[None] | None = None
        self._error: str | None = None

    def handle(self, event: Event) -> None:
        """Called in the loop from RunStarted on."""
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
        interrupted: Callable[[], bool] = lambda: False,
    ) -> RunEnded:
        """A command gets no variable that contains a secret or the address to notify."""
        if self._file is not None and self._run:
            await self.close()
            await self._write(self._file)
        unsent = None if self._telemetry is None else await asyncio.to_thread(self._telemetry.close)
        hidden = (*secrets, self._settings.notify_url)
        environ = {
            name: value for name, value in os.environ.items() if not any(each and each in value for each in hidden)
        }
        failures = await notify(self._settings, account, ended.exit_code, environ=environ, interrupted=interrupted)
        if unsent is not None:
            failures.insert(0, f"--otel failed: {printable(unsent, 300)}")
        if self._error is not None:
            failures.insert(0, self._error)
        return ended._replace(notes=(*ended.notes, *failures)) if failures else ended

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
        # the last error is reported at the end
        text = metrics_text(self._fold.snapshot(asyncio.get_running_loop().time()), self._run)
        try:
            await asyncio.to_thread(write_metrics, path, text)
            self._error = None
        except OSError as error:
            self._error = f"--metrics-file failed: {error.strerror or error}"


_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


class Metric(NamedTuple):
    name: str
    kind: str
    help: str
    samples: tuple[tuple[Mapping[str, str], float | None], ...]  # further labels, and a value if known


def check_metrics_file(path: Path) -> None:
    """Raises RefusedError."""
    if not path.parent.is_dir():
        raise RefusedError(f"--metrics-file: no such directory: {path.parent}", "make it, or name another file")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise RefusedError(f"--metrics-file: {path} cannot be written", "name a file in a directory of yours")


def write_metrics(path: Path, text: str) -> None:
    """By renaming, as the collector reads whole files. Raises OSError."""
    building = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        building.write_text(text, encoding="utf-8")
        building.replace(path)
    finally:
        with contextlib.suppress(OSError):
            building.unlink(missing_ok=True)


def metrics_text(progress: Progress, run: str, *, now: float | None = None) -> str:
    """`now` is Unix time."""
    lines: list[str] = []
    for metric in _metrics(progress, time.time() if now is None else now):
        samples = [(labels, value) for labels, value in metric.samples if value is not None]
        if samples:
            lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
        for labels, value in samples:
            pairs = ",".join(f'{name}="{label.translate(_ESCAPES)}"' for name, label in {"run": run, **labels}.items())
            lines.append(f"{metric.name}{{{pairs}}} {value:.15g}")
    return "\n".join(lines) + "\n"


def _metrics(progress: Progress, now: float) -> Iterator[Metric]:
    # row counters count the whole run, attempts and tokens this session
    limits, ended = progress.limits, progress.ended
    about = {"model": progress.model, "host": progress.host, "simulated": str(progress.simulated).lower()}
    yield Metric("batchrun_run_info", "gauge", "Provider and model of the run.", ((about, 1),))
    yield Metric("batchrun_running", "gauge", "1 while the run is active.", (({}, float(ended is None)),))
    yield Metric(
        "batchrun_exit_code", "gauge", "The exit code, once it has ended.", (({}, ended and float(ended.exit_code)),)
    )
    yield Metric("batchrun_updated_timestamp_seconds", "gauge", "When this was written.", (({}, now),))
    yield Metric("batchrun_rows", "gauge", "Rows of the run.", (({}, progress.rows),))
    yield Metric("batchrun_rows_total", "counter", "Rows with an outcome.", _by(progress, "done", "failed", "skipped"))
    states = _by(progress, "pending", "in_flight", "post", "in_batches", "unknown")
    yield Metric("batchrun_open_rows", "gauge", "Rows without an outcome.", states)
    causes = tuple(({"cause": cause}, float(rows)) for cause, rows in progress.causes.items())
    yield Metric("batchrun_failures_total", "counter", "Rows that failed in this session, by cause.", causes)
    for name, help_ in (
        ("attempts", "Attempts of this session, also those whose request did not leave."),
        ("retries", "Rows sent again after a failure."),
        ("throttled", "Requests answered by a 429."),
    ):
        yield Metric(f"batchrun_{name}_total", "counter", help_, (({}, getattr(progress, name)),))
    tokens = tuple(({"kind": name.removesuffix("_tokens")}, float(getattr(progress, name))) for name in TOKENS)
    yield Metric("batchrun_tokens_total", "counter", "Tokens of this session; cached is part of input.", tokens)
    cost = float(usd(progress.cost)) if progress.priced else None
    yield Metric("batchrun_cost_dollars_total", "counter", "US dollars that the run was charged.", (({}, cost),))
    yield Metric("batchrun_rows_per_second", "gauge", "Over half a minute.", (({}, progress.row_rate),))
    yield Metric("batchrun_tokens_per_second", "gauge", "Over half a minute.", (({}, progress.token_rate),))
    yield Metric("batchrun_elapsed_seconds", "gauge", "Since it began to send.", (({}, progress.elapsed),))
    yield Metric("batchrun_remaining_seconds", "gauge", "Estimated.", (({}, progress.eta),))
    yield Metric(
        "batchrun_concurrency_limit", "gauge", "Requests allowed in flight.", (({}, limits and limits.allowed),)
    )
    rates = ("requests", limits and limits.rpm), ("tokens", limits and limits.tpm)
    allowed = tuple(({"of": name}, rate) for name, rate in rates)
    yield Metric("batchrun_rate_limit_per_minute", "gauge", "Rate limits in force.", allowed)
    reason = () if progress.waiting is None or ended else (({"reason": str(progress.waiting.reason)}, 1.0),)
    yield Metric("batchrun_waiting", "gauge", "1 while no request can be sent, and why.", reason)


def _by(progress: Progress, *names: str) -> tuple[tuple[dict[str, str], float], ...]:
    return tuple(({"state": name}, float(getattr(progress, name))) for name in names)
