"""The same command again: an input that was edited between two runs, against the rows of the journal."""

import asyncio
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batchrun.errors import InputError
from batchrun.journal import Drift, End, IntakeRow, Journal, Meta, Reader
from batchrun.models import Outcome, State

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # a property test makes thousands of commits
META = Meta(run="r1", created=1.0, plan="{}", prompt=None, simulated=False, output="../out.jsonl")
DONE = Outcome(State.DONE, True, None, None, frozenset(), None)

Identity = tuple[str, int]


class Known(NamedTuple):
    """A row of the journal as the table below sees it."""

    request: str
    text: str
    line: int
    position: int | None
    done: bool


def identified(rows: Sequence[IntakeRow]) -> list[Identity]:
    seen: Counter[str] = Counter()
    identities: list[Identity] = []
    for row in rows:
        key = row.key or f"content {row.text}"
        identities.append((key, seen[key]))
        seen[key] += 1
    return identities


def expected_drift(journal: dict[Identity, Known], rows: Sequence[IntakeRow]) -> Drift:
    """The rules of drift, one row at a time."""
    read = dict(zip(identified(rows), zip(rows, range(1, len(rows) + 1), strict=True), strict=True))
    both = [(journal[identity], *read[identity]) for identity in read if identity in journal]
    changed = [known for known, row, _ in both if known.request != row.request]
    return Drift(
        rows=len(rows),
        changed=len(changed),
        changed_done=sum(known.done for known in changed),
        added=sum(identity not in journal for identity in read),
        absent=sum(known.position is not None and identity not in read for identity, known in journal.items()),
        reappeared=sum(known.position is None for known, _, _ in both),
        retouched=sum(
            known.position is not None
            and known.request == row.request
            and (known.position, known.line, known.text) != (position, row.line, row.text)
            for known, row, position in both
        ),
    )


def follow(journal: dict[Identity, Known], rows: Sequence[IntakeRow]) -> dict[Identity, Known]:
    after = {identity: known._replace(position=None) for identity, known in journal.items()}
    for position, (identity, row) in enumerate(zip(identified(rows), rows, strict=True), 1):
        before = journal.get(identity)
        kept = before is not None and before.done and before.request == row.request
        after[identity] = Known(row.request, row.text, row.line, position, kept)
    return after


def found(path: Path) -> dict[tuple[int, str], tuple[str, int, bool]]:
    with Reader.open(path) as reader:
        assert reader.check() == []
        return {
            (row.position or 0, row.text): (row.key, row.line, row.state is State.DONE) for row in reader.export_rows()
        }


def finish(path: Path, positions: set[int]) -> None:
    async def session() -> None:
        journal = Journal.open(path)
        journal.start()
        for row in journal.pending():
            if row.position in positions:
                journal.begin(row.seq, row.history.number + 1)
                journal.end(row.seq, row.history.number + 1, End(200, 0.1), "{}")
                journal.finish(row.seq, DONE)
        journal.close(0)

    asyncio.run(session())


def content(texts: str) -> list[IntakeRow]:
    """Rows without ids, one a letter; an upper-case letter is the same row under another prompt."""
    return [IntakeRow(line, None, f"request {letter}", f'"{letter.lower()}"') for line, letter in enumerate(texts, 1)]


def ids(pairs: Sequence[tuple[str, str]]) -> list[IntakeRow]:
    return [IntakeRow(line, key, f"request {request[0]}", request) for line, (key, request) in enumerate(pairs, 1)]


by_content = st.text("abcAB", max_size=7).map(content)
by_id = st.lists(
    st.tuples(st.sampled_from("pqrst"), st.sampled_from(["x", "x'", "y"])), max_size=5, unique_by=lambda pair: pair[0]
).map(ids)


