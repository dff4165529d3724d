"""Whose fault it is, and how the process ends.

    BatchrunError                 the message says what, where, and what to do next
    ├── RefusedError              the user's to mend, before any call: usage, configuration          exit 2
    │   ├── InputError            the input file or a row of it
    │   ├── PromptError           the prompt file or its variables
    │   └── HostError             the provider cannot be reached or trusted
    ├── StopError                 the provider's: a fatal answer, everything failing                  exit 4
    ├── StorageError              the disk's: the journal or the output cannot be written or read     exit 5
    │   └── DamagedError          a journal is not whole; part of it may still be read
    └── BusyError                 another process holds the run                                       exit 11

Failures of single rows are not exceptions but outcomes (`models.Outcome`).
"""

from enum import IntEnum
from pathlib import Path
from typing import ClassVar


class ExitCode(IntEnum):
    """How a command ends; documented in `--help`. Codes over 128 follow the shell's 128 + signal number."""

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
    """Anything batchrun can explain. `hint` is the next step, shown on a line of its own."""

    exit_code: ClassVar[ExitCode] = ExitCode.UNEXPECTED

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")  # what a traceback shows, of a script or a notebook


class RefusedError(BatchrunError):
    """Refused before any call."""

    exit_code = ExitCode.REFUSED


class InputError(RefusedError):
    """The input cannot be read, or rows of it cannot be taken."""


class PromptError(RefusedError):
    """The prompt cannot be loaded, or variables of it are missing. `line` is the line of its file, from 1, if known."""

    def __init__(self, message: str, hint: str | None = None, line: int | None = None) -> None:
        super().__init__(message, hint)
        self.line = line


class HostError(RefusedError):
    """The provider cannot be reached, or its certificate cannot be trusted."""


class StopError(BatchrunError):
    """The provider's answer ends the run; the rows stay pending."""

    exit_code = ExitCode.STOPPED


class StorageError(BatchrunError):
    """The journal or the output cannot be written or read."""

    exit_code = ExitCode.STORAGE


class DamagedError(StorageError):
    """A journal is not whole; `batchrun export` may still read part of it. `journal` is where it lies."""

    def __init__(self, message: str, hint: str | None, journal: Path) -> None:
        super().__init__(message, hint)
        self.journal = journal


class BusyError(BatchrunError):
    """Another process holds the run."""

    exit_code = ExitCode.BUSY
