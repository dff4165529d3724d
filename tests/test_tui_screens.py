"""Pictures of every state a user can name, at two sizes. `pytest --snapshot-update` makes them anew; look at them."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tui
from textual.pilot import Pilot

from batchrun.errors import ExitCode
from batchrun.events import Draining, LimitsChanged, RunEnded, Waiting, WaitReason
from batchrun.models import Totals
from batchrun.progress import Progress
from batchrun.tui.app import BatchrunApp
from batchrun.tui.desk import Bounds, Phase, Point, Sight, Trouble
from batchrun.tui.screens.setup import SetupScreen

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
    "failed_for_now": 12,
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
    "causes": {"503 overloaded": 31, "400 [invalid]": 6},
}
TOTALS = Totals(rows=10_000, done=9_963, failed=37, failed_for_now=12)


def sight(phase: Phase, *, trouble: Trouble | None = None, **changes: Any) -> Sight:
    progress = Progress(**{"limits": LIMITS, **NUMBERS, **changes})
    bounds = Bounds(64, 500.0, None)
    said = {"title": "translate · reviews.csv", "bounds": bounds, "history": HISTORY, "trouble": trouble}
    return Sight(phase=phase, progress=progress, notices=("the provider is down: one try a second",), **said)


STATES: dict[str, Sight] = {
    "running": sight(Phase.RUNNING),
    "waiting": sight(Phase.RUNNING, waiting=Waiting(WaitReason.THROTTLED, 72.0, 60.0), in_flight=0),
    "paused": sight(Phase.PAUSED, in_flight=3),
    "stopping": sight(Phase.STOPPING, draining=Draining(14, 90.0, "interrupted", 55.0)),
    "failing": sight(
        Phase.ENDED,
        trouble=Trouble("the account has no money left (insufficient_quota)", "add credit, then batchrun resume"),
        ended=RunEnded(ExitCode.STOPPED, TOTALS, "no money", None, (), 60.0),
    ),
    "done": sight(
        Phase.ENDED,
        done=9_963,
        in_flight=0,
        eta=None,
        ended=RunEnded(ExitCode.ROWS_FAILED, TOTALS, None, None, ("reviews.translate.jsonl",), 60.0),
    ),
    "refused": Sight(
        phase=Phase.REFUSED,
        progress=Progress(causes={}),
        title="translate · reviews.csv",
        trouble=Trouble("no API key: OPENAI_API_KEY is not set", "set it, or choose --profile sim"),
    ),
}


class Still:
    """A run that stands still."""

    def __init__(self, seen: Sight) -> None:
        self._seen = seen

    def sight(self) -> Sight:
        return self._seen

    def look(self) -> bool:
        return False


@pytest.fixture(autouse=True)
async def _undisturbed() -> None:
    asyncio.get_running_loop().set_debug(False)


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("BATCHRUN_", "OPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.mark.parametrize("size", SIZES, ids=["small", "large"])
@pytest.mark.parametrize("name", STATES)
def test_the_run_screen(name: str, size: tuple[int, int], snap_compare: Callable[..., bool]) -> None:
    async def show(pilot: Pilot[Any]) -> None:
        app = pilot.app
        assert isinstance(app, BatchrunApp)
        app.show_run(Still(STATES[name]))
        await pilot.pause(0.4)

    assert snap_compare(BatchrunApp(), terminal_size=size, run_before=show)


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
        said = {"empty": "choose a prompt and an input", "filled": "ready", "invalid": "nowhere.jsonl"}[name]
        assert isinstance(pilot.app.screen, SetupScreen)
        await tui.until(pilot, lambda: said in tui.shown(pilot).rpartition("$ batchrun")[0][-500:])
        await pilot.pause(0.3)

    assert snap_compare(BatchrunApp(flags), terminal_size=size, run_before=show)
