"""What `batches` says: the batches of a run as a table or as JSON, and what became of a chunk."""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from batchrun.display import counted, printable
from batchrun.errors import ExitCode, RefusedError
from batchrun.journal import Reader
from batchrun.lanes.shapes import SHAPES, OpenAIShape, vendor
from batchrun.models import Ticket
from batchrun.plan import plan_from_json
from batchrun.pricing import usd
from batchrun.registry import RunFile
from batchrun.report import words

if TYPE_CHECKING:
    from batchrun.plan import Plan
    from batchrun.plan.resolve import Access
    from batchrun.plan.sources import Gathered

_COLUMNS = ("chunk", "rows", "state", "status", "counts", "since", "expires", "worst cost", "next look", "batch")


def batches(reader: Reader, plan: "Plan") -> list[dict[str, Any]]:
    """The batches of a run as JSON values, in order; `worst_cost` is what open rows may cost."""
    found = vendor(plan.dialect, plan.batches)
    shape = SHAPES[found.shape](found)
    return [_values(ticket, reader.worst_of(ticket.id), shape) for ticket in reader.tickets]


def _values(ticket: Ticket, worst: int | None, shape: OpenAIShape) -> dict[str, Any]:
    seen = json.loads(ticket.detail).get("object")
    batch = shape.batch(seen) if seen else None
    counts = None if batch is None else {"total": batch.total, "completed": batch.done, "failed": batch.failed}
    return {
        "chunk": ticket.chunk,
        "rows": ticket.rows,
        "state": ticket.state,
        "batch": ticket.remote,
        "status": ticket.status,
        "counts": counts,
        "file": ticket.file,
        "tag": ticket.tag,
        "endpoint": ticket.endpoint,
        "model": ticket.model,
        "bytes": ticket.bytes,
        "asked": ticket.asked,
        "seen": ticket.seen,
        "expires": ticket.expires,
        "next_look": ticket.next,
        "worst_cost": None if worst is None else usd(worst),
        "note": ticket.note,
    }


def lines(found: Sequence[dict[str, Any]], now: float) -> list[str]:
    """The batches as a table with a line of columns, and what is to be said of some; nothing where there are none."""
    if not found:
        return []
    table = [_COLUMNS, *(_cells(values, now) for values in found)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    told = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    return told + [f"chunk {each['chunk']}: {printable(each['note'], 300)}" for each in found if each["note"]]


def table(run: RunFile, *, as_json: bool) -> None:
    """The batches of a run, in order."""
    with Reader.open(run.path) as reader:
        found, totals = batches(reader, plan_from_json(reader.meta.plan)), reader.totals
    if as_json:
        for values in found:
            print(json.dumps(values))
        return
    if not found:
        print("no batches in this run", file=sys.stderr)
        return
    for line in lines(found, time.time()):
        print(line)
    print(words.account(totals))


def _cells(values: dict[str, Any], now: float) -> tuple[str, ...]:
    counts: dict[str, Any] = values["counts"] or {}
    parts = [f"{count:,} {name}" for name, count in counts.items() if count and name != "total"]

    def span(at: float | None, sign: int) -> str:
        return "" if at is None else words.duration(max(0.0, sign * (at - now)))

    worst, ended = values["worst_cost"], values["state"] in ("settled", "forgotten")
    return (
        str(values["chunk"]),
        f"{values['rows']:,}",
        values["state"],
        printable(values["status"] or "", 20),
        printable(", ".join(parts), 60),
        span(values["asked"], -1),
        "" if ended else span(values["expires"], 1),
        f"${worst:,.4f}" if worst else "",
        span(values["next_look"], 1),
        printable(values["batch"] or "", 60),
    )


def forget(run: RunFile, chunk: str) -> ExitCode:
    """Give up a chunk, and say what that means."""
    from batchrun.engine import batch_commands  # noqa: PLC0415  the engine: not for the table

    if not chunk.isascii() or not chunk.isdecimal():
        raise RefusedError(f"forget needs the number of a chunk, not {chunk!r}", "`batchrun batches RUN` lists them")
    rows = batch_commands.forget(run, int(chunk))
    print(
        f"batchrun: chunk {chunk} is forgotten: {counted(rows)} pending, and counted as maybe billed; "
        f"resume with: batchrun resume {run.reference}",
        file=sys.stderr,
    )
    return ExitCode.OK


def adopt(ref: str, flags: dict[str, Any], remote: str, *, admit: "Callable[[Plan, Gathered], Access]") -> ExitCode:
    """Say which batch a chunk is."""
    from batchrun.engine import batch_commands  # noqa: PLC0415  the engine: not for the table
    from batchrun.engine.going_on import prepare_resume  # noqa: PLC0415  likewise

    prepared, gathered = prepare_resume(ref, flags, failed=False)
    try:
        access = admit(prepared.plan, gathered)
        ticket = asyncio.run(batch_commands.adopt(prepared, access, remote))
    finally:
        prepared.close()
    print(
        f"batchrun: {printable(remote, 80)} is chunk {ticket.chunk}; resume with: batchrun resume {prepared.run.reference}",
        file=sys.stderr,
    )
    return ExitCode.OK
