"""Equal requests: which row is sent, who is answered by its reply, and what that saves. Calls per prompt are the truth."""

import asyncio
import contextlib
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from engine import WITH_SCHEMA, Answer, Provider, Stage, garbage, ingested, ok, status
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrun.engine.pending_queue import GroupVerdict, group_verdict
from batchrun.engine.run import Run
from batchrun.engine.run_result import RunResult
from batchrun.errors import ExitCode, StorageError
from batchrun.events import AttemptStarted, Event, RowFinished
from batchrun.journal import Journal, Reader
from batchrun.models import Outcome, State
from batchrun.pricing import picodollars

pytestmark = pytest.mark.usefixtures("no_waiting")

BAD = status(400, "context_length_exceeded")
QUOTA = status(429, "insufficient_quota")
PRICED = {"input_price": 1.0, "output_price": 10.0}
EACH = picodollars((7 * 1.0 + 3 * 10.0) / 1e6)


@pytest.fixture
def tmp_path(in_memory: Path) -> Path:
    return in_memory


def outputs(stage: Stage) -> list[str | None]:
    """What each row has for an answer: the text of the reply that its outcome rests on."""
    with Reader.open(stage.path) as reader:
        return [
            None if row.body is None else row.body.split('"content":"')[1].split('"')[0] for row in reader.export_rows()
        ]


async def test_equal_requests_are_sent_once_and_every_row_is_answered(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, ["a", "b", "a", "c", "b", "a"], dedupe=True, **PRICED), Provider()
    story = await stage.play(provider)
    assert story.ending == RunResult(ExitCode.OK)
    assert provider.counts == {"a": 1, "b": 1, "c": 1}
    assert outputs(stage) == ["A", "B", "A", "C", "B", "A"]
    totals = stage.totals
    assert (totals.done, totals.deduplicated, totals.attempts, totals.replies) == (6, 3, 3, 3)
    assert (totals.saved, totals.saved_tokens, totals.cost) == (3 * EACH, 3 * 10, 3 * EACH)
    finished = story.of(RowFinished)
    assert Counter(event.seq for event in finished) == dict.fromkeys(range(1, 7), 1)
    assert {event.seq for event in finished if event.deduplicated} == {3, 5, 6}
    assert sum(event.saved or 0 for event in finished) == totals.saved


async def test_equal_requests_are_samples_unless_told_otherwise(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, ["a", "a", "a"]), Provider()
    await stage.play(provider)
    assert provider.counts == {"a": 3}
    assert stage.totals.deduplicated == 0


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Outcome(State.DONE, True, None, None, frozenset(), None), GroupVerdict.SHARE),
        (Outcome(State.FAILED, True, "raised", None, frozenset(), None, post=True), GroupVerdict.SHARE),
        (Outcome(State.FAILED, True, "400", None, frozenset(), None), GroupVerdict.FAIL_ALIKE),
        (Outcome(State.FAILED, False, "503", None, frozenset(), None), GroupVerdict.SEND_NEXT),
    ],
)
def test_what_an_outcome_means_for_those_that_wait(outcome: Outcome, expected: GroupVerdict) -> None:
    assert group_verdict(outcome) is expected


async def test_a_failure_for_good_is_shared_without_another_call(tmp_path: Path) -> None:
    stage = Stage(tmp_path, ["x", "bad", "bad", "bad", "x"], dedupe=True)
    provider = Provider({"bad": [BAD]})
    story = await stage.play(provider)
    assert provider.counts == {"x": 1, "bad": 1}
    assert stage.states == ["done", "failed", "failed", "failed", "done"]
    causes = {(record.cause, record.message, record.status) for record in stage.records if record.state is State.FAILED}
    assert len(causes) == 1
    assert (stage.totals.failed, stage.totals.deduplicated) == (3, 1)
    assert len(story.of(RowFinished)) == 5


async def test_failures_before_anything_succeeded_reach_the_rows_that_wait(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, ["bad", "bad", "bad"], dedupe=True), Provider(usual=BAD)
    await stage.play(provider)
    assert provider.counts == {"bad": 1}
    assert stage.states == ["failed"] * 3


