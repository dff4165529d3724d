"""Texts of long rows are in a file beside the journal, and nobody who reads the journal sees a difference."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun import journal as journals
from batchrun.errors import DamagedError, InputError
from batchrun.journal import LONG_TEXT, IntakeRow, Journal, Meta, Reader, TextForm, Wanted
from batchrun.models import Endpoint, Ready, Span
from batchrun.prompts import batch_renderer
from batchrun.rows import restore

META = Meta(run="r1", created=1.0, plan="{}", prompt=None, simulated=False, output="../out.jsonl")
SHORT, LONG, UMLAUTS = '{"text": "short"}', f'{{"text": "{"x" * LONG_TEXT}"}}', f'{{"text": "{"ä€" * LONG_TEXT}"}}'
TEXTS = [SHORT, LONG, UMLAUTS, SHORT.replace("short", "last")]


def rows(*texts: str) -> Iterator[IntakeRow]:
    return (IntakeRow(line, f"k{line}", f"r{hash(text)}", text) for line, text in enumerate(texts, 1))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".batchrun" / "r.db"


def beside(path: Path) -> Path:
    return path.with_name("r.db-texts")


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with contextlib.closing(Journal.create(path, META)) as journal:
        journal.ingest(rows(*TEXTS))
        yield journal


def test_every_reader_gets_the_text(journal: Journal, path: Path) -> None:
    assert [row.text for row in journal.pending()] == TEXTS
    assert [row.text or row.encoded.decode() for row in journal.pending(form=TextForm.ENCODED)] == TEXTS
    assert beside(path).read_bytes() == (LONG + UMLAUTS).encode()
    with Reader.open(path) as reader:
        assert [record.text for record in reader.export_rows()] == TEXTS
        assert list(reader.texts()) == TEXTS
        assert [line.text for line in reader.lines()] == [text[:400] for text in TEXTS]
        assert list(reader.positions(Wanted(text="ä€"))) == [[3]]


def test_a_short_row_needs_no_file(path: Path) -> None:
    with contextlib.closing(Journal.create(path, META)) as journal:
        journal.ingest(rows(SHORT))
    assert not beside(path).exists()


def test_an_intake_that_broke_off_starts_the_file_again(path: Path) -> None:
    def broken() -> Iterator[IntakeRow]:
        yield from rows(UMLAUTS, LONG, LONG)
        raise InputError("line 4 is not JSON")

    with contextlib.closing(Journal.create(path, META)) as journal:
        with pytest.raises(InputError):
            journal.ingest(broken())
        journal.ingest(rows(LONG))
        assert [row.text for row in journal.pending()] == [LONG]
    assert beside(path).read_bytes() == LONG.encode()


def test_an_intake_without_long_rows_leaves_nothing_of_a_killed_one(path: Path) -> None:
    with contextlib.closing(Journal.create(path, META)) as journal:
        beside(path).write_bytes(LONG.encode())
        journal.ingest(rows(SHORT))
    assert not beside(path).exists()


def test_a_copy_is_one_file_that_works_alone(journal: Journal, path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with Reader.open(path) as reader:
        reader.copy(copy)
    assert sorted(tmp_path.glob("copy*")) == [copy]
    with Reader.open(copy) as reader:
        assert [record.text for record in reader.export_rows()] == TEXTS
        assert reader.check() == []


def test_deleting_takes_the_texts_along(journal: Journal, path: Path) -> None:
    journal.close()
    journals.delete(path)
    assert [file.name for file in path.parent.iterdir()] == [".gitignore"]


@pytest.mark.parametrize("left", [None, b"", LONG.encode()])
def test_a_journal_without_its_texts_is_damaged_and_gives_what_it_has(
    journal: Journal, path: Path, left: bytes | None
) -> None:
    journal.close()
    if left is None:
        beside(path).unlink()
    else:
        beside(path).write_bytes(left)
    for opened in (Journal.open, Reader.open):
        with pytest.raises(DamagedError, match=r"r\.db-texts, which has the long texts of rows, is missing") as caught:
            opened(path)
        assert "Put r.db-texts beside it again" in (caught.value.hint or "")
    with Reader.open(path, damaged=True) as reader:
        found = [(record.key, record.text) for record in reader.recover_rows()]
    assert found == [("k1", SHORT), ("k2", LONG if left == LONG.encode() else "{}"), ("k3", "{}"), ("k4", TEXTS[3])]


@pytest.mark.parametrize("rubbish", [b"\xff", b"\0", b"x"])
def test_the_check_reads_the_texts(journal: Journal, path: Path, rubbish: bytes) -> None:
    with Reader.open(path) as reader:
        assert reader.check() == []
        content = beside(path).read_bytes()
        beside(path).write_bytes(content[: len(LONG)] + rubbish * (len(content) - len(LONG)))
        (complaint,) = reader.check()
    assert complaint.startswith("the text of line 3 is damaged: ")


def test_a_text_that_cannot_be_decoded_is_named_by_its_file(journal: Journal, path: Path) -> None:
    beside(path).write_bytes(b"\xff" * beside(path).stat().st_size)
    with (
        Reader.open(path) as reader,
        pytest.raises(DamagedError, match=r"damaged: r\.db-texts, which has the long texts of rows, cannot be read"),
    ):
        list(reader.export_rows())


def test_an_input_that_changed_is_compared_with_the_texts(journal: Journal, path: Path) -> None:
    assert journal.compare(rows(*TEXTS)).examples == ()
    other = LONG.replace("xx", "xy", 1)
    drift = journal.compare(rows(SHORT, other, UMLAUTS, TEXTS[3], LONG))
    assert (drift.changed, drift.added, drift.retouched) == (1, 1, 0)
    journal.apply()
    assert [row.text for row in journal.pending()] == [SHORT, other, UMLAUTS, TEXTS[3], LONG]
    journal.close()
    with contextlib.closing(sqlite3.connect(path)) as plain:
        kept = plain.execute("SELECT text = '', text_at IS NOT NULL FROM rows ORDER BY seq").fetchall()
    assert kept == [(0, 0), (0, 0), (1, 1), (0, 0), (0, 0)]  # what came later is in the journal itself


def test_rows_that_only_moved_keep_their_texts(journal: Journal, path: Path) -> None:
    moved = [row._replace(line=row.line + 1) for row in rows(*TEXTS)]
    assert journal.compare(iter(moved)).retouched == 4
    journal.apply()
    assert [(row.line, row.text) for row in journal.pending()] == list(enumerate(TEXTS, 2))
    journal.close()
    with contextlib.closing(sqlite3.connect(path)) as plain:
        assert plain.execute("SELECT count(text_at) FROM rows").fetchone() == (2,)


BODIES = st.fixed_dictionaries(
    {"model": st.sampled_from(["m", "ä"]), "messages": st.just([{"role": "user", "content": "“x” " * LONG_TEXT}])},
    optional={
        "max_tokens": st.integers(1, 9),
        "n": st.integers(1, 3),
        "service_tier": st.sampled_from(["flex", None]),
        "body": st.just({"body": "\\"}),
    },
)


@given(BODIES, st.sampled_from([(",", ":"), (", ", " : "), (" ,\t", ":")]), st.booleans(), st.booleans())
def test_a_request_from_the_file_is_the_one_that_was_rendered(
    body: dict[str, Any], separators: tuple[str, str], ascii_only: bool, body_first: bool
) -> None:
    line: dict[str, Any] = {"custom_id": "ä", "method": "POST", "url": Endpoint.CHAT}
    line = {"body": body, **line} if body_first else {**line, "body": body}
    text = json.dumps(line, separators=separators, ensure_ascii=ascii_only)
    rendered = batch_renderer().render(restore(1, "ä", text))
    ready = Ready.of(rendered)
    assert ready is not None
    again = Ready(*json.loads(json.dumps(ready)))
    data = text.encode()[again.start : again.start + again.size]
    assert again.request(data)._replace(start=rendered.start) == rendered


def test_a_pending_row_is_read_as_its_request_alone(path: Path) -> None:
    body = f'{{"model": "m", "messages": [{{"role": "user", "content": "{"ä" * LONG_TEXT}"}}]}}'
    text = f'{{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {body} }}'
    rendered = batch_renderer().render(restore(1, "a", text))
    with contextlib.closing(Journal.create(path, META)) as journal:
        journal.ingest([IntakeRow(1, "a", "r", text, ready=Ready.of(rendered)), *rows(SHORT)])
        row, short = journal.pending(form=TextForm.READY)
        placed, same = journal.pending(form=TextForm.PLACED)
    assert row.ready is not None
    assert (row.text, row.encoded) == ("", body.encode())
    assert row.ready.request(row.encoded)._replace(start=rendered.start) == rendered
    assert (short.text, short.ready) == (SHORT, None)
    assert same == short
    assert placed._replace(encoded=body.encode()) == row
    assert placed.encoded == Span(str(beside(path)), text.index(body), len(body.encode()), base64=False)
    assert bytes(placed.encoded) == body.encode()
    assert row.ready.request(placed.encoded).size == rendered.size
    with pytest.raises(AssertionError, match="given away"):
        row.ready.request(b"")


def test_a_page_of_places_has_as_many_rows_as_short_ones(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchrun.journal.pages.PAGE_BYTES", 2 * LONG_TEXT)
    body = f'{{"messages": [{{"content": "{"x" * LONG_TEXT};base64,"}}]}}'
    text = f'{{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {body}}}'
    ready = Ready.of(batch_renderer().render(restore(1, "a", text)))
    with contextlib.closing(Journal.create(path, META)) as journal:
        journal.ingest(IntakeRow(line, f"k{line}", "r", text, ready=ready) for line in range(1, 9))
        placed = journal.pending(form=TextForm.PLACED)
        assert (len(placed), placed.full) == (8, False)
        assert {row.encoded.base64 for row in placed if isinstance(row.encoded, Span)} == {True}
        assert len(journal.pending(form=TextForm.READY)) == 2
