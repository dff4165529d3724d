"""What holds for every test."""

import asyncio
import sys

from browser import CHROMIUM

# looptime asks for the current event loop around synchronous tests as well. Before any was ever set, asyncio would
# make one that nobody closes, and some later test would fail for it; once None was set, there simply is none.
asyncio.set_event_loop(None)

collect_ignore = [] if CHROMIUM else ["test_report_browser.py"]
if sys.platform == "win32":  # no pseudo-terminals
    collect_ignore += ["test_tui_program.py"]


def pytest_report_header() -> str | None:
    return None if CHROMIUM else "left out: test_report_browser.py, for there is no Chromium here"
