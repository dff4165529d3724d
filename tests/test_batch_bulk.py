"""Many rows of a batch at once: lines of results, the journal and the picture say the same as row by row."""

import json
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from engine import PLAN, WITH_SCHEMA, Stage
from hypothesis import given
from hypothesis import strategies as st

from batchrun.engine.batch_rows import matched
from batchrun.engine.batches import Batches, Batching
from batchrun.engine.budget_guard import BATCH, BudgetGuard, served
from batchrun.engine.judge import judge_body
from batchrun.engine.result_reader import ReplyReader
from batchrun.engine.segment_checks import RowChecks
from batchrun.engine.snapshots import rows_answered
from batchrun.engine.start import checker_of
from batchrun.engine.tickets import Tickets
from batchrun.errors import RefusedError
from batchrun.events import AttemptEnded, RowFinished, RunStarted, single
from batchrun.journal import Answers, End, Journal, Lease, Leased, Record, Sum, chosen, columns
from batchrun.lanes.batch import BatchExecutor
from batchrun.lanes.shapes import SHAPES, object_of
from batchrun.lanes.vendors import vendor
from batchrun.models import JUST_DONE, Bill, Endpoint, Request, Ticket, Totals, Usage
from batchrun.plan.rendering import prompt_of
from batchrun.progress import Fold

WITH_SCORES = replace(PLAN, prompt_source=WITH_SCHEMA, prompt_path="p.prompty")
NO_JOURNAL = cast("Journal", None)
"""Where there is no cap, a budget asks none."""
BODY = (
    '{"id": "c", "choices": [{"message": {"content": "}}, \\"error\\": null}"}}], "usage": {"n": 12345678901234567890}}'
)
LINES = [
    '{"id": "b", "custom_id": "r-1-1", "response": {"status_code": 200, "request_id": "q", "body": %s}, "error": null}\n',
    '{"id":"b","custom_id":"r-1-1","response":{"status_code":200,"request_id":"q","body":%s},"error":null}',
    '{"custom_id": "r-1-1", "response": {"body": %s, "request_id": "q", "status_code": 200}, "error": null}\r\n',
    '{"response": {"status_code": 200, "body": %s}, "custom_id": "r-1-1"}\n',
    ' { "custom_id" : "r-1-1" , "response" : { "status_code" : 200 , "body" : %s } , "id" : null } \n',
    '{"custom_id": "r-2-1", "custom_id": "r-1-1", "response": {"status_code": 400, "status_code": 200, "body": %s}}\n',
]
OTHERS = [
    LINES[0].replace("200", "400"),
    LINES[0].replace('"status_code": 200, ', ""),
    LINES[0].replace('"id": "b"', '"id": "\\u0062"'),
    LINES[0].replace('"custom_id": "r-1-1", ', ""),
    LINES[0].replace('"id": "b"', '"new": {"id": "b"}'),
    LINES[0].replace("%s", '"%s"'),
    LINES[0].replace("%s", "%s, %s"),
    LINES[0].replace("%s", "[%s]"),
    LINES[0].replace("}, ", "}} "),
    LINES[0][:-9],
    '{"id": "b", "custom_id": "r-1-1", "response": null, "error": {"code": "batch_expired"}}',
]


@pytest.mark.parametrize("line", LINES)
def test_the_body_of_a_reply_is_kept_to_the_byte(line: str) -> None:
    shape = SHAPES["openai"](vendor("openai"))
    for _ in range(2):  # what stands behind the body is known by then
        assert shape.reply((line % BODY).encode()) == ("r-1-1", BODY.encode(), orjson.loads(BODY))


@pytest.mark.parametrize("line", OTHERS)
def test_a_line_that_is_spelled_otherwise_is_read_member_by_member(line: str) -> None:
    shape = SHAPES["openai"](vendor("openai"))
    assert shape.reply((LINES[0] % BODY).encode()) is not None
    assert shape.reply(line.replace("%s", BODY).encode()) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)


