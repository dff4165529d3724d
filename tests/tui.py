"""What the tests of the app share: a directory of its own, an app over it, and waiting for what a user would see."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from textual import events
from textual._context import visible_screen_stack
from textual.app import App
from textual.pilot import Pilot
from textual.screen import Screen
from waiting import PATIENCE

from batchrun.engine.attempt import NEVER_LEFT
from batchrun.journal import Line, Reader
from batchrun.tui.app import BatchrunApp
from batchrun.tui.screens.run import RunScreen
from batchrun.tui.screens.setup import SetupScreen
from batchrun.tui.widgets.outcomes import Outcomes

PROMPT = """---
name: Echo
description: Says a row again.
inputs:
  tone:
    kind: string
    description: How it is said.
---
system:
Say it {{ tone }}.
user:
{{ text }}
"""


def place(folder: Path, rows: list[dict[str, Any]], **sim: Any) -> None:
    """A directory with a prompt, an input and a simulator's settings."""
    (folder / "prompts").mkdir(exist_ok=True)
    (folder / "prompts" / "echo.prompty").write_text(PROMPT)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(text)
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in sim.items())
    (folder / "batchrun.toml").write_text(f"[sim]\n{lines}")


def rows(count: int) -> list[dict[str, Any]]:
    """Rows with an id and a text."""
    return [{"id": f"r{number}", "text": f"Row {number} says a word."} for number in range(1, count + 1)]


def app(**flags: Any) -> BatchrunApp:
    """The app, filled in for the directory made by `place`."""
    given = {"prompt": "echo", "input": "rows.jsonl", "profile": "sim", "set": ["tone=calmly"], "output": "out.jsonl"}
    return BatchrunApp({**given, **flags})


async def until(pilot: Pilot[Any], seen: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Go on as soon as something is so."""
    for _ in range(int(seconds / 0.05)):
        if seen():
            return
        await pilot.pause(0.05)
    raise AssertionError(f"never seen: {seen}\n{shown(pilot)}")


async def quiet(pilot: Pilot[Any]) -> None:
    """Nothing is read in the background; one reading may have been replaced by another meanwhile."""
    await until(pilot, lambda: all(worker.is_finished for worker in pilot.app.workers))


async def read(pilot: Pilot[Any], also: Callable[[Line], bool] = lambda _: True) -> Line:
    """The rows of the run screen have been read, and the one under the cursor is `also` so; that row."""
    outcomes = pilot.app.screen.query_one(Outcomes)
    await until(pilot, lambda: outcomes.current is not None and also(outcomes.current))
    line = outcomes.current
    assert line is not None
    return line


async def asked(pilot: Pilot[Any], kind: type[Screen[Any]]) -> None:
    """A question is there, and takes keys."""
    await until(pilot, lambda: isinstance(pilot.app.screen, kind) and pilot.app.focused is not None)


def last_key(pilot: Pilot[Any], key: str) -> None:
    """Press a key that ends the app, which a pilot would wait for in vain; then wait until it has `ended`."""
    event = events.Key(key, None)
    event.set_sender(pilot.app)
    pilot.app.post_message(event)


async def ended(pilot: Pilot[Any], seconds: float = PATIENCE) -> None:
    """Wait for the end of the app, which takes no message any more that a pilot would wait for."""
    async with asyncio.timeout(seconds):
        while pilot.app.is_running:  # noqa: ASYNC110  Textual has no event for it
            await asyncio.sleep(0.02)


def shown(pilot: Pilot[Any]) -> str:
    """The screen as text, line by line."""
    screen = pilot.app.screen
    visible_screen_stack.set(pilot.app._background_screens)  # what a question is drawn over
    update = screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in update)


_notify = App.notify


def _noted(app: App[Any], message: str, **options: Any) -> None:
    """Keep what a note says: the note itself is gone after some seconds, and on a busy machine before a test looks."""
    vars(app).setdefault("noted", []).append(message)
    _notify(app, message, **options)


App.notify = _noted  # type: ignore[method-assign]


def told(pilot: Pilot[Any]) -> str:
    """What the notes in the corner have said so far."""
    return "\n".join(vars(pilot.app).get("noted", []))


def setup(pilot: Pilot[Any]) -> SetupScreen:
    screen = pilot.app.screen
    assert isinstance(screen, SetupScreen)
    return screen


async def ready(pilot: Pilot[Any]) -> None:
    """The setup has read everything and has no complaint."""
    await until(pilot, lambda: "ready" in shown(pilot))


async def started(pilot: Pilot[Any]) -> RunScreen:
    """Start, and see the run screen."""
    await ready(pilot)
    await pilot.press("f5")
    await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
    screen = pilot.app.screen
    assert isinstance(screen, RunScreen)
    return screen


def journal() -> Path:
    """The only journal of the directory."""
    (found,) = [path for path in Path(".batchrun").glob("*.db") if path.stem != "registry"]
    return found


def left(reader: Reader) -> int:
    """Attempts that left: one that was begun when the run was stopped need not have."""
    held = sum(miss.attempts for miss in reader.misses() if miss.cause == NEVER_LEFT.cause)
    return reader.totals.attempts - held


def attempts() -> int:
    """Attempts of all rows by the journal."""
    with Reader.open(journal()) as reader:
        return reader.totals.attempts
