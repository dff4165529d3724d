"""`show --row`: one row of a run with its request, attempts, thinking and reply."""

import datetime
import json
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from batchrun import replies
from batchrun.display import printable
from batchrun.engine.selection import record_of
from batchrun.journal import Attempt, Reader, Record
from batchrun.models import Parts
from batchrun.plan import Plan, plan_from_json
from batchrun.registry import RunFile
from batchrun.report import requests, words
from batchrun.report.values import plain


def show_row(run: RunFile, wanted: str, *, as_json: bool, out: TextIO) -> None:
    """Print the row with this id or line. Raises RefusedError, StorageError."""
    with Reader.open(run.path) as reader:
        plan, record = plan_from_json(reader.meta.plan), record_of(reader, wanted)
        attempts, parts = reader.attempts(record.seq), reader.parts(record.seq)
    if as_json:
        print(json.dumps(row_values(plan, record, attempts, parts), ensure_ascii=False), file=out)
        return
    for line in row_lines(plan, record, attempts, parts):
        print(printable(line), file=out)


def row_values(plan: Plan, record: Record, attempts: Sequence[Attempt], parts: Parts | None) -> dict[str, Any]:
    """JSON values: `reply`, `thinking` and `request` as text, `body` as received."""
    values = {name: value for name, value in plain(record).items() if name not in ("seq", "position", "body")}
    return {
        **values,
        "files": json.loads(record.files or "[]"),
        "request": requests.of_record(plan, record, parts),
        "reply": None if record.body is None else requests.reply_text(record),
        "thinking": None if record.body is None else replies.thinking_of(record.body),
        "body": record.body,
        "attempts": [plain(attempt) for attempt in attempts],
    }


def row_lines(plan: Plan, record: Record, attempts: Sequence[Attempt], parts: Parts | None) -> Iterator[str]:
    yield f"line     {record.line:,}, id {printable(record.key, 100)}"
    flags = f" ({', '.join(sorted(record.flags))})" if record.flags else ""
    cause = f": {record.cause}: {record.message}" if record.cause else ""
    yield f"state    {record.state}{flags}{cause}"
    for file in json.loads(record.files or "[]"):
        known = f": {file['type']}, {file['size']:,} bytes, SHA-256 {file['sha256']}" if file["sha256"] else ""
        yield printable(f"file     {file['path']}{known}")
    if record.input_tokens is not None:
        yield f"tokens   {record.input_tokens:,} in, {record.output_tokens or 0:,} out"
    for attempt in attempts:
        yield f"attempt  {attempt.number}, {_attempt(attempt)}"
    yield from ("", "request", *_indented(requests.of_record(plan, record, parts)))
    thought = None if record.body is None else replies.thinking_of(record.body)
    if thought:
        yield from ("", "thinking", *_indented(thought))
    yield from ("", "reply", *_indented(requests.reply_text(record)))


def _attempt(attempt: Attempt) -> str:
    began = datetime.datetime.fromtimestamp(attempt.began).astimezone()
    if attempt.ended is None:
        return f"{began:%Y-%m-%d %H:%M:%S}: no answer recorded"
    status = f"status {attempt.status}" if attempt.status else "incomplete answer"
    cause = f", {attempt.cause}: {attempt.message}" if attempt.cause else ""
    paid = ", may have been billed" if attempt.possibly_billed else ""
    return f"{began:%Y-%m-%d %H:%M:%S}, {words.duration(attempt.seconds or 0.0)}: {status}{cause}{paid}"


def _indented(text: str) -> Iterator[str]:
    yield from (f"  {line}" for line in text.rstrip("\n").split("\n"))
