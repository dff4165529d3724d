"""The output and the errors file: projections of the journal, made again at any time without a call."""

import contextlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from batchrun import replies, rows
from batchrun.engine.outlet import UnreadError, outlet, waited_for
from batchrun.errors import StorageError
from batchrun.journal import Reader, Record, Result
from batchrun.models import Invalid, Kind, State
from batchrun.plan import Plan
from batchrun.plan.outputs import errors_path, is_device

_TABLES = frozenset({"csv", "tsv"})
"""Outputs with one header for all rows."""
_UNLIKE = frozenset({"jsonl", "json", "objects"})
"""Inputs whose rows may have columns of their own."""


class Exported(NamedTuple):
    """Where rows were written and how many; `errors` is None where none failed."""

    output: Path
    rows: int
    errors: Path | None
    failed: int


def columns_of(plan: Plan, reader: Reader) -> tuple[str, ...]:
    """The columns of a table in order of appearance; empty where the first row has them all."""
    if plan.output_format not in _TABLES:
        return ()
    more = dict.fromkeys(name for text in reader.added() for name in rows.columns_of(text))
    plain = _in_place_of_schema(plan)
    new = (*added(plan), *(plain if plain and reader.has_plain_value() else ()), *more)
    if plan.input_format not in _UNLIKE and new == added(plan):
        return ()
    texts = reader.texts() if plan.input_format in _UNLIKE else islice(reader.texts(), 1)
    found = dict.fromkeys(name for text in texts for name in rows.columns_of(text))
    return tuple(dict.fromkeys([*found, *new]))


def export(
    plan: Plan,
    reader: Reader,
    output: Path,
    *,
    errors: Path | None = None,
    given_up: Callable[[], bool] = waited_for,
) -> Exported:
    """Write done rows to `output` and failed and skipped ones to `errors`, both whole or not at all.

    Without `errors` failed rows are only counted. Where `output` is a pipe, its reader is waited for until he is
    `given_up`: UnreadError. Raises StorageError where the files cannot be written; the journal still has every reply.
    """
    written = failed = 0
    with storing(output), ExitStack() as files:
        stream = files.enter_context(replaced(output, given_up=given_up))
        complaints = files.enter_context(replaced(errors or Path(os.devnull), unless_empty=True))
        writer = RecordWriter(plan, stream, columns_of(plan, reader))
        for record in to_write(plan, reader):
            if isinstance(record, Result) or record.state is State.DONE:
                writer.write(record)
                written += 1
            elif record.state in (State.FAILED, State.SKIPPED):
                complaints.write(error_line(plan, record).encode() + b"\n")
                failed += 1
        writer.close()
    return Exported(output, written, errors if failed else None, failed)


def to_write(plan: Plan, reader: Reader) -> Iterator[Result | Record]:
    """All rows in the order of the input. A line of OpenAI's results tells of the exchange, which is in whole records."""
    return reader.export_rows() if plan.kind is Kind.BATCH else reader.results()


def write_output(
    plan: Plan, journal: Path, target: Path, output: Path, given_up: Callable[[], bool] = waited_for
) -> Exported:
    """The output of a journal written to `target`, its errors file beside `output` if that is a file.

    A reader of it who reads no further is waited for until it is `given_up`. Raises StorageError, UnreadError,
    BrokenPipeError.
    """
    errors = None if is_device(output) else errors_path(output)
    with Reader.open(journal) as reader:
        try:
            return export(plan, reader, target, errors=errors, given_up=given_up)
        except (AttributeError, TypeError, ValueError) as error:
            raise reader.damaged(f"a row of it cannot be understood ({error})") from error


@contextlib.contextmanager
def storing(output: Path) -> Generator[None]:
    """What goes wrong while the output is written, as StorageError; that its reader is gone stays BrokenPipeError."""
    try:
        yield
    except (BrokenPipeError, UnreadError):
        raise
    except OSError as error:
        raise StorageError(
            f"{output}: the output cannot be written: {error.strerror or error}",
            "every reply is safe in the journal; `batchrun export --output FILE` writes the output elsewhere",
        ) from error


class RecordWriter:
    """Writes done rows of one plan into a stream, in the plan's format; `columns` are those of `columns_of`."""

    def __init__(self, plan: Plan, stream: BinaryIO, columns: Sequence[str] = ()) -> None:
        self._plan = plan
        self._stream = stream
        self._batch = plan.kind is Kind.BATCH
        exact = rows.Exact.OWN if plan.input_format in ("csv", "tsv") else rows.Exact.NOTHING
        self._rows = None if self._batch else rows.writer(plan.output_format, stream, columns=columns, exact=exact)

    def write(self, record: Result | Record) -> None:
        """One done row, a whole record for an OpenAI Batch file."""
        if self._rows is not None:
            self._rows.write(record.text, additions(self._plan, record))
        elif isinstance(record, Record):
            self._stream.write(f"{batch_result(record, self._plan.output_column)}\n".encode())

    def close(self) -> None:
        """Finish what the format needs."""
        if self._rows is not None:
            self._rows.close()


