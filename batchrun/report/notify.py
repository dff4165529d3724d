"""Tell a command or an address how a run ended: the account as JSON on its standard input, or posted to it.

A notification that fails is reported and changes no exit code.
"""

import asyncio
import contextlib
import json
import os
import shlex
import signal
import tempfile
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from batchrun.display import printable
from batchrun.engine.run_result import HASTY
from batchrun.errors import ExitCode, RefusedError
from batchrun.plan.address import is_loopback
from batchrun.plan.settings import Settings

SECONDS = 30.0
"""What a notification may take; SECONDS_HASTY after SIGTERM and SIGHUP, as service managers kill soon."""
SECONDS_HASTY = 3.0
_LOOK_EVERY = 0.1
_SAID = 300
"""Characters of a command's last error output that are shown."""


def check(settings: Settings) -> None:
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


async def tell(
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
