"""Digests: which kind a journal has, and that only those of one kind are compared."""

import json
import sqlite3
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from test_dedupe_run import answered

from batchrun.digests import BLAKE2B, BLAKE3, LONG, digest_of
from batchrun.engine.start import Prepared, prepare
from batchrun.errors import RefusedError
from batchrun.events import Event
from batchrun.journal import Journal, Meta
from batchrun.plan.sources import gather

OWN = {"profile": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
PATTERN = bytes(n % 251 for n in range(LONG))
"""The input of BLAKE3's test vectors."""
OF_PATTERN = "aae792484c8efe4f19e2ca7d371d8c46"
"""The first 128 bits for 8,192 bytes of it (BLAKE3 repository, test_vectors/test_vectors.json)."""


def blake2(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        (BLAKE2B, PATTERN, blake2(PATTERN)),
        (BLAKE2B, PATTERN[:-1], blake2(PATTERN[:-1])),
        (BLAKE3, PATTERN, OF_PATTERN),
        (BLAKE3, PATTERN[:-1], blake2(PATTERN[:-1])),
    ],
    ids=["old, long", "old, short", "long", "short"],
)
def test_only_long_bytes_have_another_digest_than_before(kind: str, data: bytes, expected: str) -> None:
    assert digest_of(kind)(data) == expected


@pytest.mark.parametrize("data", [PATTERN, PATTERN[:9]])
def test_what_stands_before_the_bytes_counts(data: bytes) -> None:
    digest = digest_of(BLAKE3, b"/v1/responses\0")
    assert digest(data) == digest(data) != digest_of(BLAKE3, b"/v1/embeddings\0")(data)


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="md5"):
        digest_of("md5")


@pytest.fixture(autouse=True)
def _alone(alone: None) -> None:
    texts = [{"id": "a", "text": "x" * LONG}, {"text": "y" * LONG}, {"text": "y" * LONG}, {"text": "short"}]
    Path("with-ids.jsonl").write_text("".join(json.dumps({"id": n, **text}) + "\n" for n, text in enumerate(texts)))
    Path("without.jsonl").write_text("".join(json.dumps({"text": text["text"]}) + "\n" for text in texts))
    Path("p.md").write_text("Say {{ text }}")


def prepared(source: str, output: str = "out.jsonl", **flags: Any) -> Prepared:
    told: list[Event] = []
    return prepare(gather({"input": source, "prompt": "p.md", "output": output, **OWN, **flags}), told.append)


def as_earlier_builds_wrote_it(run: str) -> None:
    """No kind is named, and all digests are BLAKE2b: those of requests, and those of texts that have no id."""
    with closing(sqlite3.connect(f".batchrun/{run}.db", isolation_level=None)) as journal:
        journal.execute("DELETE FROM meta WHERE name = 'digest'")
        for seq, key, text in journal.execute("SELECT seq, key, text FROM rows").fetchall():
            said = json.loads(text)["text"]
            message = {"role": "user", "content": f"Say {said}"}
            body = json.dumps({"model": "m", "messages": [message]}, separators=(",", ":"))
            request = blake2(b"/v1/chat/completions\0" + body.encode())
            identity = key if "id" in json.loads(text) else blake2(text.encode())
            journal.execute("UPDATE rows SET request = ?, key = ? WHERE seq = ?", (request, identity, seq))


@pytest.mark.parametrize("source", ["with-ids.jsonl", "without.jsonl"])
async def test_the_same_command_finds_the_long_rows_of_an_earlier_build_done(source: str) -> None:
    as_earlier_builds_wrote_it(await answered(prepared(source)))
    lines = Path(source).read_text().splitlines(keepends=True)
    Path(source).write_text("".join([*lines, '{"id": "new", "text": "new"}\n']))
    again = prepared(source)
    assert again.journal.meta.digest == BLAKE2B
    assert (again.journal.totals.rows, again.journal.totals.done) == (5, 4)
    again.close()
    third = prepared(source)
    assert (third.journal.totals.rows, third.journal.totals.done) == (5, 4)
    third.close()


@pytest.mark.parametrize("old", [True, False])
async def test_a_run_that_takes_replies_over_has_digests_of_their_kind(*, old: bool) -> None:
    there = await answered(prepared("with-ids.jsonl"))
    if old:
        as_earlier_builds_wrote_it(there)
    run = prepared("with-ids.jsonl", "other.jsonl", reuse=there)
    assert len(run.journal.answered()) == 4
    assert run.journal.meta.digest == (BLAKE2B if old else BLAKE3)
    run.close()


async def test_replies_are_not_looked_for_by_digests_of_another_kind() -> None:
    there = await answered(prepared("with-ids.jsonl"))
    as_earlier_builds_wrote_it(there)
    prepared("with-ids.jsonl", "other.jsonl").close()
    with pytest.raises(RefusedError, match="hash long requests differently"):
        prepared("with-ids.jsonl", "other.jsonl", reuse=there)


def test_a_kind_that_this_build_does_not_know_is_damage(tmp_path: Path) -> None:
    meta = Meta(run="r1", created=1.0, plan="{}", prompt=None, simulated=False, output="o", digest="md5")
    journal = Journal.create(tmp_path / "r1.db", meta)
    with pytest.raises(Exception, match="md5"):
        _ = journal.meta
    journal.close()
