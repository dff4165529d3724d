"""One row as text of bounded length: request, attempts, thinking and reply."""

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from batchrun import media, replies
from batchrun.display import printable
from batchrun.errors import BatchrunError
from batchrun.journal import Attempt, Record
from batchrun.models import Defect, Endpoint, Parts, Request, State
from batchrun.plan import Plan
from batchrun.plan.reducing import Reduction
from batchrun.plan.rendering import plain_renderer, prompt_of
from batchrun.report import words
from batchrun.report.words import MARK, plain
from batchrun.rows import restore


def of_record(plan: Plan, record: Record, parts: Parts | None) -> str:
    """`parts` are the replies that a reduce row joins."""
    if record.state is State.SKIPPED:
        return f"this line is not a valid row: {record.message}\n\n{record.text}"
    try:
        row = restore(record.line, record.key, record.text)
        if record.files:
            row = row._replace(files=media.from_json(record.files, Path()))
        if parts is not None and parts.failed is not None:
            return f"no request: {parts.failed.message}"
        if parts is not None and parts.awaited:
            return f"no request yet: {parts.awaited:,} of the {len(parts.replies):,} parts of the text have no reply"
        request = plain_renderer(plan, prompt_of(plan)).render(Reduction(plan).filled(row, parts))
    except BatchrunError as error:
        return f"no request: {error.message}"
    return readable(request)


def readable(request: Request) -> str:
    body: dict[str, Any] = json.loads(bytes(request.body))
    return "\n".join(_parts(body))


def _parts(body: dict[str, Any]) -> Iterator[str]:
    rest = dict(body)
    messages = next((rest.pop(name) for name in ("messages", "input", "prompt") if name in rest), None)
    if isinstance(messages, list):
        for message in cast("list[Any]", messages):
            yield from _message(message)
    elif messages is not None:
        yield from (f"{MARK}text", str(messages), "")
    yield f"{MARK}parameters"
    for name, value in rest.items():
        yield f"{name}: {json.dumps(value, ensure_ascii=False)}"


def _message(message: Any) -> Iterator[str]:
    if not isinstance(message, dict):
        yield from (f"{MARK}text", str(message), "")
        return
    fields = cast("Mapping[str, Any]", message)
    content = fields.get("content")
    yield f"{MARK}{fields.get('role', 'message')}"
    yield content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, indent=2)
    yield ""


def reply_text(record: Record) -> str:
    """A schema's value, else the model's text, else the body, else the error."""
    if record.value is not None:
        return json.dumps(json.loads(record.value), ensure_ascii=False, indent=2)
    if record.body is None:
        reason = f"{record.cause}: {record.message}" if record.cause else "no reply"
        return reason + (f"\n\n{record.excerpt}" if record.excerpt else "")
    return body_text(record.body)


def body_text(body: str) -> str:
    for endpoint in Endpoint:
        reply = replies.read(endpoint, body)
        if not isinstance(reply, Defect):
            return reply.text if reply.text is not None else json.dumps(reply.value, ensure_ascii=False, indent=2)
    return body


def tokens(body_bytes: int) -> int:
    return (body_bytes + 3) // 4


def title_of(plan: Plan) -> str:
    what = plan.prompt_name or ("OpenAI Batch requests" if plan.kind == "batch" else "request bodies")
    return printable(f"{what} · {Path(plan.input).name or plan.input}", 120)


def row_values(plan: Plan, record: Record, attempts: Sequence[Attempt], parts: Parts | None) -> dict[str, Any]:
    values = {name: value for name, value in plain(record).items() if name not in ("seq", "position", "body")}
    return {
        **values,
        "files": json.loads(record.files or "[]"),
        "request": of_record(plan, record, parts),
        "reply": None if record.body is None else reply_text(record),
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
    yield from ("", "request", *_indented(of_record(plan, record, parts)))
    thought = None if record.body is None else replies.thinking_of(record.body)
    if thought:
        yield from ("", "thinking", *_indented(thought))
    yield from ("", "reply", *_indented(reply_text(record)))


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
