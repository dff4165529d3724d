"""The bar on a real terminal: a bar at every width, with as many numbers behind it as have room."""

import json
import re
from pathlib import Path

import pytest
from terminal import Terminal

# Slow: each test runs the program.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("alone")]

DRAWN = re.compile(r"(\d+)%\|([^|]*)\| (\d+)/60 \[[^\r\n]*\]")


@pytest.mark.parametrize("columns", [60, 80, 110, 200])
async def test_a_bar_is_a_bar_at_every_width(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHRUN_SIM", json.dumps({"latency": "0.3", "faults": ["503=0.1"]}))
    Path("rows.jsonl").write_text("".join(f'{{"id": "r{n}", "text": "Row {n}."}}\n' for n in range(60)))
    terminal = Terminal(
        *("-i", "rows.jsonl", "-p", "summarize", "-P", "sim", "--concurrency", "8", "--rpm", "900"),
        columns=columns,
    )
    try:
        assert await terminal.ended() == 0
    finally:
        terminal.close()
    bars = list(DRAWN.finditer(terminal.output.decode()))
    assert [found for found in bars if len(found[2]) < 12] == []
    assert [found for found in bars if len(found[0]) > columns] == []
    assert any("/s" in found[0] for found in bars)
    assert columns < 110 or any("in flight" in found[0] for found in bars)
