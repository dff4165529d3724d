"""What `export`, `check` and `report` write."""

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from batchrun.display import counted, printable
from batchrun.engine.export import (
    RecordWriter,
    columns_of,
    error_line,
    export,
    replaced,
    storing,
    to_write,
    write_output,
)
from batchrun.engine.ingest import NAMED
from batchrun.engine.request_files import write_requests
from batchrun.engine.row_files import copy_with_files
from batchrun.errors import DamagedError, ExitCode, RefusedError, StorageError
from batchrun.journal import NO_TEXT, Reader, Record, Result
from batchrun.models import State
from batchrun.plan import Plan, plan_from_json
from batchrun.plan.outputs import (
    STREAM,
    check_not_input,
    check_output,
    document_format,
    is_document,
    output_format,
    partial_path,
)
from batchrun.registry import RunFile
from batchrun.report import words


def export_run(  # noqa: PLR0913  what the command takes, each by name
    run: RunFile, *, output: str | None, format: str | None, failed: bool, journal: str | None, with_files: bool = False
) -> None:
    """Raises RefusedError, StorageError."""
    if journal is not None:
        if output or format or failed:
            raise RefusedError(
                "--journal copies the whole journal: --output, --format and --failed do not apply", "omit them"
            )
        check_output(journal)
        _copy_journal(run, Path(journal), with_files=with_files)
        return
    if with_files:
        raise RefusedError("--with-files copies the files that a copied journal names", "add --journal FILE")
    plan = _plan_for(run, output, format)
    if failed and plan.output_format != "jsonl" and (output or format):
        raise RefusedError("failed rows are written as JSONL", "name the output NAME.jsonl")
    if output is not None:
        check_output(output)
        check_not_input(output, [plan.input, plan.prompt_path])
    target = output or (None if run.output is None else str(run.output))
    if output is None and target is not None and format is not None:
        target = str(Path(target).with_suffix(f".{format}"))
    if failed:
        _export_failed(run, plan, target if output else None)
    elif target is None or target == STREAM:
        _export_stream(run, plan)
    else:
        exported = write_output(plan, run.path, Path(target), Path(target))
        for path in (*exported.outputs, exported.errors):
            if path is not None:
                _wrote(str(path))


def export_requests(run: RunFile, folder: str, **others: object) -> None:
    """Raises RefusedError, StorageError."""
    if any(others.values()):
        raise RefusedError("--batch-requests writes only requests", "omit the other options")
    written = write_requests(run, Path(folder))
    for each in written:
        _wrote(f"{each.path} ({counted(each.rows)}, {each.size:,} bytes)")
    with Reader.open(run.path) as reader:
        totals = reader.totals
    if totals.in_batches:
        print(f"batchrun: {counted(totals.in_batches)} in batches at the provider left out", file=sys.stderr)
    if not written:
        print("batchrun: nothing to write: no row is pending", file=sys.stderr)
        return
    print(
        f"batchrun: the rows stay pending, so `batchrun resume` would send them as well; import the results with: "
        f"batchrun import {run.reference} FILE…",
        file=sys.stderr,
    )


def _copy_journal(run: RunFile, target: Path, *, with_files: bool) -> None:
    if with_files:
        left = copy_with_files(run.path, target)
        for reason in left[:NAMED]:
            print(f"batchrun: not copied: {reason}", file=sys.stderr)
        if len(left) > NAMED:
            print(f"batchrun: … and {len(left) - NAMED:,} more files", file=sys.stderr)
    else:
        with Reader.open(run.path) as reader:
            reader.copy(target)
    _wrote(str(target))


def write_page(page: bytes, output: str) -> None:
    """Raises RefusedError, StorageError."""
    check_output(output)
    with storing(Path(output)), replaced(Path(output)) as stream:
        stream.write(page)
    _wrote(output)


def _plan_for(run: RunFile, output: str | None, format: str | None) -> Plan:
    with Reader.open(run.path) as reader:
        plan = plan_from_json(reader.meta.plan)
    if output is None and format is None:
        return plan
    if is_document(plan.input_format):
        return replace(plan, output_format=document_format(output or plan.output, format))
    return replace(plan, output_format=output_format(output or plan.output, format, plan.kind))


def _wrote(name: str) -> None:
    print(f"batchrun: wrote {printable(name)}", file=sys.stderr)


def _export_stream(run: RunFile, plan: Plan) -> None:
    with Reader.open(run.path) as reader:
        writer = RecordWriter(plan, sys.stdout.buffer, columns_of(plan, reader))
        try:
            for record in to_write(plan, reader):
                if isinstance(record, Result) or record.state is State.DONE:
                    writer.write(record)
        except (AttributeError, TypeError, ValueError) as error:
            raise reader.damaged(f"a row of it cannot be read ({error})") from error
    writer.close()
    sys.stdout.buffer.flush()


def _export_failed(run: RunFile, plan: Plan, target: str | None) -> None:
    with Reader.open(run.path) as reader, contextlib.ExitStack() as stack:
        stream = sys.stdout.buffer
        if target is not None and target != STREAM:
            stack.enter_context(storing(Path(target)))
            stream = stack.enter_context(replaced(Path(target)))
        for record in reader.export_rows():
            if record.state in (State.FAILED, State.SKIPPED):
                stream.write(error_line(plan, record).encode() + b"\n")
        stream.flush()
    if target is not None and target != STREAM:
        _wrote(target)


def check(path: Path) -> None:
    """Raises DamagedError, StorageError."""
    with Reader.open(path) as reader:
        found = reader.check()
        if found:
            raise reader.damaged("\n  ".join(["it fails its integrity check", *found]))
        print(f"{printable(str(path))} is intact: {words.account(reader.totals)}")


def export_readable(error: DamagedError, output: str | None) -> ExitCode:
    """Writes readable rows, by default to `NAME.partial`. Raises StorageError, and `error` if the plan is unreadable."""
    with _Readable.open(error.journal, damaged=True) as reader:
        plan, target = _plan_and_target(error, reader, output)
        exported = export(plan, reader, target)
    readable = f"the {counted(exported.rows, 'done row')} that can be read"
    if reader.textless:
        readable += "; rows whose texts cannot be read have only their replies"
    print(f"batchrun: {printable(error.message, 2000)}", file=sys.stderr)
    print(f"batchrun: wrote {printable(str(target))}: {readable}", file=sys.stderr)
    return ExitCode.STORAGE


class _Readable(Reader):
    textless = False  # Whether there was a row without its text

    def export_rows(self, after: int = 0) -> Iterator[Record]:
        """Rows by number: their order is lost."""
        for record in filter(_sound, self.recover_rows()):
            self.textless |= record.text == NO_TEXT
            yield record

    def exchanges(self, after: int = 0) -> Iterator[Record]:
        return self.export_rows()

    def results(self) -> Iterator[Result | Record]:
        return self.export_rows()


def _sound(record: Record) -> bool:
    try:
        json.loads(record.text)
        for text in (record.body, record.value, record.added):
            if text is not None:
                json.loads(text.removeprefix("\ufeff"))
    except (ValueError, TypeError, RecursionError):
        return False
    return record.position is not None


def _plan_and_target(error: DamagedError, reader: Reader, output: str | None) -> tuple[Plan, Path]:
    try:
        meta = reader.meta
        plan = plan_from_json(meta.plan)
        of_run = RunFile(error.journal, meta).output
    except (StorageError, ValueError, TypeError, KeyError):
        raise error from None
    if output is not None:
        return plan, Path(output)
    return plan, partial_path(of_run or Path(f"{error.journal.stem}.jsonl"))
