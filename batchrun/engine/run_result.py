"""Why a run is over."""

from typing import NamedTuple, Protocol

from batchrun.errors import ExitCode


class RunResult(NamedTuple):
    exit_code: ExitCode
    message: str | None = None
    hint: str | None = None
    hasty: bool = False  # Writes no output
    notes: tuple[str, ...] = ()
    left_out: int = 0  # Rows that lack files


# Ends after which the process may soon be killed: the output is left to a later command
HASTY = frozenset({ExitCode.TERMINATED, ExitCode.HANGUP})


class Stop(Protocol):
    """`drain`: seconds to wait for requests in flight."""

    def __call__(self, ending: RunResult, *, drain: float) -> None: ...