@given(
    body=st.dictionaries(st.sampled_from(["body", "error", "response", "custom_id", "x"]), JSON, max_size=4),
    members=st.permutations(["id", "custom_id", "error", "response"]),
    within=st.permutations(["status_code", "request_id", "body"]),
    separators=st.sampled_from([(",", ":"), (", ", ": ")]),
    ascii_only=st.booleans(),
)
def test_both_ways_to_read_a_line_agree(
    body: dict[str, Any], members: list[str], within: list[str], separators: tuple[str, str], ascii_only: bool
) -> None:
    response = {"status_code": 200, "request_id": "q", "body": body}
    line = {"id": "b", "custom_id": "r-7-2", "error": None, "response": {name: response[name] for name in within}}
    text = json.dumps({name: line[name] for name in members}, separators=separators, ensure_ascii=ascii_only)
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return  # half of a surrogate pair is in no file
    shape = SHAPES["openai"](vendor("openai"))
    slowly = shape.completion(object_of(data), 7, 2)
    found = shape.reply(data)
    if found is not None:
        assert found[0] == "r-7-2"
        assert found[1] in data
        assert json.loads(found[1]) == json.loads(slowly.body) == body


USAGE = Usage(70, 3, 10, 2, 4, tier="batch")
DETAILED = Usage(70, 3, 10, 2, 4, written_long=4, input_audio=7, output_image=1, tier="batch", charged=90)
ENDS = [
    End(200, 0.0, usage=USAGE, cost=120, charged_tokens=73, bill=Bill(50, 20, 10, 40)),
    End(200, 0.0, usage=DETAILED, charged_tokens=73),
    End(200, 0.0, cost=90, charged_tokens=40),
]
BODIES = ['{"n": 1}', '{"n": 2}', '{"n": "\\u00e9"}']
OUTCOMES = [JUST_DONE, JUST_DONE._replace(value='{"score": 1}'), JUST_DONE]


LEASED = columns(Leased, [(n, 1, 500, 100, 0) for n in (1, 2, 3)])


def answers_of(ends: list[End], first: int = 0) -> Answers:
    """Replies to the rows behind the first ones that end like this and as `OUTCOMES` says."""
    lines: list[tuple[Any, ...]] = []
    for row, end in enumerate(ends[first:], first + 1):
        kinds = end.bill or Bill(other=end.cost or 0)
        usage = (None,) * 5 if end.usage is None else end.usage[:5]
        body, value = BODIES[row - 1], OUTCOMES[row - 1].value
        whole = end.usage._replace(tier=None) if end.usage is DETAILED else None
        lines.append((row, 1, value, whole, *usage, end.cost, end.charged_tokens, *kinds[1:], body))
    return columns(Answers, lines)


async def answered(directory: Path, *, together: bool) -> tuple[Totals, list[Record]]:
    """What a journal has of three rows of a batch that were answered."""
    directory.mkdir()
    stage = Stage(directory, 3)
    leases = [Lease(row, 1, 500, 100) for row in (1, 2, 3)]
    journal = Journal.open(stage.path, clock=lambda: 1000.0)
    journal.start()
    await journal.plan(Ticket(id=1, lane=1, state="fetched", chunk=1, rows=3), leases)
    if together:
        assert journal.leased(1, [3, 1, 2, 4]) == chosen(LEASED, [2, 0, 1])
        assert journal.places([3, 1]) == [(3, 3, "id-3"), (1, 1, "id-1")]
        answers = answers_of(ENDS)
        await journal.answer(answers, Sum.of(answers), 1500, BATCH)
    else:
        for lease, end, body, outcome in zip(leases, ENDS, BODIES, OUTCOMES, strict=True):
            journal.end(lease.row, lease.number, end, body, lease)
            await journal.finish(lease.row, outcome)
    journal.close(0)
    return stage.totals, stage.records


async def test_rows_that_are_answered_together_are_in_the_journal_as_one_by_one(tmp_path: Path) -> None:
    totals, records = await answered(tmp_path / "together", together=True)
    assert (totals, records) == await answered(tmp_path / "alone", together=False)
    assert (totals.done, totals.replies, totals.in_batches, totals.cost_cached, totals.unpriced) == (3, 3, 0, 20, 1)
    assert [record.body for record in records] == BODIES


