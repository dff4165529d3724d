"""What `check` says of a journal, and what `export` can still write of one that is damaged."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from batchrun.display import counted, printable
from batchrun.engine.export import export
from batchrun.errors import DamagedError, ExitCode, StorageError
from batchrun.journal import Reader, Record, Result
from batchrun.plan import Plan, plan_from_json
from batchrun.plan.outputs import partial_path
from batchrun.registry import RunFile
from batchrun.report import words


def check(path: Path) -> None:
    """Read all of a journal and say that it is whole. Raises DamagedError with what is wrong, StorageError."""
    with Reader.open(path) as reader:
        found = reader.check()
        if found:
            raise reader.damaged("\n  ".join(["it does not pass its check", *found]))
        print(f"{printable(str(path))} is whole: {words.account(reader.totals)}")


def export_readable(error: DamagedError, output: str | None) -> ExitCode:
    """Write the rows of a damaged journal that can be read to `output`, by default `NAME.partial`.

    Raises `error` itself where not even the plan can be read, StorageError where the rows cannot be written.
    """
    with _Readable.open(error.journal, damaged=True) as reader:
        plan, target = _plan_and_target(error, reader, output)
        exported = export(plan, reader, target)
    print(f"batchrun: {printable(error.message, 2000)}", file=sys.stderr)
    print(
        f"batchrun: wrote {printable(str(target))}: the {counted(exported.rows, 'done row')} that can be read",
        file=sys.stderr,
    )
    return ExitCode.STORAGE


class _Readable(Reader):
    """A damaged journal whose rows are those that can be read."""

    def export_rows(self, after: int = 0) -> Iterator[Record]:
        """By their numbers; there is no telling their order."""
        return filter(_sound, self.recover_rows())

    def exchanges(self, after: int = 0) -> Iterator[Record]:
        """The same, with their texts."""
        return self.export_rows()

    def results(self) -> Iterator[Result | Record]:
        """The same."""
        return self.export_rows()


def _sound(record: Record) -> bool:
    """Whether a row that was read is what was written: pages that SQLite can follow may still hold anything."""
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