def added(plan: Plan) -> tuple[str, ...]:
    """The names of the members that an output row has beside its input's."""
    if plan.kind is Kind.BATCH:
        return ()
    return plan.output_fields or (plan.output_column,)


def reserved(plan: Plan) -> tuple[str, ...]:
    """The names that no input row may have: those that an output row may get beside its input's."""
    return (*added(plan), *_in_place_of_schema(plan))


def _in_place_of_schema(plan: Plan) -> tuple[str, ...]:
    """The column of a value that a function of `--post` returns in place of the fields of the output schema."""
    return (plan.output_column,) if plan.post and plan.output_fields and plan.kind is not Kind.BATCH else ()


def additions(plan: Plan, record: Result | Record) -> dict[str, str]:
    """The new members of a done row: the output column, or the fields of the output schema."""
    output = _output(plan, record)
    return output if record.added is None else output | merged(record)


def _output(plan: Plan, record: Result | Record) -> dict[str, str]:
    if record.value is None:
        return {plan.output_column: _reply_value(plan, record.body or "")}
    if not plan.output_fields or not record.value.startswith("{"):
        return {plan.output_column: record.value}
    found = _members(record.value)
    return {name: found.get(name, "null") for name in plan.output_fields}


def merged(record: Result | Record) -> dict[str, str]:
    """The members that post-processing merges into the row, name to JSON text."""
    return {} if record.added is None else _members(record.added)


def _members(text: str) -> dict[str, str]:
    """The members of an object, name to JSON text; integers keep all digits."""
    members: dict[str, Any] = json.loads(text)
    escaped = "\\u" in text  # a lone surrogate, which no file can hold but as an escape
    return {name: json.dumps(value, ensure_ascii=escaped) for name, value in members.items()}


def _reply_value(plan: Plan, body: str) -> str:
    return orjson.dumps(replies.value_of(plan.endpoint, body, keep_thinking=plan.keep_thinking)).decode()


def batch_result(record: Record, column: str = "output") -> str:
    """A done OpenAI Batch request as a line of OpenAI's results file; what post-processing made of it comes after."""
    batch_id = _batch_id(record)
    line = rows.batch_line(
        batch_id, record.key, record.status or 200, record.request_id or batch_id, replies.valid(record.body or "null")
    )
    if record.value is None and record.added is None:
        return line
    new = {} if record.value is None else {column: record.value}
    return rows.insert_members(line, new | merged(record))


def error_line(plan: Plan, record: Record) -> str:
    """A failed or skipped row as a line of the errors file."""
    reason = {
        "cause": record.cause,
        "message": record.message,
        "line": record.line,
        "attempts": record.attempts,
        "final": record.final,
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


@contextlib.contextmanager
def replaced(
    path: Path, *, unless_empty: bool = False, given_up: Callable[[], bool] = waited_for
) -> Generator[BinaryIO]:
    """A stream whose content takes the place of `path` when the block ends well: temp file, fsync, rename, fsync.

    What exists and is no regular file (a pipe, a device) is written to, never renamed over or cut short, as in
    `-o /dev/stdout >>file`, and only until its reader is `given_up`. With `unless_empty` an empty file is not made, and
    an old one at its place is removed.
    """
    if is_device(path):
        with path.open("ab") as device:
            stream = outlet(device, given_up)
            yield stream
            stream.flush()
        return
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb", buffering=1 << 18) as stream:
            yield stream
            stream.flush()
            temporary.chmod(_mode_for(path))
            os.fsync(stream.fileno())
            empty = stream.tell() == 0
        if empty and unless_empty:
            path.unlink(missing_ok=True)
            temporary.unlink()
        else:
            temporary.replace(path)
        _sync_directory(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _mode_for(path: Path) -> int:
    """The mode a new file would have, or the one of the file that is replaced."""
    if path.exists():
        return stat.S_IMODE(path.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _sync_directory(directory: Path) -> None:
    """Make a rename durable. Windows cannot open directories, and needs it not."""
    if os.name == "nt":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Streamer:
    """Writes rows to a stream in input order as they become final, each once; memory does not grow with the file.

    `fetch` gives records after a position, in order. A row that failed is passed over: it is in the journal.
    """

    def __init__(
        self, plan: Plan, fetch: Callable[[int], Iterable[Record]], stream: BinaryIO, columns: Sequence[str] = ()
    ) -> None:
        self._writer = RecordWriter(plan, stream, columns)
        self._stream = stream
        self._fetch = fetch
        self._after = 0

    def advance(self, *, all_rows: bool = False) -> int:
        """Write what is final by now, up to the first row that is not; with `all_rows` pass over such rows too."""
        written = 0
        for record in self._fetch(self._after):
            if record.state is State.DONE:
                self._writer.write(record)
                written += 1
            elif record.state in (State.PENDING, State.UNKNOWN) and not all_rows:
                break
            self._after = record.position or self._after
        self._stream.flush()
        return written

    def close(self) -> None:
        """Finish what the format needs."""
        self._writer.close()
        self._stream.flush()