@pytest.mark.parametrize("first", [0, 1, 2])
def test_rows_that_are_answered_together_look_as_one_by_one(first: int) -> None:
    answers = answers_of(ENDS, first)
    event = rows_answered(answers, Sum.of(answers), 2.0, lambda: [(row, row, f"id-{row}") for row in answers.rows])
    started = RunStarted("r1", Totals(rows=10, in_batches=3), "host", "m", False, 0.0, price="$1")
    together, alone = Fold(), Fold()
    for fold in (together, alone):
        fold(started)
    together(event)
    for each in single(event):
        assert isinstance(each, AttemptEnded | RowFinished)
        alone(each)
    ended = [each for each in single(event) if isinstance(each, AttemptEnded)]
    assert [each.usage for each in ended] == [end.usage for end in ENDS[first:]]
    assert together.snapshot(3.0) == alone.snapshot(3.0)
    assert together.snapshot(3.0).done == 3 - first


def test_of_replies_together_those_are_decided_alone_that_are_of_other_attempts_or_awaited() -> None:
    answers = columns(Answers, [(row, row % 2 + 1, *[None] * 12, 0, str(row)) for row in range(1, 7)])
    leased = columns(Leased, [(row, 2, 500, row, row == 5) for row in (1, 3, 4, 5)])
    mine, taken, others = matched(leased, answers)
    assert (mine.rows, mine.tokens) == (taken.rows, [1, 3]) == ([1, 3], [1, 3])
    assert taken.bodies == ["1", "3"]
    assert [(each.seq, each.number, each.body) for each in others] == [
        (2, 1, b"2"), (4, 1, b"4"), (5, 2, b"5"), (6, 1, b"6")
    ]  # fmt: skip


USAGES = st.none() | st.fixed_dictionaries(
    {"prompt_tokens": st.integers(-1, 50), "completion_tokens": st.integers(0, 9) | st.just("7")},
    optional={
        "total_tokens": st.integers(0, 60),
        "prompt_tokens_details": st.fixed_dictionaries({"cached_tokens": st.integers(0, 60)}),
        "cost": st.just(0.25),
    },
)
MESSAGES = st.fixed_dictionaries(
    {
        "content": st.sampled_from(
            ["yes", "", None, "<think>hm</think>yes", '{"score": 1}', '{"score": "1"}', ["a"], {"type": 1}]
        )
    },
    optional={"tool_calls": st.sampled_from([[], [{"id": "c"}]]), "refusal": st.sampled_from([None, "no"])},
)
CHOICES = st.fixed_dictionaries(
    {"message": MESSAGES | st.none()},
    optional={"finish_reason": st.sampled_from(["stop", "length", "content_filter", "error", "new", None, 1])},
)
REPLIES = st.fixed_dictionaries(
    {"choices": st.lists(CHOICES, max_size=2), "usage": USAGES},
    optional={
        "error": st.sampled_from([None, {"message": "busy"}]),
        "service_tier": st.sampled_from(["default", "flex"]),
    },
)


@given(body=REPLIES, limit=st.sampled_from([None, 5]), with_schema=st.booleans())
def test_what_is_accepted_together_is_what_judging_accepts_without_a_flag(
    body: dict[str, Any], limit: int | None, with_schema: bool
) -> None:
    checker = checker_of(WITH_SCORES, prompt_of(WITH_SCORES)) if with_schema else None
    assert not isinstance(checker, RowChecks)
    request, data = Request(Endpoint.CHAT, b"{}", limit), json.dumps(body).encode()
    judged = judge_body(request, data, checker)
    plain = judged.answer.accepted and not judged.answer.flags and judged.answer.complaint is None
    answer = ReplyReader(Endpoint.CHAT, limit, 1, checker, None, 0)(7, 2, data, body)
    usage = (None,) * 5 if judged.usage is None else judged.usage[:5]
    assert (answer and (*answer[:3], *answer[4:9], answer[-1])) == (
        (7, 2, judged.value, *usage, data.decode()) if plain else None
    )