def killed_after_a_failure(stage: Stage) -> Callable[[Event, Run], None]:
    """Listens, and lets nothing be written any more once a row has failed for good."""
    failed = threading.Event()

    def faults(_: int) -> None:
        if failed.is_set():
            raise OSError("killed")

    def hear(event: Event, _: Run) -> None:
        if isinstance(event, RowFinished) and event.outcome.state is State.FAILED and event.outcome.permanent:
            failed.set()

    stage.faults = faults
    return hear


async def half_failed(tmp_path: Path, provider: Provider, texts: Sequence[str], **plan: Any) -> Stage:
    """A run that was killed between the failure of a row and those that wait for it."""
    stage = Stage(tmp_path, texts, dedupe=True, **plan)
    with contextlib.suppress(StorageError):
        await stage.play(provider, hear=killed_after_a_failure(stage))
    stage.faults = None
    with closing(Journal.open(stage.path)) as journal:
        journal.reopen()
    return stage


async def test_a_failure_that_a_kill_kept_from_the_rows_that_wait_reaches_them_without_a_call(tmp_path: Path) -> None:
    provider = Provider({"bad": [BAD]})
    stage = await half_failed(tmp_path, provider, ["x", "bad", "bad", "bad"])
    assert stage.states == ["done", "failed", "pending", "pending"]
    story = await stage.play(provider)
    assert provider.counts == {"x": 1, "bad": 1}
    assert stage.states == ["done", "failed", "failed", "failed"]
    assert len({(record.cause, record.message, record.permanent) for record in stage.records[1:]}) == 1
    assert [event.seq for event in story.of(RowFinished)] == [3, 4]


async def test_that_failure_may_be_one_of_a_row_that_had_taken_the_first_ones_place(tmp_path: Path) -> None:
    provider = Provider({"a": [status(500), BAD, ok()]})
    stage = await half_failed(tmp_path, provider, ["x", "a", "a", "a", "a"], max_attempts=1)
    assert stage.states == ["done", "pending", "failed", "pending", "pending"]
    await stage.play(provider)
    assert provider.counts == {"x": 1, "a": 3}
    assert stage.states == ["done", "done", "failed", "failed", "failed"]


async def test_the_rows_that_waited_are_sent_again_once_where_failures_are_to_be(tmp_path: Path) -> None:
    provider = Provider({"bad": [BAD, ok()]})
    stage = await half_failed(tmp_path, provider, ["x", "bad", "bad", "bad"])
    with closing(Journal.open(stage.path)) as journal:
        journal.reopen(failed_for_good=True)
    await stage.play(provider)
    assert provider.counts == {"x": 1, "bad": 2}
    assert stage.states == ["done"] * 4


async def test_rows_that_waited_for_a_failure_are_samples_again_without_dedupe(tmp_path: Path) -> None:
    provider = Provider({"bad": [BAD]})
    stage = await half_failed(tmp_path, provider, ["x", "bad", "bad", "bad"])
    await stage.play(provider, dedupe=False)
    assert provider.counts == {"x": 1, "bad": 3}


async def test_a_command_for_other_rows_leaves_those_that_waited_to_the_next_one(tmp_path: Path) -> None:
    provider = Provider({"bad": [BAD]})
    stage = await half_failed(tmp_path, provider, ["x", "bad", "bad", "bad"])
    await stage.play(provider, limit=3)
    assert stage.states == ["done", "failed", "failed", "pending"]
    await stage.play(provider)
    assert stage.states == ["done", "failed", "failed", "failed"]
    assert provider.counts == {"x": 1, "bad": 1}


async def test_no_row_fails_because_another_failed_for_now(tmp_path: Path) -> None:
    stage = Stage(tmp_path, ["x", "a", "a", "a"], dedupe=True, max_attempts=2)
    provider = Provider({"a": [status(500), status(500), status(500), ok()]})
    await stage.play(provider)
    assert provider.counts == {"x": 1, "a": 4}
    assert stage.states == ["done", "failed", "done", "done"]
    assert stage.totals.retryable == 1
    assert stage.totals.deduplicated == 1


