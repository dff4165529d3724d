"""The output of `batches`."""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from batchrun.display import counted, printable
from batchrun.errors import ExitCode, RefusedError
from batchrun.journal import Reader
from batchrun.plan import plan_from_json
from batchrun.registry import RunFile
from batchrun.report import words
from batchrun.report.batch_table import batches, lines

if TYPE_CHECKING:
    from batchrun.plan import Plan
    from batchrun.plan.resolve import Access
    from batchrun.plan.sources import Gathered


def table(run: RunFile, *, as_json: bool) -> None:
    """Print the batches of a run."""
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


def forget(run: RunFile, chunk: str) -> ExitCode:
    """Forget a chunk and print what follows."""
    from batchrun.engine import batch_commands  # noqa: PLC0415  the engine: not for the table

    if not chunk.isascii() or not chunk.isdecimal():
        raise RefusedError(f"forget needs the number of a chunk, not {chunk!r}", "`batchrun batches RUN` lists them")
    rows = batch_commands.forget(run, int(chunk))
    print(
        f"batchrun: chunk {chunk} is forgotten: {counted(rows)} pending again, possibly billed; "
        f"resume with: batchrun resume {run.reference}",
        file=sys.stderr,
    )
    return ExitCode.OK


def adopt(ref: str, flags: dict[str, Any], remote: str, *, admit: "Callable[[Plan, Gathered], Access]") -> ExitCode:
    """Assign a provider's batch to a chunk."""
    from batchrun.engine import batch_commands  # noqa: PLC0415  the engine: not for the table
    from batchrun.engine.resume import prepare_resume  # noqa: PLC0415  likewise

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