@given(body=REPLIES)
def test_replies_are_charged_together_what_they_are_charged_one_by_one(body: dict[str, Any]) -> None:
    plan = replace(PLAN, model="m", input_price=2.0, output_price=4.0, cached_price=1.0, reserve=0.001)
    request, data = Request(Endpoint.CHAT, b"{}", None), json.dumps(body).encode()
    alone, together = (BudgetGuard(plan, NO_JOURNAL, expected=lambda: 5, clock=lambda: 0.0) for _ in range(2))
    answer = ReplyReader(Endpoint.CHAT, None, 1, None, *together.batch_rates("m"))(1, 1, data, body)
    if answer is None:
        return
    leased = columns(Leased, [(1, 1, 500, 100, 0)])
    charged = together.settle_all(leased, columns(Answers, [answer]))
    charge = alone.settle(alone.adopt(500, 100, "m", BATCH), served(judge_body(request, data, None), BATCH))
    kinds = Bill(other=500) if charge.bill is None else charge.bill
    assert [column[0] for column in charged[-7:-1]] == [charge.cost, charge.tokens, *kinds[1:]]


async def chunk_files(directory: Path, *, together: bool) -> tuple[list[bytes], list[tuple[Any, ...]], Totals]:
    """Files, tickets and totals of rows of two models that were put into chunks of at most three rows."""
    directory.mkdir()
    stage, vendor_of = Stage(directory, 12), vendor("openai")
    journal = Journal.open(stage.path, clock=lambda: 1000.0)
    journal.start()
    executor = BatchExecutor(vendor_of, None, run="r1", folder=directory / "batches", clock=lambda: 1000.0)
    batching = Batching(executor=executor, run="r1", lane=1, folder=directory / "batches", first=2, lines=3)
    guard = BudgetGuard(replace(PLAN, max_requests=10), journal, expected=lambda: 5)
    batches = Batches(batching, journal, guard, emit=lambda _: None, stop=lambda _: None)
    made = [(n, 1, Request(Endpoint.CHAT, b'{"model":"m%d","n":%d}' % (n % 2, n), 7)) for n in range(1, 11)]
    made.insert(4, (12, 1, Request(Endpoint.TRANSCRIPTIONS, b'{"model":"m0"}', 0)))  # which no batch takes
    if together:
        assert await batches.add_all(made) == set(range(1, 11))
    else:
        for seq, number, request in made:
            with suppress(RefusedError):
                await batches.add(seq, number, request)
    await batches.close_chunks()
    found = [(each.id, each.chunk, each.model, each.rows, each.bytes, each.sha256) for each in batches.open]
    files = [executor.path(each, "requests").read_bytes() for each in batches.open]
    journal.close(0)
    return files, found, stage.totals


async def test_requests_that_are_put_into_chunks_together_make_the_same_files_as_one_by_one(tmp_path: Path) -> None:
    together = await chunk_files(tmp_path / "together", together=True)
    assert together == await chunk_files(tmp_path / "alone", together=False)
    files, tickets, totals = together
    assert sum(len(file.splitlines()) for file in files) == totals.in_batches == 10
    assert [rows for *_, rows, _, _ in tickets] == [2, 3, 3, 2]


async def test_of_requests_together_the_first_ones_that_fit_into_the_budget_are_reserved_for(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 1)
    with closing(Journal.open(stage.path)) as journal:
        guard = BudgetGuard(replace(PLAN, max_total_tokens=100), journal, expected=lambda: 5)
        requests = [Request(Endpoint.CHAT, b'{"model":"m"}', 30)] * 3
        assert guard.all_now(requests) == [(None, 43), (None, 43)]
        assert guard.all_now(requests) == []


async def test_a_ticket_that_is_not_committed_yet_has_its_number_alone(tmp_path: Path) -> None:
    """A batch that the provider made twice may get its ticket while the file of another chunk is written."""
    stage = Stage(tmp_path, 1)
    with closing(Journal.open(stage.path)) as journal:
        executor = BatchExecutor(vendor("openai"), None, run="r1", folder=tmp_path)
        tickets = Tickets(executor, journal, lambda _: None, 10)
        assert [tickets.new_id(), tickets.new_id(), tickets.new_chunk(), tickets.new_chunk()] == [1, 2, 1, 2]
        tickets.show(Ticket(id=7, lane=1, state="submitted", chunk=5))
        assert (tickets.new_id(), tickets.new_chunk()) == (8, 6)
