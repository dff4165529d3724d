"""The error line, the hint line and the exit code of a command that fails."""

import errno
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack

import click

from batchrun.errors import BatchrunError, ExitCode

_OF_PATHS = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.ENOENT, errno.EEXIST, errno.ENAMETOOLONG),
        *(errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EROFS),
    }
)


class ErrorBoundary:
    """A command sets `mask`, which removes secrets, and `keeps_log` as soon as it can; `log` is closed at the end."""

    def __init__(self) -> None:
        self.mask: Callable[[str], str] = str
        self.log = ExitStack()
        self.keeps_log = False

    def run(self, command: Callable[[], int]) -> int:
        with self.log:
            return _with_closed_pipe(self._run(command))

    def _run(self, command: Callable[[], int]) -> int:
        try:
            code = command()
            sys.stdout.flush()
        except BatchrunError as error:
            self.report(error.message, error.hint)
            code = error.exit_code
        except click.ClickException as error:
            text = " ".join(error.format_message().split()).rstrip(".")  # choices are on lines of their own
            hint = f"{error.ctx.command_path} --help" if isinstance(error, click.UsageError) and error.ctx else None
            self.report(text[:1].lower() + text[1:], hint)
            code = ExitCode.REFUSED
        except click.exceptions.Exit as error:
            code = error.exit_code
        except (KeyboardInterrupt, click.Abort):
            code = ExitCode.INTERRUPTED
        except OSError as error:
            code = self._system(error)
        except Exception as error:  # noqa: BLE001  the one border where anything may arrive
            code = self._unexpected(error)
        return code

    def masked(self, text: str) -> str:
        return self.mask(_without_environment(text))

    def report(self, message: str, hint: str | None = None, label: str = "error") -> None:
        from batchrun.display import coloured, printable  # noqa: PLC0415  only on the way to an error

        text = f"batchrun: {label}: {message}" + (f"\nhint: {hint}" if hint else "")
        lines = text.replace("\n", "\n  ").split("\n")
        try:
            for place, line in enumerate(lines):
                shown = printable(self.masked(line))
                click.echo(click.style(shown, fg="red") if place == 0 and coloured(sys.stderr) else shown, err=True)
        except OSError:
            return

    def _system(self, error: OSError) -> ExitCode:
        if error.errno == errno.EPIPE:
            return ExitCode.BROKEN_PIPE
        if error.errno == errno.EBADF:
            self.report("standard output is closed", "open it, or name an --output file")
            return ExitCode.STORAGE
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG):
            self.report(f"cannot write: {error.strerror}", "free some space, then repeat the command")
            return ExitCode.STORAGE
        if error.errno in _OF_PATHS and error.filename is not None:
            name = os.fsdecode(error.filename)
            self.report(f"{name}: {error.strerror}", "check the path, and that you may read and write there")
            return ExitCode.STORAGE
        return self._unexpected(error)

    def _unexpected(self, error: Exception) -> ExitCode:
        if self.keeps_log:
            import logging  # noqa: PLC0415  only where a log was asked for

            logging.getLogger("batchrun").error("unexpected", exc_info=error)
        hint = "the log has the traceback" if self.keeps_log else "add --verbose or --log-file FILE for the traceback"
        self.report(f"{type(error).__name__}: {error}", f"this is a bug in batchrun; {hint}", label="unexpected error")
        return ExitCode.UNEXPECTED


def _without_environment(line: str) -> str:
    for name, value in os.environ.items():
        if len(value) >= 8 and any(word in name.upper() for word in ("KEY", "TOKEN", "SECRET", "PASSWORD")):
            line = line.replace(value, f"${name}")
    return line


def _with_closed_pipe(code: int) -> int:
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        broken = isinstance(error, OSError) and error.errno == errno.EPIPE
        return code or (ExitCode.BROKEN_PIPE if broken else ExitCode.STORAGE)
    return code
