"""Pictures of every state a user can name, at two sizes. `pytest --snapshot-update` makes them anew; look at them."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tui
from textual.pilot import Pilot

from batchrun.errors import ExitCode
from batchrun.events import Draining, LimitsChanged, RunEnded, Waiting, WaitReason
from batchrun.journal import Attempt, Meta, Record, Session
from batchrun.models import State, Totals
from batchrun.progress import Progress
from batchrun.registry import RunFile, Summary
from batchrun.tui import overview
from batchrun.tui.app import BatchrunApp
from batchrun.tui.screens import runs, setup
from batchrun.tui.screens.row import RowScreen
from batchrun.tui.screens.setup import SetupScreen
from batchrun.tui.services import Bounds, Phase, Point, RunSnapshot, Trouble
from batchrun.tui.widgets import controls, paint

pytestmark = pytest.mark.usefixtures("undisturbed")

SIZES = [(80, 24), (200, 60)]
HISTORY = tuple(Point(second, second * second // 3, second * 900) for second in range(60))
LIMITS = LimitsChanged(14, 32, 64, 500.0, 90_000.0, 0.2, 0.7, None, 60.0)
NUMBERS = {
    "run": "20261120-101500-abcd",
    "host": "https://api.example.com/v1",
    "model": "gpt-5.4-mini",
    "rows": 10_000,
    "done": 4_210,
    "failed": 37,
    "retryable": 12,
    "in_flight": 14,
    "truncated": 3,
    "started": 0.0,
    "now": 60.0,
    "attempts": 4_300,
    "retries": 41,
    "throttled": 9,
    "input_tokens": 1_234_567,
    "output_tokens": 345_678,
    "row_rate": 7.9,
    "token_rate": 1_400.0,
    "eta": 725.0,
    "cached_tokens": 200_000,
    "cost": 5_432_100_000_000,
    "cost_possibly_billed": 43_000_000_000,
    "projected": 12_900_000_000_000,
    "causes": {"503 overloaded": 31, "400 [invalid]": 6},
}
TOTALS = Totals(rows=10_000, done=9_963, failed=37, retryable=12)


def snapshot(phase: Phase, *, trouble: Trouble | None = None, **changes: Any) -> RunSnapshot:
    progress = Progress(**{"limits": LIMITS, **NUMBERS, **changes})
    bounds = Bounds(64, 500.0, None)
    said = {"title": "translate · reviews.csv", "bounds": bounds, "history": HISTORY, "trouble": trouble}
    return RunSnapshot(
        phase=phase, progress=progress, notices=("the provider is down: one request per second is tried",), **said
    )


STATES: dict[str, RunSnapshot] = {
    "running": snapshot(Phase.RUNNING),
    "waiting": snapshot(Phase.RUNNING, waiting=Waiting(WaitReason.THROTTLED, 72.0, 60.0), in_flight=0),
    "paused": snapshot(Phase.PAUSED, in_flight=3),
    "stopping": snapshot(Phase.STOPPING, draining=Draining(14, 90.0, "interrupted", 55.0)),
    "failing": snapshot(
        Phase.ENDED,
        trouble=Trouble("the account has no money left (insufficient_quota)", "add credit, then batchrun resume"),
        ended=RunEnded(ExitCode.STOPPED, TOTALS, "no money", None, (), 60.0),
    ),
    "done": snapshot(
        Phase.ENDED,
        done=9_963,
        in_flight=0,
        eta=None,
        ended=RunEnded(ExitCode.ROWS_FAILED, TOTALS, None, None, ("reviews.translate.jsonl",), 60.0),
    ),
    "refused": RunSnapshot(
        phase=Phase.REFUSED,
        progress=Progress(causes={}),
        title="translate · reviews.csv",
        trouble=Trouble("no API key: OPENAI_API_KEY is not set", "set it, or choose --profile sim"),
    ),
}


SAID = "Guten Tag [/x]\n\nein zweiter Absatz, 漢字, עברית"
RECORD = Record(
    seq=4,
    position=4,
    line=5,
    key="r-4",
    text='{"id": "r-4", "text": "Good day"}',
    value=json.dumps({"text": SAID}),
    body=None,
    added=None,
    cause=None,
    message=None,
    attempts=3,
    finished=6.5,
    seconds=1.25,
    input_tokens=812,
    output_tokens=64,
    status=200,
    request_id="req-1",
    excerpt=None,
    trace=None,
    state=State.DONE,
    permanent=True,
    flags=frozenset({"truncated"}),
    post=False,
)
ATTEMPTS = [
    Attempt(
        1, 1, 1.0, 1.2, 0.2, 429, "429 requests", "slow down", True, False, *[False] * 3, None, None, None, "{}", None
    ),
    Attempt(
        2, 1, 3.2, 4.0, 0.8, 503, "503 overloaded", "", False, True, *[False] * 3, None, None, None, "<html>", None
    ),
    Attempt(3, 1, 5.25, 6.5, 1.25, 200, None, None, False, True, *[False] * 3, 812, 64, "req-1", None, "{}"),
]


class StillLook:
    """One row of a journal that is not there."""

    async def record(self, _: int) -> tuple[Record, list[Attempt]]:
        return RECORD, ATTEMPTS

    async def query(self, _: object) -> tuple[str, tuple[str, ...]]:
        return "▌ system\nTranslate into German.\n\n▌ user\nGood day", ("text",)


def _summary(name: str, code: int | None, running: str | None, totals: Totals) -> Summary:
    meta = Meta(
        run=f"20261120-1015-{name[:4]}",
        created=1_790_000_000.0,
        plan=json.dumps({"prompt_name": "translate", "model": None if name == "simulated" else "gpt-5.4-mini"}),
        prompt=None,
        simulated=name == "simulated",
        output=f"../{name}.jsonl",
    )
    sessions = [Session(1, 1.0, None if running else 60.0, code, 4711, "here")]
    return Summary(RunFile(Path.cwd() / ".batchrun" / f"{name}.db", meta), totals, sessions, running, None)


def summaries(_: object) -> list[Summary]:
    tokens = {"input_tokens": 1_234_567, "output_tokens": 345_678}
    return [
        _summary("reviews", None, "process 4711", Totals(rows=10_000, done=4_210, failed=37, unknown=14, **tokens)),
        _summary("simulated", 0, None, Totals(rows=600, done=600, **tokens)),
        _summary("articles", 4, None, Totals(rows=1_000_000, done=950_000, failed=49_000)),
        _summary("night [shift]", None, None, Totals(rows=30, done=3, unknown=2)),
    ]


class Still:
    """A run that stands still."""

    active = True
    done = None

    def __init__(self, seen: RunSnapshot) -> None:
        self._seen = seen

    def snapshot(self) -> RunSnapshot:
        return self._seen

    def read_again(self) -> bool:
        return False


@pytest.fixture(autouse=True)
def _alone(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "DEBOUNCE", 0.01)
    monkeypatch.setattr(setup, "QUIET", 0.01)
    monkeypatch.setattr(controls, "directory", lambda: "~/reviews")
    monkeypatch.setattr(paint, "clock", lambda at: time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at)))


@pytest.mark.parametrize("size", SIZES, ids=["small", "large"])
@pytest.mark.parametrize("name", STATES)
def test_the_run_screen(name: str, size: tuple[int, int], snap_compare: Callable[..., bool]) -> None:
    async def show(pilot: Pilot[Any]) -> None:
        app = pilot.app
        assert isinstance(app, BatchrunApp)
        app.show_run(Still(STATES[name]))
        await tui.until(pilot, lambda: "rows/s" in tui.shown(pilot))

    assert snap_compare(BatchrunApp(), terminal_size=size, run_before=show)


@pytest.mark.parametrize("size", SIZES, ids=["small", "large"])
def test_the_start_page(
    size: tuple[int, int], snap_compare: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = overview.Overview(
        (overview.Item("reviews.summarize.csv", "finished 600/600 · summarize · reviews.csv · gpt-5.4-mini"),),
        (overview.Item("summarize", "Summarizes text."), overview.Item("translate", "Translates text.")),
        (overview.Item("reviews.csv", "csv · 600 rows"), overview.Item("notes [old].txt", "text · 12 rows")),
    )
    monkeypatch.setattr(overview, "overview", lambda _: found)

    async def show(pilot: Pilot[Any]) -> None:
        pilot.app.action_show("start")
        await tui.until(pilot, lambda: "notes [old].txt" in tui.shown(pilot))

    assert snap_compare(BatchrunApp(), terminal_size=size, run_before=show)


@pytest.mark.parametrize("size", SIZES, ids=["small", "large"])
def test_the_options(size: tuple[int, int], snap_compare: Callable[..., bool]) -> None:
    async def show(pilot: Pilot[Any]) -> None:
        await tui.until(pilot, lambda: "✗ prompt" in tui.shown(pilot))
        await tui.quiet(pilot)  # what shows through the question stands still
        await pilot.press("ctrl+t")
        await tui.until(pilot, lambda: "--id-column" in tui.shown(pilot))
        await pilot.press("down")
        await tui.until(pilot, lambda: tui.shown(pilot).count("What identifies a row") == 2)

    flags = {"limit": "10", "skip_invalid": True}
    assert snap_compare(BatchrunApp(flags), terminal_size=size, run_before=show)


@pytest.mark.parametrize("size", SIZES, ids=["small", "large"])
@pytest.mark.parametrize("name", ["empty", "filled", "invalid"])
def test_the_setup_screen(name: str, size: tuple[int, int], snap_compare: Callable[..., bool], tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(30))
    flags = {
        "empty": {},
        "filled": {"prompt": "echo", "input": "rows.jsonl", "profile": "sim", "set": ["tone=calmly"]},
        "invalid": {"prompt": "echo", "input": "nowhere.jsonl", "profile": "sim"},
    }[name]

    async def show(pilot: Pilot[Any]) -> None:
        said = {
            "empty": "choose a prompt and an input",
            "filled": "30 requests",
            "invalid": "There is no file nowhere.jsonl.",
        }[name]
        assert isinstance(pilot.app.screen, SetupScreen)
        await tui.until(pilot, lambda: said in tui.shown(pilot).rpartition("$ batchrun")[0][-500:])
        await tui.quiet(pilot)  # the prompt has been read as well
        # how far the form was scrolled depends on which came first, the focus or the description of the prompt
        pilot.app.screen.query_one("#fields").scroll_home(animate=False)
        await pilot.pause()

    assert snap_compare(BatchrunApp(flags), terminal_size=size, run_before=show)


@pytest.mark.parametrize("size", SIZES, ids=["small", "large"])
def test_trying(size: tuple[int, int], snap_compare: Callable[..., bool], tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(30))
    app = BatchrunApp({"prompt": "echo", "input": "rows.jsonl", "profile": "sim", "set": ["tone=calmly"]})
    app._session = Still(replace(STATES["waiting"], tried=True))

    async def show(pilot: Pilot[Any]) -> None:
        await tui.ready(pilot)
        screen = tui.setup(pilot)
        screen._trying = (1, 2)
        screen.show_pane("answers")
        await tui.until(pilot, lambda: "waiting 12 s" in tui.shown(pilot))

    assert snap_compare(app, terminal_size=size, run_before=show)


@pytest.mark.parametrize("size", SIZES, ids=["small", "large"])
def test_the_row_view(size: tuple[int, int], snap_compare: Callable[..., bool]) -> None:
    async def show(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(RowScreen(StillLook(), 4, Still(STATES["done"])))
        await tui.until(pilot, lambda: "attempts · 3" in tui.shown(pilot))

    assert snap_compare(BatchrunApp(), terminal_size=size, run_before=show)


@pytest.mark.parametrize("size", SIZES, ids=["small", "large"])
def test_the_runs_screen(
    size: tuple[int, int], snap_compare: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "listed", summaries)

    async def show(pilot: Pilot[Any]) -> None:
        pilot.app.action_show("runs")
        await tui.until(pilot, lambda: "night [shift]" in tui.shown(pilot))

    assert snap_compare(BatchrunApp(), terminal_size=size, run_before=show)
