"""Why a run is over."""

from typing import NamedTuple

from batchrun.errors import ExitCode


class RunResult(NamedTuple):
    """Why the run is over; after a `hasty` end no output is written. `left_out` are rows that stay pending for want of
    their files."""

    exit_code: ExitCode
    message: str | None = None
    hint: str | None = None
    hasty: bool = False
    notes: tuple[str, ...] = ()
    left_out: int = 0


HASTY = frozenset({ExitCode.TERMINATED, ExitCode.HANGUP})
"""Ends after which somebody waits to kill the process: the output can be made later."""
