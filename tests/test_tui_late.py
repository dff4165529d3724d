"""What arrives late takes nothing from the user: no focus, no cursor, no selection, no screen."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tui
from textual.widgets import Input

from batchrun.tui import draft

# Slow: each test starts the app.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undisturbed", "alone")]

WIDE = (150, 40)


class Held:
    """Functions that run in threads of the app, and return only after `let_go`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._may = threading.Event()
        self._monkeypatch = monkeypatch
        self.calls = 0

    def hold(self, where: Any, name: str) -> None:
        self._may.clear()
        real: Callable[..., Any] = getattr(where, name)

        def held(*values: Any, **named: Any) -> Any:
            self.calls += 1
            self._may.wait(60)
            return real(*values, **named)

        self._monkeypatch.setattr(where, name, held)

    def let_go(self) -> None:
        self._may.set()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    held = Held(monkeypatch)
    yield held
    held.let_go()  # no thread stays behind where a test fails


@pytest.mark.parametrize(
    ("keys", "focused"), [([], None), (["f7"], "editor"), (["home"], "input"), (["shift+tab"], "prompt")]
)
async def test_the_setup_goes_to_what_is_missing_only_before_the_first_key(
    tmp_path: Path, held: Held, keys: list[str], focused: str | None
) -> None:
    tui.place(tmp_path, tui.rows(2))
    held.hold(draft, "read_head")
    async with tui.app(set=[]).run_test(size=WIDE) as pilot:
        await tui.until(pilot, lambda: "Says a row again." in tui.shown(pilot))
        await tui.until(pilot, lambda: isinstance(pilot.app.focused, Input) and pilot.app.focused.id == "input")
        for key in keys:
            await pilot.press(key)
        held.let_go()
        await tui.until(pilot, lambda: "✗ tone" in tui.shown(pilot))
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()
        entry = tui.setup(pilot).form.entry("variable:tone")
        assert pilot.app.focused is (entry if focused is None else tui.setup(pilot).query_one(f"#{focused}"))
        if focused == "input":
            assert pilot.app.focused.cursor_position == 0
