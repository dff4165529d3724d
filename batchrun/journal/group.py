"""The writes of one commit, gathered by kind: a few statements for many rows each."""

# Each statement releases the interpreter's lock, which is slow to win back. Kinds are written in the order of a row's
# life: an attempt begins, ends, and its row finishes.

import re
import sqlite3
from collections.abc import Sequence
from itertools import chain, repeat
from typing import Any, NamedTuple

from batchrun.journal.queries import sql
from batchrun.journal.records import Answers, End, Exchanges
from batchrun.models import JUST_DONE, Outcome, SharedReply

EXCERPT = 2048  # bytes kept of a body that is not a reply

Params = tuple[Any, ...]

_VALUES = re.compile(r"VALUES (\(.*?\))", re.DOTALL)


class Insert:
    """The statement with its row of values repeated, in a few sizes."""

    def __init__(self, name: str, *, sizes: Sequence[int] = (64, 8, 1)) -> None:
        head, one, tail = _VALUES.split(sql(name))
        self._sizes = [(size, f"{head}VALUES {', '.join([one] * size)}{tail}") for size in sizes]

    def run(self, connection: sqlite3.Connection, rows: list[Params]) -> None:
        start, count = 0, len(rows)
        for size, statement in self._sizes:
            while count - start >= size:
                connection.execute(statement, list(chain.from_iterable(rows[start : start + size])))
                start += size


# SQLite's Python module binds int, float and str at once, but asks None, bool and enums how they adapt, 0.3 µs each:
# so what nearly every attempt and row has in common has statements of its own.
_BEGIN = Insert("begin_attempt")
_END = Insert("end_attempt")
_END_PAID = Insert("end_paid_attempt")
_END_IN_TIER = Insert("end_attempt_in_tier")
_FINISH = Insert("finish")
_FINISH_DONE = Insert("finish_done")
_BEGIN_BATCHED = Insert("begin_batched")
_REPLY = Insert("insert_reply")
_SAMPLE = Insert("insert_sample")


class Last(NamedTuple):
    """What an outcome copies from its row's last attempt."""

    number: int
    reply: int | None
    seconds: float | None
    input_tokens: int | None
    output_tokens: int | None


NEVER = Last(0, None, None, None, None)
_NO_USAGE = (None, None, None, None, None)
_ACCEPTED = End(200, 0.0)[2:9]  # from `cause` to `possibly_billed`


def storable(text: str | None) -> str | None:
    """Lone surrogates become JSON escapes, which SQLite can hold."""
    if text is None or text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode()


class Group:
    def __init__(self) -> None:
        self.begun: list[Params] = []
        self.completed: list[End] = []  # accepted replies whose rows are done
        self.ended_cost = 0  # reserved for them, in picodollars
        self.reserved: list[Params] = []
        self.replies: list[Params] = []
        self.ended: list[Params] = []
        self.answered: list[Params] = []
        self.paid: list[Params] = []
        self.in_tier: list[Params] = []
        self.notes: list[Params] = []
        self.finished: list[Params] = []
        self.done: list[Params] = []
        self.samples: list[Params] = []
        self.learned: list[Params] = []
        self.batched: list[Params] = []
        self.tickets: list[Params] = []

    def end(self, begun: Params, now: float, end: End, reply: int | None) -> None:
        # `begun` is (row, number, session).
        status, seconds, *_, usage, request_id, excerpt, cost, tokens, bill = end
        used, tier = (_NO_USAGE, None) if usage is None else (usage[:5], usage.tier)
        tier = None if tier == "default" else tier
        kinds = (0, 0, 0, cost or 0) if bill is None else bill[1:]
        paid = (*begun, now - seconds, now, seconds, status, *used, cost, tokens, *kinds, storable(request_id), reply)
        if excerpt is None and end[2:9] == _ACCEPTED:
            if tier is None:
                self.paid.append(paid)
            else:
                self.in_tier.append((*paid, storable(tier)))
            return
        flags = (end.throttled, end.counted and not end.throttled, end.deadline, end.invalid, end.possibly_billed)
        excerpt = excerpt and excerpt.encode("utf-8", "backslashreplace")[:EXCERPT].decode("utf-8", "ignore")
        texts = (storable(end.cause), storable(end.message), excerpt)
        self.ended.append((*paid, storable(tier), *flags, *texts))

    def finish(self, row: int, now: float, last: Last, outcome: Outcome, reused: SharedReply | None) -> None:
        """With `reused`, `last` is another row's attempt."""
        done = (row, now, *last)
        if reused is None and (outcome is JUST_DONE or outcome == JUST_DONE):
            self.done.append(done)
            return
        state, permanent, cause, message, flags, value, added, post, trace = outcome
        texts = (storable(cause), storable(message), ",".join(sorted(flags)) or None, storable(value), storable(added))
        representative, saved = (None, None) if reused is None else (reused.representative, reused.cost)
        self.finished.append((*done, state, permanent, *texts, post, storable(trace), representative, saved))

    def answer(self, now: float, reply: int, answers: Answers, tier: str) -> None:
        """Replies are numbered from `reply` + 1."""
        rows, numbers, values, _, *columns, bodies = answers
        given, output, *_ = columns
        replies = range(reply + 1, reply + 1 + len(rows))
        self.replies += zip(replies, rows, numbers, bodies, strict=True)
        tiers = [None if tokens is None else tier for tokens in given]
        self.answered += zip(rows, numbers, repeat(now), replies, *columns, tiers)
        ends = zip(rows, repeat(now), numbers, replies, repeat(0.0), given, output)
        if not any(values):  # nearly always
            self.done += ends
            return
        for (row, _, *last), value in zip(ends, values, strict=True):
            self.finish(row, now, Last(*last), JUST_DONE._replace(value=value), None)

    def answer_page(self, now: float, session: int, reply: int, answers: Answers, exchanges: Exchanges) -> None:
        rows, numbers, values, _, *columns, bodies = answers
        given, output, *_ = columns
        seconds, ids = exchanges
        replies = range(reply + 1, reply + 1 + len(rows))
        self.replies += zip(replies, rows, numbers, bodies, strict=True)
        begun = (now - each for each in seconds)
        ended = (rows, numbers, repeat(session), begun, repeat(now), seconds, repeat(200))
        self.paid += zip(*ended, *columns, map(storable, ids), replies, strict=False)
        ends = zip(rows, repeat(now), numbers, replies, seconds, given, output)
        if not any(values):
            self.done += ends
            return
        for (row, _, *last), value in zip(ends, values, strict=True):
            self.finish(row, now, Last(*last), JUST_DONE._replace(value=value), None)

    def write(self, connection: sqlite3.Connection) -> None:
        _BEGIN.run(connection, self.begun)
        _BEGIN_BATCHED.run(connection, self.batched)
        if self.reserved:
            connection.executemany(sql("reserve_more"), self.reserved)
        if self.tickets:
            connection.executemany(sql("put_ticket"), self.tickets)
        _REPLY.run(connection, self.replies)
        if self.answered:
            connection.executemany(sql("end_answered"), self.answered)
        _END_PAID.run(connection, self.paid)
        _END_IN_TIER.run(connection, self.in_tier)
        _END.run(connection, self.ended)
        if self.notes:
            connection.executemany(sql("note_attempt"), self.notes)
        _FINISH_DONE.run(connection, self.done)
        _FINISH.run(connection, self.finished)
        _SAMPLE.run(connection, self.samples)
        if self.learned:
            connection.executemany(sql("learn"), self.learned)
