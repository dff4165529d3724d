"""Prompt caches in batches: every line marks what all rows share, and a refusal of the marks costs no row its attempts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from batches import Night, adds_up, night
from engine import PLAN

from batchrun.engine.chunks import BatchLines
from batchrun.engine.start import renderer_of
from batchrun.errors import ExitCode
from batchrun.events import Notice
from batchrun.lanes.messages import as_message
from batchrun.models import Row
from batchrun.plan import Plan
from batchrun.plan.rendering import prompt_of

pytestmark = pytest.mark.looptime
FIXED = ("You answer briefly and to the point. " * 120).strip()
ROWS = 12


def plan_of(fixed: str = FIXED, **more: Any) -> dict[str, Any]:
    source = f"---\nname: p\n---\nsystem:\n{fixed}\nuser:\n{{{{ text }}}}"
    return {"model": "gpt-5.6-luna", "prompt_path": "p.prompty", "prompt_source": source, **more}


@pytest.fixture(autouse=True)
def _seldom(seldom: None) -> None: ...


def kept(stage: Night) -> tuple[int, int]:
    """Tokens that lines of batches read from the cache and wrote to it."""
    view = stage.server.stats.view()
    return view["batch_cached_tokens"], view["batch_cache_write_tokens"]


async def test_lines_read_what_one_of_them_wrote_and_the_account_says_so(tmp_path: Path) -> None:
    async with night(tmp_path, rows=ROWS, plan=plan_of(), cache="explicit") as stage:
        story = await stage.go_on()
        assert story.ending.exit_code is ExitCode.OK
        read, written = kept(stage)
        assert written >= 1024
        assert read == (ROWS - 1) * written
        assert (stage.totals.cached_tokens, stage.totals.cache_write_tokens) == (read, written)
        adds_up(stage)


@pytest.mark.parametrize("more", [{"cache": "off"}, {"fixed": "You answer briefly."}])
async def test_nothing_is_kept_where_it_is_off_or_too_short(more: dict[str, Any], tmp_path: Path) -> None:
    async with night(tmp_path, rows=ROWS, plan=plan_of(**more), cache="explicit") as stage:
        assert (await stage.go_on()).ending.exit_code is ExitCode.OK
        assert kept(stage) == (0, 0)


async def test_a_refusal_of_the_marks_sends_the_rows_again_without_them_at_no_attempt(tmp_path: Path) -> None:
    async with night(tmp_path, rows=ROWS, plan=plan_of(max_attempts=1), cache="automatic") as stage:
        story = await stage.go_on()
        assert (story.ending.exit_code, stage.totals.done, stage.totals.failed) == (ExitCode.OK, ROWS, 0)
        assert len(stage.told["batches"]) == 2
        said = [event.message for event in story.of(Notice) if "does not accept prompt_cache" in event.message]
        assert len(said) == 1
        adds_up(stage)


def line(plan: Plan) -> dict[str, Any]:
    row = Row(1, "a", '{"text": "hello"}', {"text": "hello"})
    return orjson.loads(BatchLines(plan).line(renderer_of(plan, prompt_of(plan)).render(row)).body)


def test_a_message_batch_gets_the_mark_that_the_live_endpoint_does_not_know() -> None:
    plan = replace(PLAN, **plan_of(dialect="anthropic", model="claude-sonnet-5", max_output_tokens=9))
    message = as_message(line(plan))
    assert message["system"] == [{"type": "text", "text": FIXED, "cache_control": {"type": "ephemeral"}}]
    assert message["messages"] == [{"role": "user", "content": "hello"}]
    assert as_message(line(replace(plan, cache="off")))["system"] == FIXED


def test_lines_of_one_prompt_have_one_key() -> None:
    plan = replace(PLAN, **plan_of(dialect="mistral", model="mistral-large-latest"))
    body = line(plan)
    assert body["prompt_cache_key"].startswith("batchrun-")
    assert body["messages"][0]["content"] == FIXED
