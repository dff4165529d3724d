"""Protocols between screens and the rest: the snapshot of a run, its steering, and the services of the app."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from textual.app import App
from textual.dom import DOMNode
from textual.screen import Screen

from batchrun.errors import BatchrunError
from batchrun.progress import Progress

if TYPE_CHECKING:
    from batchrun.journal import Wanted
    from batchrun.registry import RunFile


PILOT = 50  # rows


class Phase(StrEnum):
    CHECKING = "checking rows"
    CONNECTING = "connecting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    ENDED = "ended"
    REFUSED = "refused"


class Trouble(NamedTuple):
    message: str
    hint: str | None


class Bounds(NamedTuple):
    """Limits set by the user; rates are per minute."""

    cap: int
    rpm: float | None
    tpm: float | None


class EstimateText(NamedTuple):
    brief: str
    lines: tuple[str, ...]


class Point(NamedTuple):
    """Progress at one time, for sparklines; `at` is in seconds."""

    at: float
    rows: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSnapshot:
    """The state of a run at one time.

    `taken` is the rows checked so far; `reference` identifies the run on a command line, None before it has a journal.
    `foreign` names the process that works on a run of another process; `state` is that of an old run.
    """

    phase: Phase
    progress: Progress
    title: str
    taken: int = 0
    reference: str | None = None
    journal: Path | None = None
    bounds: Bounds | None = None
    history: Sequence[Point] = ()
    notices: tuple[str, ...] = ()
    trouble: Trouble | None = None
    foreign: str | None = None
    state: str | None = None
    tried: bool = False

    @property
    def steerable(self) -> bool:
        return self.bounds is not None and self.phase not in (Phase.ENDED, Phase.REFUSED)


class Watched(Protocol):
    def snapshot(self) -> RunSnapshot:
        """The current state; returns at once."""
        ...

    def read_again(self) -> bool:
        """Read from the journal, in a thread, what no event reports; returns whether it may still change."""
        ...


class Steered(Watched, Protocol):
    """A run of this process, or of another one through its socket."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def bound(self, bounds: Bounds) -> None: ...

    def drain(self) -> None: ...

    def abandon(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run of these flags.

    `only` is the positions of the rows of a try, `pilot` the number of rows of a pilot; neither writes an output.
    """

    flags: Mapping[str, Any]
    only: tuple[int, ...] | None = None
    pilot: int | None = None

    @property
    def whole(self) -> bool:
        return self.only is None and self.pilot is None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumedRun:
    """Resume a journaled run: pending rows, also all failed ones, those of a cause, or `only` rows by position.

    With `done` rows that have a reply are sent again.
    """

    reference: str
    flags: Mapping[str, Any]
    failed: bool = False
    cause: str | None = None
    only: tuple[int, ...] | None = None
    done: bool = False


Task = NewRun | ResumedRun


class Services(Protocol):
    @property
    def steered(self) -> Steered | None:
        """The run of this process, also after its end."""
        ...

    @property
    def busy(self) -> bool:
        """Whether a run of this process is active."""
        ...

    @property
    def time(self) -> float:
        """Seconds of the loop's clock."""
        ...

    @property
    def runs_dir(self) -> str | None: ...

    def begin(self, task: Task) -> bool:
        """Start a run; False if one is active."""
        ...

    def show_run(self, watched: Watched | None) -> None:
        """Go to the run screen with this run."""
        ...

    async def export(self, run: "RunFile") -> str:
        """Write a run's output again; returns the names. Raises BatchrunError."""
        ...

    async def export_rows(self, journal: Path, wanted: "Wanted") -> str:
        """Write the wanted rows to a file; returns its name and their number. Raises BatchrunError."""
        ...

    async def refusal(self, flags: Mapping[str, Any]) -> BatchrunError | None:
        """Why a run of these flags would be refused, by its settings and key."""
        ...

    async def estimate(self, flags: Mapping[str, Any], wanted: Callable[[], bool]) -> EstimateText | None:
        """The estimate of these flags; None once not `wanted`. Raises BatchrunError."""
        ...

    def edit_again(self, path: Path, position: int) -> None:
        """Open the setup of a journaled run at this row."""
        ...


def services(screen: Screen[Any]) -> Services:
    return cast("Services", screen.app)


def run_flags(screen: Screen[Any]) -> dict[str, Any]:
    """The flags by which a run of this app's directory is found."""
    runs_dir = services(screen).runs_dir
    return {"runs_dir": runs_dir} if runs_dir else {}


def app_of(node: DOMNode) -> App[Any]:
    return cast("App[Any]", node.app)  # pyright: ignore[reportUnknownMemberType]  Textual leaves the app's result open
