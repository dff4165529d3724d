"""Protocols between screens and the rest."""

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
    """Rates are per minute."""

    cap: int
    rpm: float | None
    tpm: float | None


class EstimateText(NamedTuple):
    brief: str
    lines: tuple[str, ...]


class Point(NamedTuple):
    at: float
    rows: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSnapshot:
    phase: Phase
    progress: Progress
    title: str
    checked: int = 0  # rows so far
    reference: str | None = None  # the run on a command line, None before it has a journal
    journal: Path | None = None
    bounds: Bounds | None = None
    history: Sequence[Point] = ()
    notices: tuple[str, ...] = ()
    trouble: Trouble | None = None
    foreign: str | None = None  # another process that works on it
    state: str | None = None  # that of an old run
    tried: bool = False

    @property
    def steerable(self) -> bool:
        return self.bounds is not None and self.phase not in (Phase.ENDED, Phase.REFUSED)


class Watched(Protocol):
    def snapshot(self) -> RunSnapshot: ...

    def read_again(self) -> bool:
        """Runs in a thread; returns whether the run may change."""
        ...


class Steered(Watched, Protocol):
    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def bound(self, bounds: Bounds) -> None: ...

    def drain(self) -> None: ...

    def abandon(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """`only`: positions of the rows of a try; `pilot`: rows of a pilot. Neither writes an output."""

    flags: Mapping[str, Any]
    only: tuple[int, ...] | None = None
    pilot: int | None = None

    @property
    def whole(self) -> bool:
        return self.only is None and self.pilot is None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumedRun:
    """Pending rows, also failed ones, those of a cause, or `only` rows by position; `done`: also with a reply."""

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
    def busy(self) -> bool: ...

    @property
    def time(self) -> float: ...

    @property
    def runs_dir(self) -> str | None: ...

    def begin(self, task: Task) -> bool: ...

    def show_run(self, watched: Watched | None) -> None: ...

    async def export(self, run: "RunFile") -> str:
        """Raises BatchrunError."""
        ...

    async def export_rows(self, journal: Path, wanted: "Wanted") -> str:
        """Raises BatchrunError."""
        ...

    async def refusal(self, flags: Mapping[str, Any]) -> BatchrunError | None: ...

    async def estimate(self, flags: Mapping[str, Any], wanted: Callable[[], bool]) -> EstimateText | None:
        """None once it is not `wanted`. Raises BatchrunError."""
        ...

    def edit_again(self, path: Path, position: int) -> None: ...


def services(screen: Screen[Any]) -> Services:
    return cast("Services", screen.app)


def run_flags(screen: Screen[Any]) -> dict[str, Any]:
    runs_dir = services(screen).runs_dir
    return {"runs_dir": runs_dir} if runs_dir else {}


def app_of(node: DOMNode) -> App[Any]:
    return cast("App[Any]", node.app)  # pyright: ignore[reportUnknownMemberType]  Textual leaves the app's result open
