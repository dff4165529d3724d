"""Makes the pictures of the app for the README from a real run over the examples: python docs/screenshots.py

The provider is the simulated one, and the pictures say so. They are SVG, drawn by the app itself at 160 by 44.
"""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

from textual.widgets import Static

from batchrun.tui.app import BatchrunApp

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "pictures"
SIM = '[sim]\nlatency = "0.4-1.2"\nrpm = 1800\nfaults = ["503=0.03", "400=0.01"]\n'
COPIES = 40


def rows(folder: Path) -> None:
    """The articles of the example many times over, each copy with ids of its own."""
    lines = (ROOT / "examples" / "udhr.jsonl").read_text(encoding="utf-8").splitlines()
    copies = (line.replace('"id": "', f'"id": "{copy:02}-', 1) for copy in range(COPIES) for line in lines)
    (folder / "articles.jsonl").write_text("\n".join(copies) + "\n", encoding="utf-8")
    (folder / "prompts").mkdir()
    shutil.copy(ROOT / "prompts" / "translate.prompty", folder / "prompts")
    (folder / "batchrun.toml").write_text(SIM, encoding="utf-8")


async def take() -> None:
    """Set up, picture; start, let it go on for a while, picture."""
    flags = {"prompt": "translate", "input": "articles.jsonl", "profile": "sim", "set": ["language=Japanese"]}
    app = BatchrunApp(flags)
    async with app.run_test(size=(160, 44)) as pilot:
        await pilot.pause(2.0)
        app.screen.query_one("#head").focus()
        await pilot.press("space", "space", "f6")
        await pilot.pause(4.0)
        plan = app.screen.query_one("#brief", Static)
        while app.busy or "requests" not in str(plan.content):
            await pilot.pause(0.2)
        (TARGET / "setup.svg").write_text(app.export_screenshot(title="batchrun app"), encoding="utf-8")
        await pilot.press("f5")
        await pilot.pause(20.0)
        (TARGET / "run.svg").write_text(app.export_screenshot(title="batchrun app"), encoding="utf-8")
        await pilot.press("x")
        while app.busy:
            await pilot.pause(0.1)


def main() -> None:
    """In a directory that is thrown away."""
    TARGET.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        rows(Path(folder))
        os.chdir(folder)
        asyncio.run(take())
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
