"""What a screen may know and ask: the snapshot of a run, how to steer it, and the services that begin runs. No behaviour.

Screens and widgets meet the engine only through these protocols; the app and its session fulfil them.
"""

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


PILOT = 50
"""Rows of a pilot."""


class Phase(StrEnum):
    """What a run is doing, in one word."""

    CHECKING = "checking rows"
    CONNECTING = "connecting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    ENDED = "ended"
    REFUSED = "refused"


class Trouble(NamedTuple):
    """Why a run was refused or stopped, and what to do next."""

    message: str
    hint: str | None


class Bounds(NamedTuple):
    """The limits that the user has set: concurrency cap, requests and tokens per minute."""

    cap: int
    rpm: float | None
    tpm: float | None


class EstimateText(NamedTuple):
    """What a run would send, cost and take, before it is started: in a few words, and as `batchrun plan` says it."""

    brief: str
    lines: tuple[str, ...]


class Point(NamedTuple):
    """How far a run was at a moment, for the sparklines; `at` is in seconds of one clock."""

    at: float
    rows: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSnapshot:
    """The state of a run at one moment, as screens show it.

    `taken` are the rows that were checked so far, `started` is Unix time. `reference` is what a user types to mean the
    run, None until it has a journal. `foreign` names the process that works on a run that is only looked at, `said` is
    how an old run ended.
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
    said: str | None = None
    tried: bool = False

    @property
    def steerable(self) -> bool:
        """Whether the run is under way and takes limits, pauses and stops."""
        return self.bounds is not None and self.phase not in (Phase.ENDED, Phase.REFUSED)


class Watched(Protocol):
    """A run to look at."""

    def snapshot(self) -> RunSnapshot:
        """What is to be seen now; returns at once."""
        ...

    def read_again(self) -> bool:
        """Read from the journal what no event reports; in a thread. Returns whether it can still change."""
        ...


class Steered(Watched, Protocol):
    """A run that can be steered: of this process, or of another one through its socket."""

    def pause(self) -> None: ...

    def go_on(self) -> None: ...

    def bound(self, bounds: Bounds) -> None: ...

    def drain(self) -> None: ...

    def abandon(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """A run of what the setup says: flags as the command line has them.

    `only` some rows, by position, is a try; `pilot` is how many rows from all over the input are sent to predict the
    rest from. Neither writes an output.
    """

    flags: Mapping[str, Any]
    only: tuple[int, ...] | None = None
    pilot: int | None = None

    @property
    def whole(self) -> bool:
        """Whether all rows are sent."""
        return self.only is None and self.pilot is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """Resuming a journaled run: what is left, what failed too, what failed for a cause, or rows by position.

    With `done` the rows of `only` are sent again though they have a reply.
    """

    reference: str
    flags: Mapping[str, Any]
    failed: bool = False
    cause: str | None = None
    only: tuple[int, ...] | None = None
    done: bool = False


Task = Fresh | Again


class Services(Protocol):
    """Where screens ask for runs."""

    @property
    def steered(self) -> Steered | None:
        """The run of this process, also after it has ended."""
        ...

    @property
    def busy(self) -> bool:
        """Whether a run of this process is under way."""
        ...

    @property
    def time(self) -> float:
        """Seconds of the loop's clock."""
        ...

    @property
    def runs_dir(self) -> str | None: ...

    def begin(self, task: Task) -> bool:
        """Start a run; False where one is under way already."""
        ...

    def show_run(self, watched: Watched | None) -> None:
        """Show a run on the run screen."""
        ...

    async def export(self, run: "RunFile") -> str:
        """Write the output of a run again; the names of what was written. Raises BatchrunError."""
        ...

    async def export_rows(self, journal: Path, wanted: "Wanted") -> str:
        """Write the rows that are wanted to a file of their own; its name and how many. Raises BatchrunError."""
        ...

    async def refusal(self, flags: Mapping[str, Any]) -> BatchrunError | None:
        """Why a run of these flags would be refused, judged by the settings and whether there is a key."""
        ...

    async def estimate(self, flags: Mapping[str, Any], wanted: Callable[[], bool]) -> EstimateText | None:
        """What a run of these flags would send, cost and take; None when not `wanted` any more. Raises BatchrunError."""
        ...

    def edit_again(self, path: Path, position: int) -> None:
        """Open the setup of a journaled run, with this row to try."""
        ...


def services(screen: Screen[Any]) -> Services:
    """The services of the app that a screen belongs to."""
    return cast("Services", screen.app)


def app_of(node: DOMNode) -> App[Any]:
    """The app that a screen or widget belongs to, whatever it returns."""
    return cast("App[Any]", node.app)  # pyright: ignore[reportUnknownMemberType]  Textual leaves the app's result open
