"""The event loop that a run gets."""

import asyncio
import sys
from types import SimpleNamespace

import pytest

from batchrun.client.event_loop import run_coroutine


async def kind() -> str:
    return type(asyncio.get_running_loop()).__name__


class FastLoop(asyncio.SelectorEventLoop):
    pass


def test_a_run_is_on_the_faster_loop_where_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", SimpleNamespace(new_event_loop=FastLoop))
    assert run_coroutine(kind()) == "FastLoop"


def test_a_run_is_on_the_usual_loop_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert run_coroutine(kind()) == asyncio.run(kind())
