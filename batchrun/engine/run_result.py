"""Why a run is over."""

from typing import NamedTuple, Protocol

from batchrun.errors import ExitCode


class RunResult(NamedTuple):
    """A `hasty` end writes no output; `left_out` rows lack files."""

    exit_code: ExitCode
    message: str | None = None
    hint: str | None = None
    hasty: bool = False
    notes: tuple[str, ...] = ()
    left_out: int = 0


HASTY = frozenset({ExitCode.TERMINATED, ExitCode.HANGUP})
"""Ends after which the process may soon be killed: the output is left to a later command."""


class Stop(Protocol):
    """`drain`: seconds to wait for requests in flight."""

    def __call__(self, ending: RunResult, *, drain: float) -> None: ...