async def test_going_on_sends_a_leader_that_failed_for_now_no_more_once_a_duplicate_is_done(tmp_path: Path) -> None:
    stage = Stage(tmp_path, ["x", "a", "a"], dedupe=True, max_attempts=1)
    provider = Provider({"a": [status(500), ok()]})
    await stage.play(provider)
    assert stage.states == ["done", "failed", "done"]
    with closing(Journal.open(stage.path)) as journal:
        journal.reopen()
    await stage.play(provider)
    assert provider.counts == {"x": 1, "a": 2}
    assert stage.states == ["done"] * 3


async def test_failing_rows_of_one_request_are_sent_one_by_one(tmp_path: Path) -> None:
    stage = Stage(tmp_path, ["x", *["a"] * 12], dedupe=True, max_attempts=1)
    provider = Provider({"a": [status(500)] * 11 + [ok()]})
    await stage.play(provider)
    assert provider.counts["a"] == 12
    assert Counter(stage.states) == {"done": 2, "failed": 11}


async def test_a_reply_that_is_asked_again_answers_all_once_it_fits(tmp_path: Path) -> None:
    stage = Stage(tmp_path, ["a", "a", "a"], dedupe=True, prompt_source=WITH_SCHEMA, output_fields=("score",))
    provider = Provider({"a": [ok("no")], "x": [ok()]}, usual=ok('{"score": 1}'))
    provider.scripts["a"] = [ok("no"), ok('{"score": 1}')]
    await stage.play(provider)
    assert len(provider.calls) == 2
    assert [record.value for record in stage.records] == ['{"score":1}'] * 3
    assert stage.totals.deduplicated == 2


async def test_a_reply_that_never_fits_fails_all_alike(tmp_path: Path) -> None:
    stage = Stage(tmp_path, ["a", "a"], dedupe=True, prompt_source=WITH_SCHEMA, schema_retries=1)
    provider = Provider(usual=ok("no"))
    await stage.play(provider)
    assert len(provider.calls) == 2
    assert stage.states == ["failed", "failed"]


@pytest.mark.parametrize("choice", [{"limit": 4}, {"sample": 3}])
async def test_only_rows_that_the_command_sends_lead_or_wait(tmp_path: Path, choice: dict[str, int]) -> None:
    texts = ["a", "b", "a", "b", "a", "b", "a", "b", "c"]
    stage, provider = Stage(tmp_path, texts, dedupe=True), Provider()
    await stage.play(provider, **choice)
    done = [text for text, state in zip(texts, stage.states, strict=True) if state == "done"]
    assert len(done) == (choice.get("limit") or choice["sample"])
    assert provider.counts == dict.fromkeys(done, 1)
    await stage.play(provider)
    assert stage.states == ["done"] * 9
    assert provider.counts == {"a": 1, "b": 1, "c": 1}


async def test_a_run_that_is_stopped_leaves_those_that_wait_as_they_are(tmp_path: Path) -> None:
    stage = Stage(tmp_path, ["x", "a", "a", "q", "q"], dedupe=True, concurrency=1, concurrency_fixed=True)
    provider = Provider({"q": [QUOTA]})
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.STOPPED
    provider.scripts = {}
    await stage.play(provider)
    assert stage.states == ["done"] * 5
    assert provider.counts == {"x": 1, "a": 1, "q": 2}


async def test_rows_that_are_answered_by_others_take_nothing_from_a_budget(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, ["a", "a", "b", "a", "b"], dedupe=True), Provider()
    story = await stage.play(provider, max_requests=2)
    assert story.ending.exit_code is ExitCode.OK
    assert provider.counts == {"a": 1, "b": 1}
    assert stage.states == ["done"] * 5


