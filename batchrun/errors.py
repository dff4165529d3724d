"""Errors by who can fix them, and exit codes. Failures of single rows are outcomes, not exceptions.

RefusedError      the user, before any call                                     exit 2
StopError         the provider: a fatal answer, everything failing              exit 4
StorageError      the disk: the journal or the output                           exit 5
BusyError         another process holds the run                                 exit 11
"""

from enum import IntEnum
from pathlib import Path
from typing import ClassVar


class ExitCode(IntEnum):
    """Codes over 128 are 128 + signal number."""

    OK = 0
    UNEXPECTED = 1
    REFUSED = 2
    ROWS_FAILED = 3
    STOPPED = 4
    STORAGE = 5
    BUDGET = 6
    WAITING = 7
    BUSY = 11
    HANGUP = 129
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


class BatchrunError(Exception):
    """`hint` is the next step, shown on its own line."""

    exit_code: ClassVar[ExitCode] = ExitCode.UNEXPECTED

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")  # what a traceback shows, of a script or a notebook


class RefusedError(BatchrunError):
    exit_code = ExitCode.REFUSED


class InputError(RefusedError):
    """The input, or a row of it, cannot be read."""


class PromptError(RefusedError):
    # `line` is that of its file, from 1
    def __init__(self, message: str, hint: str | None = None, line: int | None = None) -> None:
        super().__init__(message, hint)
        self.line = line


class HostError(RefusedError):
    """The provider cannot be reached or trusted."""


class StopError(BatchrunError):
    exit_code = ExitCode.STOPPED


class StorageError(BatchrunError):
    exit_code = ExitCode.STORAGE


class UnreadableError(StorageError):
    """The body of a request cannot be read from its file."""


class DamagedError(StorageError):
    """`batchrun export` may still read part of the `journal`."""

    def __init__(self, message: str, hint: str | None, journal: Path) -> None:
        super().__init__(message, hint)
        self.journal = journal


class BusyError(BatchrunError):
    exit_code = ExitCode.BUSY
