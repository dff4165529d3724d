"""Writes the output and errors files from the journal."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from batchrun import replies, rows
from batchrun.engine.document_output import write_documents
from batchrun.engine.output_files import replaced, storing, wait_forever
from batchrun.journal import Reader, Record, Result, Wanted
from batchrun.models import Invalid, Kind, State
from batchrun.plan import Plan
from batchrun.plan.outputs import DOCUMENT, errors_path, is_device, is_document

_TABLES = frozenset({"csv", "tsv"})  # Outputs with one header for all rows
_UNLIKE = frozenset({"jsonl", "json", "objects"})  # Inputs whose rows may differ in columns


class Exported(NamedTuple):
    outputs: tuple[Path, ...]  # of documents with {path} both patterns if only some are complete
    rows: int
    errors: Path | None  # None where none failed
    failed: int


def columns_of(plan: Plan, reader: Reader) -> tuple[str, ...]:
    """In order of appearance; empty if the first row has all."""
    if plan.output_format not in _TABLES:
        return ()
    more = dict.fromkeys(name for text in reader.added() for name in rows.columns_of(text))
    plain = _in_place_of_schema(plan)
    new = (*added(plan), *(plain if plain and reader.has_plain_value() else ()), *more)
    unlike = plan.input_format in _UNLIKE or is_document(plan.input_format)
    if not unlike and new == added(plan):
        return ()
    texts = reader.texts() if unlike else islice(reader.texts(), 1)
    found = dict.fromkeys(name for text in texts for name in rows.columns_of(text))
    return tuple(dict.fromkeys([*found, *new]))


def export(
    plan: Plan,
    reader: Reader,
    output: Path,
    *,
    errors: Path | None = None,
    cancelled: Callable[[], bool] = wait_forever,
) -> Exported:
    """Done rows go to `output`, others to `errors`; atomically.

    Raises StorageError, and UnreadError once `cancelled` returns true.
    """
    written = failed = 0
    with storing(output), ExitStack() as files:
        failures = files.enter_context(replaced(errors or Path(os.devnull), unless_empty=True))
        if plan.output_format == DOCUMENT:
            outputs, written, failed = write_documents(
                plan, reader, output, failures, line_of=error_line, value_of=_translation
            )
            return Exported(outputs, written, errors if failed else None, failed)
        stream = files.enter_context(replaced(output, cancelled=cancelled))
        writer = RecordWriter(plan, stream, columns_of(plan, reader))
        for record in to_write(plan, reader):
            if isinstance(record, Result) or record.state is State.DONE:
                writer.write(record)
                written += 1
            elif record.state in (State.FAILED, State.SKIPPED):
                failures.write(error_line(plan, record).encode() + b"\n")
                failed += 1
        writer.close()
    return Exported((output,), written, errors if failed else None, failed)


def to_write(plan: Plan, reader: Reader) -> Iterator[Result | Record]:
    """OpenAI Batch results need the exchange."""
    if plan.kind is Kind.BATCH:
        return reader.exchanges()
    return reader.results() if plan.lane_column is None else reader.export_rows()


def write_output(
    plan: Plan, journal: Path, target: Path, output: Path, cancelled: Callable[[], bool] = wait_forever
) -> Exported:
    """Raises StorageError, BrokenPipeError, UnreadError."""
    errors = None if is_device(output) else errors_path(output)
    with Reader.open(journal) as reader:
        try:
            return export(plan, reader, target, errors=errors, cancelled=cancelled)
        except (AttributeError, TypeError, ValueError) as error:
            raise reader.damaged(f"a row of it cannot be understood ({error})") from error


def write_chosen(plan: Plan, reader: Reader, wanted: Wanted, target: Path) -> int:
    """JSONL, atomically; returns the number of rows. Raises StorageError."""
    chosen = {position for page in reader.positions(wanted) for position in page}
    plan = replace(plan, output_format="jsonl")
    with storing(target), replaced(target) as stream:
        for record in reader.export_rows():
            if record.position not in chosen:
                continue
            if record.state is State.DONE:
                RecordWriter(plan, stream).write(record)
            else:
                stream.write(
                    error_line(plan, record._replace(cause=record.cause or str(record.state))).encode() + b"\n"
                )
    return len(chosen)


class RecordWriter:
    def __init__(self, plan: Plan, stream: BinaryIO, columns: Sequence[str] = ()) -> None:
        self._plan = plan
        self._stream = stream
        self._batch = plan.kind is Kind.BATCH
        exact = rows.Exact.OWN if plan.input_format in ("csv", "tsv") else rows.Exact.NOTHING
        table = rows.Table(plan.csv_delimiter, plan.csv_marked)
        self._rows = (
            None if self._batch else rows.writer(plan.output_format, stream, columns=columns, exact=exact, table=table)
        )

    def write(self, record: Result | Record) -> None:
        if self._rows is not None:
            self._rows.write(record.text, additions(self._plan, record))
        elif isinstance(record, Record):
            self._stream.writelines((batch_result(record, self._plan.output_column).encode(), b"\n"))

    def close(self) -> None:
        if self._rows is not None:
            self._rows.close()


def added(plan: Plan) -> tuple[str, ...]:
    """Members beside the input's."""
    if plan.kind is Kind.BATCH:
        return ()
    members = plan.output_fields or (plan.output_column,)
    return members if plan.lane_column is None else (*members, plan.lane_column)