async def test_going_on_under_a_used_up_budget_still_answers_what_costs_nothing(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, ["b", "a", "c", "d", "a", "a"]), Provider()
    await stage.play(provider, sample=None, limit=2)
    story = await stage.play(provider, dedupe=True, max_requests=2)
    assert story.ending.exit_code is ExitCode.BUDGET
    assert stage.states == ["done", "done", "pending", "pending", "done", "done"]
    assert len(provider.calls) == 2


async def thrice(tmp_path: Path, function: str) -> Stage:
    """Three equal requests, one call, and post-processing by `function`, which is named `post`."""
    script = tmp_path / "script.py"
    script.write_text(function)
    stage, provider = Stage(tmp_path, ["a", "a", "a"], dedupe=True, post=(f"{script}:post",), workers=0), Provider()
    await stage.play(provider)
    assert len(provider.calls) == 1
    return stage


async def test_every_row_is_post_processed_with_its_own_fields(tmp_path: Path) -> None:
    stage = await thrice(tmp_path, "def post(reply):\n    return {'who': reply.fields['id'], 'said': reply.text}\n")
    said = [orjson.loads(record.added or "") for record in stage.records]
    assert said == [{"who": f"id-{n}", "said": "A"} for n in (1, 2, 3)]


async def test_post_processing_that_fails_for_one_row_fails_for_that_row_alone(tmp_path: Path) -> None:
    stage = await thrice(tmp_path, "def post(reply):\n    assert reply.fields['id'] != 'id-1'\n    return reply.text\n")
    assert stage.states == ["failed", "done", "done"]
    provider = Provider()
    better = tmp_path / "better.py"
    better.write_text("def picky(reply):\n    return reply.text\n")
    with closing(Journal.open(stage.path)) as journal:
        journal.reopen(failed_for_good=True)
    await stage.play(provider, dedupe=False, post=(f"{better}:picky",))
    assert stage.states == ["done"] * 3
    assert provider.calls == []


async def test_replies_are_post_processed_again_for_all_rows_without_a_call(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, ["a", "a", "b"], dedupe=True), Provider()
    await stage.play(provider)
    with closing(Journal.open(stage.path)) as journal:
        assert journal.reopen_replies() == 3
    await stage.play(provider, dedupe=False)
    assert stage.states == ["done"] * 3
    assert len(provider.calls) == 2
    assert stage.totals.deduplicated == 1


def changed(stage: Stage, texts: Sequence[str]) -> None:
    """The input now has these texts."""
    with closing(Journal.open(stage.path)) as journal:
        journal.compare(map(ingested, range(1, len(texts) + 1), texts))
        journal.apply()


async def test_a_leader_whose_request_changes_leaves_the_others_answered(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, ["a", "a", "a"], dedupe=True), Provider()
    await stage.play(provider)
    changed(stage, ["z", "a", "a", "a"])
    await stage.play(provider)
    assert provider.counts == {"a": 1, "z": 1}
    assert outputs(stage) == ["Z", "A", "A", "A"]
    assert stage.totals.deduplicated == 3


async def test_one_whose_request_changes_is_sent(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, ["a", "a", "a"], dedupe=True), Provider()
    await stage.play(provider)
    changed(stage, ["a", "z"])
    await stage.play(provider)
    assert provider.counts == {"a": 1, "z": 1}
    assert outputs(stage) == ["A", "Z"]


async def taken_from(source: Stage, stage: Stage, *, once: bool = False) -> int:
    with closing(Journal.open(stage.path)) as journal:
        count = journal.take_replies(source.path, once=once)
        assert not journal.reusing
        return count


async def test_replies_of_another_run_answer_equal_requests_each_once(tmp_path: Path) -> None:
    source, provider = Stage(tmp_path, ["a", "b", "b", "bad"], **PRICED), Provider({"bad": [BAD]})
    await source.play(provider)
    stage, again = Stage(tmp_path, ["b", "b", "b", "c", "bad"], run="r2"), Provider()
    assert await taken_from(source, stage) == 2
    assert await taken_from(source, stage) == 0
    await stage.play(again)
    assert again.counts == {"b": 1, "c": 1, "bad": 1}
    assert outputs(stage) == ["B", "B", "B", "C", "BAD"]
    totals = stage.totals
    assert (totals.deduplicated, totals.saved, totals.saved_tokens, totals.replies) == (2, 2 * EACH, 20, 3)


