"""What must neither leak nor stall in the app, on a real terminal against a server that means ill."""

import asyncio
import base64
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress

import pytest
import pytest_asyncio
from program import CANARY, Program, holds_once
from terminal import Terminal
from test_X_security import echo, processes
from wire import Call, FaultServer, chat, whole

pytestmark = pytest.mark.slow  # each test waits for a terminal

PIECES = [CANARY[start : start + 6] for start in range(3, len(CANARY) - 6, 3)]
"""A screen breaks lines where it likes, so that no whole key has to stand anywhere."""


@contextmanager
def app(program: Program, base_url: str, *more: str) -> Iterator[Terminal]:
    """The app, filled in for `in.jsonl`."""
    options = ("--base-url", base_url, "--model", "m", "--output", "out.jsonl", *more)
    opened = Terminal("app", "say.txt", "in.jsonl", *options, environment=program.environment, cwd=program.directory)
    try:
        yield opened
    finally:
        opened.close()


def text_of(drawn: bytes) -> str:
    """What was drawn without the commands of the terminal."""
    return re.sub(r"\x1b(\[[0-9;?<>=]*[A-Za-z]|\][^\x07]*\x07|.)", "", drawn.decode(errors="replace"))


async def test_X1_the_key_is_on_no_screen_of_the_app_and_in_nothing_it_writes(program: Program) -> None:
    program.rows(["ok", "bad", "down", "ok", "unauthorised"])
    async with FaultServer(echo) as server:
        with app(program, server.base_url, "--concurrency", "1", "--max-attempts", "2") as terminal:
            await terminal.until(lambda: b"ready" in terminal.output)
            terminal.press("start")
            await terminal.until(lambda: b"stopped" in terminal.output)
            running = await asyncio.to_thread(processes)
            for key in ("enter", "down", "enter", "escape", "down", "enter", "escape", "help", "escape", "runs"):
                drawn = len(terminal.read())
                terminal.press(key)
                with suppress(AssertionError):  # a key that changes nothing
                    await terminal.until(lambda drawn=drawn: len(terminal.output) > drawn, 5)
                await asyncio.sleep(0.3)
            terminal.press("quit")
            await terminal.ended()
        assert all(CANARY in call.headers["authorization"] for call in server.calls)
        assert server.calls
    shown = text_of(terminal.output)
    assert "[key]" in shown  # what the server echoed was shown, masked
    assert [piece for piece in PIECES if piece in shown] == []
    files = [path.read_bytes().decode("latin-1") for path in program.directory.rglob("*") if path.is_file()]
    for spelling in (CANARY, base64.b64encode(CANARY.encode()).decode().rstrip("=")):
        assert [text[:200] for text in (running, shown, *files) if spelling in text] == []


FLOOD = "\a" + "x\a\t" * 350_000
"""A megabyte in one line, full of bells."""


@pytest_asyncio.fixture
async def flooded() -> AsyncGenerator[FaultServer]:
    def choose(call: Call, _: int):
        return whole(chat(FLOOD if call.prompt == "flood" else "fine"))

    async with FaultServer(choose=choose) as server:
        yield server


async def test_X16_a_flood_in_one_answer_keeps_the_app_responsive(program: Program, flooded: FaultServer) -> None:
    await holds_once(3, lambda number: looked_at(program.beside(f"{number}"), flooded))


async def looked_at(program: Program, flooded: FaultServer) -> list[str]:
    program.rows(["fine", "flood"])
    loop = asyncio.get_running_loop()
    with app(program, flooded.base_url) as terminal:

        async def answer(key: str, seen: bytes) -> float:
            before, began = len(terminal.read()), loop.time()
            terminal.press(key)
            await terminal.until(lambda: seen in terminal.read()[before:])
            return loop.time() - began

        async def visit() -> float:
            """Open the row under the cursor, and help over it; the slowest answer to a key."""
            opened = await answer("enter", b"Pager")
            helped = await answer("help", b"Keys")
            await answer("escape", b"Pager")  # two at once would be taken for one key
            return max(opened, helped, await answer("escape", b"Filter"))

        await terminal.until(lambda: b"ready" in terminal.output)
        terminal.press("start")
        await terminal.until(lambda: b"finished" in terminal.output)
        plain = await visit()
        terminal.press("down")
        flood = await visit()
        terminal.press("quit")
        assert await terminal.ended() == 0
    print(f"slowest answer to a key: {flood * 1000:.0f} ms on an answer of 1 MB, {plain * 1000:.0f} ms on a short one")
    assert "\a" not in text_of(terminal.output)
    return [] if flood <= max(5 * 0.1, 2 * plain) else [f"{flood:.2f} s on the flood, {plain:.2f} s else"]
