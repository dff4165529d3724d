"""Prompts that a server shortens without a word are noticed, and ordinary ones are not."""

from pathlib import Path

import orjson
import pytest
from engine import Provider, Stage, ok

from batchrun.engine.monitors import Cuts
from batchrun.models import Endpoint, Exchange, Request


def look(replies: list[tuple[int, int]], more: bytes = b"") -> list[str]:
    """The notices for requests of so many bytes that counted so many tokens."""
    cuts = Cuts()
    said = [cuts.look(Request(Endpoint.CHAT, b"x" * size + more, None), tokens) for size, tokens in replies]
    return [notice for notice in said if notice is not None]


def test_requests_of_different_length_that_count_the_same_tokens_are_told_once() -> None:
    said = look([(size, 4096) for size in range(18_000, 54_000, 4_000)])
    assert len(said) == 1
    assert "4,096 input tokens" in said[0]
    assert "context window" in said[0]


@pytest.mark.parametrize(
    ("replies", "more"),
    [
        ([(size, size // 4) for size in range(18_000, 54_000, 4_000)], b""),
        ([(18_000, 4096), (18_100, 4096), (18_200, 4096)], b""),
        ([(40, 12), (80, 12), (160, 12)], b""),
        ([(18_000, 4096), (54_000, 4096)], b""),
        ([(1_000, 400), (1_400, 400), (1_600, 400)], b""),
        ([(50_000, 800), (90_000, 800), (200_000, 800)], b"data:image/png;base64,"),
    ],
)
def test_what_is_no_cut(replies: list[tuple[int, int]], more: bytes) -> None:
    assert look(replies, more) == []


async def test_a_run_says_that_its_prompts_are_cut(tmp_path: Path) -> None:
    def usual(text: str) -> Exchange:
        found = ok()(text)
        body = orjson.loads(found.body)
        body["usage"] = {"prompt_tokens": 1000, "completion_tokens": 5, "total_tokens": 1005}
        return found._replace(body=orjson.dumps(body))

    stage = Stage(tmp_path, ["word " * number for number in (1500, 2500, 3500, 4500)])
    story = await stage.play(Provider(usual=usual))
    assert [said for said in story.told if "context window" in said]
    assert stage.states == ["done"] * 4