async def test_a_reply_of_another_run_answers_all_rows_where_requests_are_sent_once(tmp_path: Path) -> None:
    source, provider = Stage(tmp_path, ["b", "b", "a"], **PRICED), Provider()
    await source.play(provider)
    middle, stage = Stage(tmp_path, ["b", "b", "b", "c"], run="r2"), Stage(tmp_path, ["b", "c", "c"], run="r3")
    again = Provider()
    assert await taken_from(source, middle, once=True) == 1
    await middle.play(again, dedupe=True)
    assert again.counts == {"c": 1}
    assert (middle.totals.deduplicated, middle.totals.saved) == (3, 3 * EACH)
    assert await taken_from(middle, stage) == 2
    await stage.play(again)
    assert again.counts == {"c": 2}
    assert (stage.totals.deduplicated, stage.totals.saved) == (2, EACH)


TEXTS = st.lists(st.sampled_from("abc"), min_size=1, max_size=8)
SCRIPTS: dict[str, Sequence[Answer]] = {
    "fine": [ok()],
    "late": [status(500), ok()],
    "for now": [status(500), status(500), status(500), ok()],
    "for good": [BAD],
    "garbage": [garbage(b"<html>"), ok()],
}


def killed_at(fatal: int, texts: list[str], fates: tuple[str, ...]) -> None:
    """A run that is killed at this commit goes on to its end: nothing that was settled is sent again."""

    async def story(directory: Path) -> None:
        def faults(commit: int) -> None:
            if commit >= fatal:
                raise OSError("killed")

        scripts = dict(zip("abc", (SCRIPTS[name] for name in fates), strict=True))
        stage, provider = Stage(directory, texts, dedupe=True, max_attempts=2), Provider(dict(scripts))
        stage.faults = faults
        told: set[str] = set()
        again: list[str] = []

        def hear(event: Event, _: Run) -> None:
            if isinstance(event, RowFinished) and event.outcome.permanent:
                told.add(texts[event.seq - 1])
            if isinstance(event, AttemptStarted) and texts[event.seq - 1] in told:
                again.append(texts[event.seq - 1])

        with contextlib.suppress(StorageError, OSError):  # nothing more can be written, so nothing is known of it
            await stage.play(provider, hear=hear)
        stage.faults = None
        calls = -1
        while calls != len(provider.calls):  # until a session has nothing to send
            calls = len(provider.calls)
            with closing(Journal.open(stage.path)) as journal:
                journal.reopen()
            await stage.play(provider, hear=hear)
        assert again == [], "a settled request was sent again"
        totals = stage.totals
        assert totals.done + totals.failed == len(texts)
        for text, name in zip("abc", fates, strict=True):
            states = {state for state, row in zip(stage.states, texts, strict=True) if row == text}
            assert states <= ({"failed"} if name == "for good" else {"done"})
        for seq, answer in enumerate(outputs(stage)):
            assert answer in (None, texts[seq].upper())

    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as name:
        asyncio.run(story(Path(name)))


@pytest.mark.slow
@settings(max_examples=150)
@given(texts=TEXTS, fates=st.tuples(*[st.sampled_from(sorted(SCRIPTS))] * 3), fatal=st.integers(3, 30))
def test_wherever_a_run_is_killed_nothing_is_paid_twice(texts: list[str], fates: tuple[str, ...], fatal: int) -> None:
    killed_at(fatal, texts, fates)


@pytest.mark.parametrize("fatal", range(3, 10))
def test_wherever_a_run_is_killed_a_failure_is_shared(fatal: int) -> None:
    killed_at(fatal, ["a", "b", "b", "b"], ("fine", "for good", "fine"))
