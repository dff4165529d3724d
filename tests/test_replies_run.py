"""Replies as a whole run meets them: without an answer, cut, thought about, broken off; what is asked again and told."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from engine import WITH_SCHEMA, Answer, Provider, Stage, exchange, garbage, ok, reply_body

from batchrun.engine.export import export
from batchrun.errors import ExitCode
from batchrun.events import Notice, RowFinished
from batchrun.journal import Reader
from batchrun.models import Flag, State
from batchrun.report import words

THOUGHTS = "900 tokens out, only reasoning_content"


def says(text: str | None, finish: str = "stop", tokens: int = 3, **message: Any) -> Answer:
    body = orjson.loads(reply_body(text, finish, **message))
    body["usage"] = {"prompt_tokens": 7, "completion_tokens": tokens}
    return lambda prompt: exchange(200, orjson.dumps(body))


NOTHING = says(None, tokens=900, reasoning_content="first I look at the text")


def written(stage: Stage) -> list[dict[str, Any]]:
    output = stage.path.parent.parent / "out.jsonl"
    with Reader.open(stage.path) as reader:
        export(stage.plan, reader, output)
    return [json.loads(line) for line in output.read_text("utf-8").splitlines()]


async def test_a_reply_without_an_answer_is_asked_for_once_more_as_it_was(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 4), Provider({"row 1": [NOTHING], "row 2": [says(""), ok()]})
    story = await stage.play(provider)
    assert provider.counts == {"row 1": 2, "row 2": 2, "row 3": 1, "row 4": 1}
    assert stage.states == ["failed", "done", "done", "done"]
    failed = stage.records[0]
    assert (failed.cause, failed.permanent, failed.flags) == ("empty", True, frozenset())
    assert THOUGHTS in (failed.message or "")
    assert "row 1 got empty, again" in story.told
    assert all(len(body["messages"]) == 1 for body in provider.bodies)
    assert (stage.totals.replies, stage.totals.output_tokens) == (6, 2 * 900 + 4 * 3)


async def test_rows_without_an_answer_may_be_done_and_are_counted(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 3), Provider({"row 1": [NOTHING]})
    story = await stage.play(provider, fail_on=frozenset[Flag]())
    assert (provider.counts["row 1"], story.ending.exit_code) == (2, ExitCode.OK)
    finished: list[RowFinished] = story.of(RowFinished)
    assert [event.outcome.flags for event in finished if event.seq == 1] == [{Flag.EMPTY}]
    assert stage.totals.empty == 1
    assert words.account(stage.totals).startswith("3 done (1 empty)")
    assert [row["output"] for row in written(stage)] == ["", "ROW 2", "ROW 3"]


async def test_a_schema_is_never_met_by_an_empty_reply_and_no_empty_message_is_sent(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 3, prompt_source=WITH_SCHEMA, output_fields=("score",))
    good = ok('{"score": 2}')
    provider = Provider({"row 1": [says(None)], "row 2": [says(""), good]}, usual=good)
    await stage.play(provider, fail_on=frozenset[Flag]())
    assert stage.states == ["failed", "done", "done"]
    assert stage.records[0].cause == "empty"
    assert provider.counts["row 1"] == 2
    assert all(message["content"] for body in provider.bodies for message in body["messages"])


async def test_a_model_that_gives_no_answers_is_not_paid_for_every_row(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 300), Provider(usual=NOTHING)
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.STOPPED
    assert "none of the replies to 20 rows has an answer" in (story.ending.message or "")
    assert THOUGHTS in (story.ending.message or "")
    assert len(provider.calls) <= 2 * 20 + 4
    assert set(stage.states) == {"pending"}
    await stage.play(provider, fail_on=frozenset[Flag]())
    assert set(stage.states) == {"done"}


async def test_rows_without_an_answer_among_others_never_stop_a_run(tmp_path: Path) -> None:
    scripts = {f"row {number}": [NOTHING] for number in range(2, 60)}
    stage, provider = Stage(tmp_path, 60), Provider(scripts)
    story = await stage.play(provider, concurrency=1)
    assert story.ending.exit_code is ExitCode.OK
    assert stage.states.count("failed") == 58


async def test_a_run_that_goes_on_asks_for_an_empty_reply_no_more_than_once(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 2), Provider({"row 1": [NOTHING]})
    await stage.play(provider)
    await stage.play(provider)
    assert provider.counts == {"row 1": 2, "row 2": 1}


async def test_a_cut_reply_gets_more_room_and_the_request_is_no_other(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 3, params={"max_completion_tokens": 100})
    provider = Provider(
        {"row 1": [says("a", "length"), says("ab", "length"), says("abc")], "row 2": [says("a", "length")]}
    )
    await stage.play(provider, retry_truncated=2)
    assert provider.counts == {"row 1": 3, "row 2": 3, "row 3": 1}
    asked = [body["max_completion_tokens"] for body in provider.bodies if body["messages"][0]["content"] == "row 1"]
    assert asked == [100, 200, 400]
    assert [row["output"] for row in written(stage)] == ["abc", "a", "ROW 3"]
    assert [record.flags for record in stage.records] == [frozenset(), {Flag.TRUNCATED}, frozenset()]
    await stage.play(provider, retry_truncated=2)
    assert len(provider.calls) == 7


async def test_a_cut_reply_without_a_limit_in_its_request_is_not_asked_again(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 1), Provider({"row 1": [says("a", "length")]})
    await stage.play(provider, retry_truncated=2)
    assert (len(provider.calls), stage.totals.truncated) == (1, 1)


async def test_thinking_is_not_in_the_output_unless_it_is_kept(tmp_path: Path) -> None:
    scripts = {"row 1": [says("<think>\nhm\n</think>\n\nyes")], "row 2": [says("yes", reasoning="hm")]}
    stage = Stage(tmp_path, 3)
    await stage.play(Provider(scripts))
    assert [row["output"] for row in written(stage)] == ["yes", "yes", "ROW 3"]
    kept = Stage(tmp_path / "kept", 3, keep_thinking=True)
    await kept.play(Provider(scripts))
    assert [row["output"] for row in written(kept)] == ["<think>\nhm\n</think>\n\nyes"] * 2 + ["ROW 3"]


async def test_finish_reasons_decide_what_becomes_of_a_row(tmp_path: Path) -> None:
    finishes = {
        "row 1": "MAX_TOKENS",
        "row 2": "SAFETY",
        "row 3": "network_error",
        "row 4": "eureka",
        "row 5": "end_turn",
    }
    stage, provider = Stage(tmp_path, 6), Provider({row: [says("so f", finish)] for row, finish in finishes.items()})
    story = await stage.play(provider)
    assert stage.states == ["done", "done", "failed", "done", "done", "done"]
    assert [sorted(record.flags) for record in stage.records] == [["truncated"], ["filtered"], [], ["odd"], [], []]
    failed = stage.records[2]
    assert (failed.cause, failed.permanent) == ("the reply broke off", False)
    assert (stage.totals.odd, stage.totals.truncated, stage.totals.filtered) == (1, 1, 1)
    assert "1 truncated, 1 filtered, 1 odd" in words.account(stage.totals)
    told = [event.message for event in story.of(Notice) if "flagged odd" in event.message]
    assert len(told) == 1
    assert "'eureka'" in told[0]
    with Reader.open(stage.path) as reader:
        assert reader.check() == []


async def test_a_stream_that_nobody_asked_for_is_kept_to_the_byte_and_written_as_its_text(tmp_path: Path) -> None:
    pieces = [
        {"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]} for piece in ("He", "llo")
    ]
    stream = "".join(f"data: {json.dumps(piece)}\n\n" for piece in pieces) + "data: [DONE]\n\n"
    stage = Stage(tmp_path, 2)
    await stage.play(Provider({"row 1": [garbage(stream.encode())]}))
    assert [row["output"] for row in written(stage)] == ["Hello", "ROW 2"]
    assert stage.records[0].body == stream


@pytest.mark.parametrize("body", [b"everything is fine", b"\x1b\x02\x80"])
async def test_an_answer_that_nobody_can_read_stops_the_run_after_one(body: bytes, tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 40), Provider(usual=garbage(body))
    story = await stage.play(provider, concurrency=1)
    assert story.ending.exit_code is ExitCode.STOPPED
    assert len(provider.calls) <= 2
    assert set(stage.states) == {str(State.PENDING)}


async def test_an_empty_account_inside_a_200_stops_the_run(tmp_path: Path) -> None:
    refusal = garbage(b'{"error": {"message": "needs more credits", "code": 402}}')
    stage, provider = Stage(tmp_path, 60), Provider({f"row {number}": [refusal] for number in range(20, 61)})
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.STOPPED
    assert "needs more credits" in (story.ending.message or "")
    assert "failed" not in stage.states
    assert len(provider.calls) <= 20 + 8