@settings(max_examples=60)
@given(
    readings=st.one_of(st.lists(by_content, min_size=2, max_size=4), st.lists(by_id, min_size=2, max_size=4)),
    answered=st.sets(st.integers(1, 7)),
)
@example(readings=[content("aab"), content("ab"), content("bAa")], answered={1, 2, 3})
@example(readings=[ids([("p", "x"), ("q", "y")]), ids([]), ids([("q", "y"), ("p", "x'")])], answered={1})
def test_a_row_is_sent_again_only_if_its_request_changed(readings: list[list[IntakeRow]], answered: set[int]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        path = Path(directory) / "r.db"
        journal = Journal.create(path, META)
        journal.ingest(readings[0])
        journal.close()
        table = follow({}, readings[0])
        for rows in readings[1:]:
            finish(path, answered)
            table = {
                identity: known._replace(done=known.done or known.position in answered)
                for identity, known in table.items()
            }
            journal = Journal.open(path)
            drift = journal.compare(rows)
            expected = expected_drift(table, rows)
            assert drift == Drift(**{name: getattr(expected, name) for name in COUNTS}, examples=drift.examples)
            assert drift.nothing == (drift == Drift(rows=len(rows)))
            assert len(drift.examples) == min(5, drift.changed)
            journal.apply()
            journal.close()
            table = follow(table, rows)
            assert [(row.position, row.text, row.line, row.done) for row in present(table)] == [
                (position, text, line, done) for (position, text), (_, line, done) in found(path).items()
            ]


COUNTS = ("rows", "changed", "changed_done", "added", "absent", "reappeared", "retouched")


def present(table: dict[Identity, Known]) -> list[Known]:
    return sorted(
        (known for known in table.values() if known.position is not None), key=lambda known: known.position or 0
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "r.db"
    journal = Journal.create(path, META)
    journal.ingest(ids([("p", "x"), ("q", "y"), ("r", "z")]))
    journal.close()
    return path


def test_looking_at_drift_changes_nothing(path: Path) -> None:
    before = found(path)
    journal = Journal.open(path)
    drift = journal.compare(ids([("p", "other"), ("new", "y")]))
    assert (drift.changed, drift.added, drift.absent, drift.examples) == (1, 1, 2, ((1, "p"),))
    journal.discard()
    journal.close()
    assert found(path) == before


def test_the_plan_changes_together_with_the_rows(path: Path) -> None:
    journal = Journal.open(path)
    journal.compare(ids([("p", "x"), ("q", "y"), ("r", "z")]))
    journal.apply(Meta(run="r1", created=1.0, plan='{"new": 1}', prompt=None, simulated=False, output="o"))
    assert journal.meta.plan == '{"new": 1}'
    journal.close()


def test_a_changed_row_that_was_in_flight_is_counted_as_maybe_paid_and_starts_anew(path: Path) -> None:
    async def killed() -> None:
        journal = Journal.open(path)
        journal.start()
        await journal.begin(2, 1)
        journal.close()

    asyncio.run(killed())
    journal = Journal.open(path)
    journal.compare(ids([("p", "x"), ("q", "other"), ("r", "z")]))
    journal.apply()
    assert (journal.totals.unknown, journal.totals.possibly_billed) == (0, 1)
    assert [row.history for row in journal.pending() if row.key == "q"] == [(1, 0, 0, 0, False, None, None)]
    journal.close()


def test_a_changed_row_that_was_done_starts_anew_and_keeps_its_history(path: Path) -> None:
    finish(path, {2})
    journal = Journal.open(path)
    journal.compare(ids([("p", "x"), ("q", "other"), ("r", "z")]))
    journal.apply()
    assert [row.history for row in journal.pending() if row.key == "q"] == [(1, 0, 0, 0, False, None, None)]
    assert (journal.totals.done, journal.totals.replies) == (0, 1)
    journal.close()
    with Reader.open(path) as reader:
        (attempt,) = reader.attempts(2)
    assert (attempt.body, attempt.spent) == ("{}", True)


def test_a_line_that_was_mended_is_a_new_row(path: Path) -> None:
    journal = Journal.open(path)
    rows = ids([("p", "x"), ("q", "y"), ("r", "z")])
    journal.compare([*rows, IntakeRow(4, None, "", "{broken", "not JSON")])
    journal.apply()
    assert (journal.totals.rows, journal.totals.skipped) == (4, 1)
    assert journal.compare([*rows, IntakeRow(4, None, "", "{broken", "not JSON")]).nothing
    journal.compare([*rows, *ids([("s", "x")])])
    journal.apply()
    assert (journal.totals.rows, journal.totals.skipped, journal.totals.pending) == (4, 0, 4)
    journal.close()
    assert len(found(path)) == 4


def test_a_duplicate_id_in_the_new_input_is_refused_and_changes_nothing(path: Path) -> None:
    before = found(path)
    journal = Journal.open(path)
    with pytest.raises(InputError, match="on line 1 and again on line 2"):
        journal.compare(ids([("p", "x"), ("p", "y")]))
    journal.close()
    assert found(path) == before
