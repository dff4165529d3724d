"""Which rows of equal requests are sent, which wait, and which share a reply: the rules of `journal.duplicates`, over SQL
alone.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.journal import duplicates, pending
from batchrun.journal.database import Connection
from batchrun.journal.texts import Texts
from batchrun.models import Pending

DONE, POST, FAILED, LATER, REPLIED, INVALID, OPEN, FRESH = (
    *("done", "post", "failed", "for now", "replied", "spent", "open", "fresh"),
)
STATES = (DONE, POST, FAILED, LATER, REPLIED, INVALID, OPEN, FRESH)
UNANSWERED = (REPLIED, INVALID, OPEN, FRESH)


class Known(NamedTuple):
    """A row as the journal has it: its request, what is known of it, and whether it is in the input."""

    request: str
    state: str
    present: bool


def journal(rows: list[Known]) -> Connection:
    """A journal with these rows, numbered from 1."""
    connection = sqlite3.connect(":memory:", isolation_level=None, factory=Connection)
    connection.read_texts(Texts(Path("none")))
    connection.executescript(resources.files("batchrun.journal").joinpath("schema.sql").read_text(encoding="utf-8"))
    for seq, (request, state, present) in enumerate(rows, 1):
        values = (seq, seq if present else None, seq, f"k{seq}", request, "{}")
        connection.execute(
            "INSERT INTO rows (seq, position, line, key, request, text) VALUES (?, ?, ?, ?, ?, ?)", values
        )
        _know(connection, seq, state)
    return connection


def _know(connection: Connection, seq: int, state: str) -> None:
    if state == FRESH:
        return
    reply = None if state in (LATER, OPEN) else seq
    connection.execute(
        "INSERT INTO attempts (row, number, session, began, ended, spent, cost, reply) VALUES (?, 1, 1, 1, ?, ?, ?, ?)",
        (seq, None if state == OPEN else 2, int(state == INVALID), 100 + seq, reply),
    )
    if reply is not None:
        connection.execute(
            "INSERT INTO replies (id, row, number, body) VALUES (?, ?, 1, ?)", (seq, seq, f"reply {seq}")
        )
    if state not in UNANSWERED:
        outcome = ("done" if state == DONE else "failed", int(state != LATER), int(state == POST), reply)
        connection.execute(
            "INSERT INTO outcomes (row, state, permanent, post, reply, attempts, finished) VALUES (?, ?, ?, ?, ?, 1, 1)",
            (seq, *outcome),
        )


def streams(connection: Connection) -> tuple[list[Pending], list[Pending], dict[int, list[int]]]:
    """The rows that are sent, those that share a reply, and those that wait for each row."""
    sent = pending.pending(connection, 0, 100, None)
    waiting = {
        row.seq: [other.seq for other in pending.following(connection, row.seq, row.seq, 0, 100, frozenset())]
        for row in sent
        if row.awaited
    }
    return sent, pending.answered(connection, 0, 100, frozenset()), waiting


KNOWN = st.lists(
    st.builds(Known, st.sampled_from(["a", "b", ""]), st.sampled_from(STATES), st.booleans()), min_size=1, max_size=9
)


@given(rows=KNOWN, limit=st.integers(1, 9))
def test_each_row_is_sent_or_waits_or_is_lent_a_reply(rows: list[Known], limit: int) -> None:
    def wanted(position: int) -> bool:
        return position <= limit

    with closing(journal(rows)) as connection:
        duplicates.pair(connection, dedupe=True, wanted=wanted)
        sent, reused, waiting = streams(connection)

    def of(seq: int) -> Known:
        return rows[seq - 1]

    handled = [row.seq for row in (*sent, *reused)] + [seq for group in waiting.values() for seq in group]
    unanswered = [seq for seq, row in enumerate(rows, 1) if row.present and row.state in UNANSWERED]
    assert sorted(handled) == unanswered

    answers = {row.request for row in rows if row.state in (DONE, POST)}
    for row in reused:
        assert row.reused is not None
        source = of(row.reused.representative)
        assert source.request == of(row.seq).request != ""
        assert source.state in (DONE, POST)
        assert (row.reused.body, row.reused.cost) == (
            f"reply {row.reused.representative}",
            100 + row.reused.representative,
        )
    for representative, group in waiting.items():
        assert {of(seq).request for seq in (representative, *group)} == {of(representative).request}
        assert of(representative).request not in answers
        assert all(wanted(seq) for seq in (representative, *group))
    calls = [of(row.seq).request for row in sent if wanted(row.seq) and of(row.seq).state != REPLIED]
    for request in ("a", "b"):
        replied = any(of(row.seq) == (request, REPLIED, True) and wanted(row.seq) for row in sent)
        assert calls.count(request) <= (0 if request in answers or replied else 1)


@given(rows=KNOWN)
def test_nobody_waits_where_equal_requests_are_samples(rows: list[Known]) -> None:
    with closing(journal(rows)) as connection:
        duplicates.pair(connection, dedupe=True, wanted=None)
        duplicates.pair(connection, dedupe=False, wanted=None)
        _, _, waiting = streams(connection)
        assert waiting == {}


@pytest.mark.parametrize(
    "rows", [[Known("a", FRESH, True)] * 3, [Known("a", DONE, False), *[Known("a", FRESH, True)] * 3]]
)
def test_settling_it_again_changes_nothing(rows: list[Known]) -> None:
    with closing(journal(rows)) as connection:
        duplicates.pair(connection, dedupe=True, wanted=None)
        before = streams(connection)
        duplicates.pair(connection, dedupe=True, wanted=None)
        assert streams(connection) == before


@pytest.mark.parametrize("wanted", [None, lambda _: False])
def test_who_waits_for_a_row_that_has_failed_for_good_goes_on_waiting(wanted: Callable[[int], bool] | None) -> None:
    rows = [Known("a", FAILED, True), *[Known("a", FRESH, True)] * 3, Known("b", FRESH, True)]
    with closing(journal(rows)) as connection:
        connection.executemany("INSERT INTO duplicates (row, representative) VALUES (?, ?)", [(2, 1), (3, 1), (5, 4)])
        duplicates.pair(connection, dedupe=True, wanted=wanted)
        sent, _, waiting = streams(connection)
        assert [row for row, _ in pending.failed(connection)] == [1]
        assert [row.seq for row in pending.following(connection, 1, 1, 0, 100, frozenset())] == [2, 3]
        assert ([row.seq for row in sent], waiting) == ([4, 5], {})
