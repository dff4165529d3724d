"""The batches of a run as JSON values and as a table. Loads no engine, as the app shows them too."""

import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from batchrun.display import printable
from batchrun.journal import Reader
from batchrun.models import Ticket
from batchrun.plan import Plan, plan_from_json
from batchrun.pricing import usd
from batchrun.registry import RunFile
from batchrun.report import words

if TYPE_CHECKING:
    from batchrun.lanes.shapes import OpenAIShape

_COLUMNS = ("chunk", "rows", "state", "status", "counts", "since", "expires", "cost at most", "next check", "batch")


def batches(reader: Reader, plan: Plan) -> list[dict[str, Any]]:
    """`worst_cost` is the most that open rows may cost."""
    tickets = reader.tickets
    if not tickets:
        return []
    from batchrun.lanes.shapes import SHAPES  # noqa: PLC0415  orjson, only where there are batches
    from batchrun.lanes.vendors import vendor  # noqa: PLC0415  likewise

    found = vendor(plan.dialect, plan.batches)
    shape = SHAPES[found.shape](found)
    return [_values(ticket, reader.worst_of(ticket.id), shape) for ticket in tickets]


def _values(ticket: Ticket, worst: int | None, shape: "OpenAIShape") -> dict[str, Any]:
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
    if not found:
        return []
    table = [_COLUMNS, *(_cells(values, now) for values in found)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    return text + [f"chunk {each['chunk']}: {printable(each['note'], 300)}" for each in found if each["note"]]


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


def table(run: RunFile, *, as_json: bool) -> None:
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
