"""Events of attempts, rows and limits, and the JSON of a sample in the journal."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import repeat
from typing import NamedTuple

import orjson

from batchrun.account import MONEY
from batchrun.engine.budget_guard import BATCH
from batchrun.engine.pending_queue import RowState
from batchrun.events import AttemptEnded, LimitsChanged, RowFinished, RowsAnswered
from batchrun.journal import Answers, End, Exchanges, Journal, Sum
from batchrun.limits import GateView
from batchrun.models import JUST_DONE, Bill, Exchange, Outcome, State, Usage
from batchrun.pricing import usd


def attempt_ended(state: RowState, end: End, now: float, *, paid: bool, retry: bool) -> AttemptEnded:
    """`retry`: the row is sent again."""
    row, lane = state.row, state.lane
    status, seconds, cause, _, throttled, _, _, _, billed, usage, _, _, cost, _, bill = end
    name, number = "" if lane is None else lane.name, state.number
    about = (status, cause, throttled, retry, paid, billed, seconds, usage, cost, bill)
    return AttemptEnded(row.seq, row.line, number, now, *about, name)


def row_finished(state: RowState, outcome: Outcome, now: float) -> RowFinished:
    row, reused = state.row, state.reused
    if reused is None or outcome.state is not State.DONE:
        return RowFinished(row.seq, row.line, row.position, row.key, now, outcome)
    return RowFinished(row.seq, row.line, row.position, row.key, now, outcome, True, reused.tokens, reused.cost)


Places = Callable[[], Sequence[tuple[int, int, str]]]  # Position, line and key of each of some rows


def rows_answered(
    answers: Answers, found: Sum, now: float, places: Places, exchanges: Exchanges | None = None
) -> RowsAnswered:
    rows, tiers, paid = len(answers.rows), dict[str, tuple[int, int]](), found.cost
    if found.stated and exchanges is None:
        if found.stated < rows:
            charged = zip(answers.costs, answers.input_tokens, strict=True)
            paid = sum(cost or 0 for cost, given in charged if given is not None)
        tiers[BATCH] = found.stated, paid
    each = partial(_each, answers, now, places, exchanges)
    return _answered(rows, found, now, tiers, each, () if exchanges is None else answers.rows)


def _each(
    answers: Answers, now: float, places: Places, exchanges: Exchanges | None
) -> Iterator[AttemptEnded | RowFinished]:
    times = repeat(0.0, len(answers.rows)) if exchanges is None else exchanges.seconds
    for answer, (position, line, key), seconds in zip(zip(*answers, strict=True), places(), times, strict=True):
        row, number, value, whole, given, output, cached, reasoning, written, cost, _, *kinds, _ = answer
        usage = None if given is None else Usage(*(whole or (given, output, cached, reasoning, written)))
        usage = usage and usage._replace(tier=BATCH if exchanges is None else usage.tier)
        bill = None if cost is None else Bill(cost - sum(kinds), *kinds)
        yield AttemptEnded(row, line, number, now, 200, None, False, False, True, False, seconds, usage, cost, bill)
        outcome = JUST_DONE if value is None else JUST_DONE._replace(value=value)
        yield RowFinished(row, line, position, key, now, outcome)


class Completed(NamedTuple):
    state: RowState
    end: End
    outcome: Outcome
    exchange: Exchange


def rows_completed(completed: Sequence[Completed], now: float) -> RowsAnswered:
    rows, found, tiers = len(completed), Sum.of_ends(each.end for each in completed), dict[str, tuple[int, int]]()
    for _, end, *_ in completed:
        usage = end.usage
        if usage is not None and usage.tier is not None and usage.tier != "default":
            replies, charged = tiers.get(usage.tier, (0, 0))
            tiers[usage.tier] = replies + 1, charged + (end.cost or 0)
    sent = [each.state.row.seq for each in completed]
    return _answered(rows, found, now, tiers, partial(_each_completed, completed, now), sent)


def _answered(  # noqa: PLR0913, PLR0917  an event's parts
    rows: int,
    found: Sum,
    now: float,
    tiers: dict[str, tuple[int, int]],
    each: Callable[[], Iterator[AttemptEnded | RowFinished]],
    sent: Sequence[int],
) -> RowsAnswered:
    return RowsAnswered(
        rows=rows,
        at=now,
        usage=found.usage,
        tiers=tiers,
        cost=found.cost,
        bill=found.bill,
        unpriced=rows - found.priced,
        without_usage=rows - found.stated,
        each=each,
        sent=sent,
    )


def _each_completed(completed: Sequence[Completed], now: float) -> Iterator[AttemptEnded | RowFinished]:
    for state, end, outcome, _ in completed:
        yield attempt_ended(state, end, now, paid=True, retry=False)
        yield row_finished(state, outcome, now)


def limits_event(view: GateView, now: float) -> LimitsChanged:
    fills = (view.requests_fill, view.tokens_fill)
    rates = (view.rpm, view.tpm)
    return LimitsChanged(view.in_flight, view.allowed, view.cap, *rates, *fills, view.reason, now, view.basis)


class Session(NamedTuple):
    in_flight: int
    throttled: int  # Attempts that met a 429
    retries: int  # Other ones


def sample_of(view: GateView, journal: Journal, session: Session) -> str:
    totals = journal.totals
    return orjson.dumps(
        {
            **{name: usd(value) if name in MONEY else value for name, value in asdict(totals).items()},
            "pending": totals.pending + totals.unknown,
            **session._asdict(),
            "allowed": view.allowed,
            "rpm": view.rpm,
            "tpm": view.tpm,
            "waiting": view.reason,
        }
    ).decode()
