"""Simulated files and batches. Times are Unix seconds.

A batch stores the times of its phases and its rows; its status is computed from them, so a restarted server continues.

    created ─ validation ─► started ─ the rows, one after the other, in an arbitrary order ─► ends
                  failed        └ cancelled at any time, expired at a share of the rows
"""

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

MOST_LINES = 50_000  # limits of OpenAI's batch files
MOST_BYTES = 200_000_000
ENDED = frozenset({"failed", "completed", "expired", "cancelled"})


@dataclass(kw_only=True)
class File:
    """`owner` is the digest of the key that may see it."""

    id: str
    owner: str
    name: str
    purpose: str
    created: float
    size: int
    expires: float | None = None


@dataclass(kw_only=True)
class Batch:
    """`shape` is `openai` or `anthropic`, `errors` why its validation failed.

    `tokens` count while it is enqueued. `share` is the part of the rows that is done when it expires, else 1. `output`
    and `error` are ids of files or their placeholder.
    """

    id: str
    shape: str
    owner: str
    created: float
    started: float
    ends: float
    expires: float
    listed: float
    found: float
    cancelling: float
    rows: int
    tokens: int
    file: str = ""
    endpoint: str = ""
    model: str = ""
    metadata: dict[str, Any] | None = None
    share: float = 1.0
    cancel: float | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)
    settled: bool = False
    output: str | None = None
    error: str | None = None
    succeeded: int = 0
    errored: int = 0
    usage: dict[str, int] = field(default_factory=dict)

    def done(self, now: float) -> int:
        """Rows that are paid for, and in the results once it has ended."""
        until = min(now, self.cancel if self.cancel is not None else now)
        if self.errors or until < self.started:
            return 0
        whole = self.share * self.rows
        return math.floor(whole if until >= self.ends else whole * (until - self.started) / (self.ends - self.started))

    def end(self) -> float:
        if self.cancel is not None:
            return min(self.ends, self.cancel + (self.cancelling if self.cancel >= self.started else 0.0))
        return self.started if self.errors else self.ends

    def status(self, now: float) -> str:
        """Its status in OpenAI's terms."""
        if self.cancel is not None and self.cancel < self.ends:
            return "cancelled" if now >= self.end() else "cancelling"
        if now < self.started:
            return "validating"
        if self.errors:
            return "failed"
        if now < self.end():
            return "in_progress" if now < self.ends - 0.1 * (self.ends - self.started) else "finalizing"
        return "completed" if self.share >= 1 else "expired"


class Store:
    """In memory and, with a directory, also there; records are written and renamed, so a killed server leaves whole
    ones."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._contents: dict[str, bytes] = {}
        self.files: dict[str, File] = {}
        self.batches: dict[str, Batch] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(folder.glob("*.json")):
                record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                kept = File(**record) if "purpose" in record else Batch(**record)
                (self.files if isinstance(kept, File) else self.batches)[kept.id] = kept  # pyright: ignore[reportArgumentType]  # by its kind
        self._number = max((int(name[-8:]) for name in (*self.files, *self.batches)), default=0)

    def new_id(self, prefix: str) -> str:
        """Ids of one kind sort by age."""
        self._number += 1
        return f"{prefix}sim_{self._number:08d}"

    def put(self, record: File | Batch, content: bytes | None = None) -> None:
        """`content` is the bytes of a file, or the requests of a batch."""
        if isinstance(record, File):
            self.files[record.id] = record
        else:
            self.batches[record.id] = record
        if content is not None:
            self._contents[record.id] = content
        if self._folder is not None:
            for suffix, data in ((".data", content), (".json", orjson.dumps(asdict(record)))):
                if data is not None:
                    path = self._folder / (record.id + suffix)
                    path.with_suffix(".new").write_bytes(data)
                    os.replace(path.with_suffix(".new"), path)

    def content(self, identifier: str) -> bytes:
        if identifier not in self._contents and self._folder is not None:
            self._contents[identifier] = (self._folder / f"{identifier}.data").read_bytes()
        return self._contents[identifier]

    def delete(self, record: File | Batch) -> None:
        self.files.pop(record.id, None)
        self.batches.pop(record.id, None)
        self._contents.pop(record.id, None)
        if self._folder is not None:
            for suffix in (".json", ".data"):
                (self._folder / (record.id + suffix)).unlink(missing_ok=True)


def checked(content: bytes, endpoint: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The requests of an input file, and OpenAI's validation errors."""
    requests: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    seen: set[str] = set()
    model: Any = None

    def wrong(line: int, code: str, message: str, param: str | None = None) -> None:
        errors.append({"code": code, "line": line, "message": message, "param": param})

    for line, text in enumerate(content.splitlines(), 1):
        try:
            request: Any = orjson.loads(text)
            name, url, body = request["custom_id"], request["url"], request["body"]
            name, named = str(name), body.get("model")
        except (ValueError, KeyError, TypeError, AttributeError):
            wrong(
                line,
                "invalid_json_line",
                "This line is not parseable as valid JSON with custom_id, method, url and body.",
            )
            continue
        model = model or named
        if name in seen:
            wrong(line, "duplicate_custom_id", f"The custom_id '{name}' was already used in this file.", "custom_id")
        if url != endpoint:
            wrong(line, "mismatched_url", f"The URL '{url}' does not match the batch endpoint '{endpoint}'.", "url")
        if named != model:
            wrong(
                line,
                "mismatched_model",
                f"The model '{named}' is not that of the other lines, '{model}'.",
                "body.model",
            )
        seen.add(name)
        requests.append(request)
    if len(requests) > MOST_LINES:
        message = f"The batch has {len(requests):,} requests; the limit is {MOST_LINES:,}."
        errors.append({"code": "too_many_tasks", "line": None, "message": message, "param": None})
    if not requests and not errors:
        errors.append({"code": "empty_file", "line": None, "message": "The input file is empty.", "param": None})
    return requests, errors


def shuffled(rows: Iterable[tuple[str, dict[str, Any]]], seed: str) -> list[tuple[str, dict[str, Any]]]:
    """Rows by custom id in an arbitrary, repeatable order."""
    return sorted(
        rows, key=lambda row: blake2b(f"{seed}\0{row[0]}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    )


def page(records: Iterator[Batch] | Iterator[File], after: str | None, limit: int) -> tuple[list[Any], bool]:
    """The records after the cursor, newest first, and whether there are more."""
    newest = sorted(records, key=lambda record: record.id, reverse=True)
    rest = [record for record in newest if after is None or record.id < after]
    return rest[:limit], len(rest) > limit