def reserved(plan: Plan) -> tuple[str, ...]:
    """Names that no input row may have."""
    return (*added(plan), *_in_place_of_schema(plan))


def _in_place_of_schema(plan: Plan) -> tuple[str, ...]:
    return (plan.output_column,) if plan.post and plan.output_fields and plan.kind is not Kind.BATCH else ()


def additions(plan: Plan, record: Result | Record) -> dict[str, str]:
    """Name to JSON text."""
    output = _output(plan, record)
    if plan.lane_column is not None and isinstance(record, Record):
        output[plan.lane_column] = json.dumps(_lane_name(plan, record.lane))
    return output if record.added is None else output | merged(record)


def _lane_name(plan: Plan, lane: str | None) -> str | None:
    if lane is None:
        return None
    place = json.loads(lane)
    found = (each["name"] for each in plan.lanes if [each["base_url"], each["api_key_env"], each["model"]] == place)
    return next(found, place[0])


def _output(plan: Plan, record: Result | Record) -> dict[str, str]:
    if record.value is None:
        return {
            plan.output_column: orjson.dumps(
                replies.value_of(plan.endpoint, record.body or "", keep_thinking=plan.keep_thinking)
            ).decode()
        }
    if not plan.output_fields or not record.value.startswith("{"):
        return {plan.output_column: record.value}
    found = _members(record.value)
    return {name: found.get(name, "null") for name in plan.output_fields}


def _translation(plan: Plan, record: Record) -> str:
    if record.value is not None and record.value.startswith("{") and not plan.output_fields:
        return record.value
    output = _output(plan, record)
    return next(iter(output.values())) if len(output) == 1 else record.value or "null"


def merged(record: Result | Record) -> dict[str, str]:
    """Members that post-processing adds, as JSON text."""
    return {} if record.added is None else _members(record.added)


def _members(text: str) -> dict[str, str]:
    """Integers keep all digits."""
    members: dict[str, Any] = json.loads(text)
    escaped = "\\u" in text  # a lone surrogate, which no file can hold but as an escape
    return {name: json.dumps(value, ensure_ascii=escaped) for name, value in members.items()}


def batch_result(record: Record, column: str = "output") -> str:
    """A line of OpenAI's results file."""
    batch_id = _batch_id(record)
    status, request_id, body = record.status or 200, record.request_id or batch_id, replies.valid(record.body or "null")
    new = {} if record.value is None else {column: record.value}
    return rows.batch_line(batch_id, record.key, status, request_id, body, new | merged(record))


def error_line(plan: Plan, record: Record) -> str:
    reason = {
        "cause": record.cause,
        "message": record.message,
        "line": record.line,
        "attempts": record.attempts,
        "permanent": record.permanent,
    }
    if record.post:
        reason["stage"] = "post-processing"
    if record.state is State.SKIPPED and record.text.startswith('"'):
        line = Invalid(record.line, json.loads(record.text), record.message or "")
        return rows.note_text(line, {"cause": record.cause})
    if plan.kind is not Kind.BATCH or record.state is State.SKIPPED:
        return rows.error_text(record.text, reason)
    return rows.batch_error_line(
        _batch_id(record),
        record.key,
        record.cause or "failed",
        record.message or record.cause or "failed",
        status_code=record.status or None,
        request_id=record.request_id,
        body_text=record.excerpt,
    )


def _batch_id(record: Record) -> str:
    return f"batch_req_{record.seq}"


class Streamer:
    """Writes rows in input order as they become final."""

    def __init__(
        self, plan: Plan, fetch: Callable[[int], Iterable[Record]], stream: BinaryIO, columns: Sequence[str] = ()
    ) -> None:
        self._writer = RecordWriter(plan, stream, columns)
        self._stream = stream
        self._fetch = fetch
        self._after = 0

    def advance(self, *, all_rows: bool = False) -> int:
        """Stops at the first row that is not final, unless `all_rows`."""
        written = 0
        for record in self._fetch(self._after):
            if record.state is State.DONE:
                self._writer.write(record)
                written += 1
            elif not record.state.is_final and not all_rows:
                break
            self._after = record.position or self._after
        self._stream.flush()
        return written

    def close(self) -> None:
        self._writer.close()
        self._stream.flush()
