"""Executes a prepared run, from its first request to its output."""

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from batchrun.client import Client
from batchrun.display import counted, printable
from batchrun.engine.batch_mode import BatchMode
from batchrun.engine.budget_guard import tariff_of
from batchrun.engine.connect import connected
from batchrun.engine.export import Exported, write_output
from batchrun.engine.lane import Member
from batchrun.engine.output_files import POLL_EVERY, UnreadError
from batchrun.engine.output_stream import ReaderWait, RowsOut
from batchrun.engine.run import Run
from batchrun.engine.run_result import HASTY, RunResult
from batchrun.engine.selection import selection
from batchrun.engine.start import Prepared
from batchrun.engine.steer import handler
from batchrun.errors import BatchrunError, ExitCode, RefusedError
from batchrun.events import IMPORT_ONLY, POST_ONLY, Emit, Event, Notice, RowFinished, RowsAnswered, RunEnded, RunStarted
from batchrun.journal import Reader
from batchrun.lanes.states import OPEN, is_unread
from batchrun.lanes.vendors import vendor
from batchrun.models import Totals
from batchrun.plan.outputs import DOCUMENT, STREAM, is_device, partial_path
from batchrun.plan.resolve import Access
from batchrun.pricing import STANDARD, usd
from batchrun.registry import batch_folder
from batchrun.steering import Server

if TYPE_CHECKING:
    from batchrun import sim
    from batchrun.engine.batches import Batching

SIMULATED = 0.03  # Seconds that replace a second between polls of a simulated provider at normal speed


async def execute(
    prepared: Prepared,
    access: Access | None,
    emit: Emit,
    *,
    on_start: Callable[[Run], None],
    stream: BinaryIO | None = None,
) -> RunEnded:
    """Emit and return the result. Raises HostError before the first call.

    Without `access` only stored replies are processed. `stream` takes rows for `-`.
    """
    loop = asyncio.get_running_loop()
    if prepared.notice is not None:
        emit(Notice(prepared.notice, loop.time()))
    with contextlib.closing(_Closing(prepared)) as closing:
        ending, run = RunResult(ExitCode.OK), None
        late = access is not None and any(map(is_unread, prepared.journal.tickets))
        if (something_pending(prepared.journal.totals) or late) and prepared.only != ():
            try:
                ending, run = await _sent(prepared, access, emit, on_start, stream)
            except RefusedError:
                prepared.forget()
                raise
            prepared.left_out += ending.left_out
        elif prepared.plan.output == STREAM and stream is not None and prepared.only is None:
            ending = await RowsOut(prepared, stream, None).rest(ending)
        ending = _settled(ending, prepared.journal.totals, prepared, sending=access is not None)
        ending = ending._replace(notes=(*ending.notes, *_batches_left(prepared)))
        closing.exit_code = ending.exit_code
        prepared.journal.stop(ending.exit_code)
        ending, exported = await _output(prepared, ending, run, emit, sending=access is not None)
        closing.exit_code = ending.exit_code
        written = () if exported is None else (*exported.outputs, exported.errors)
        files = tuple(str(path) for path in written if path)
        texts = ending.message, ending.hint
        ended = RunEnded(ending.exit_code, prepared.journal.totals, *texts, files, loop.time(), ending.notes)
    emit(ended)
    return ended


async def pilot(
    prepared: Prepared, rows: int, access: Access, emit: Emit, *, on_start: Callable[[Run], None]
) -> RunResult:
    """Send rows spread over the input; no output. Raises as `execute`."""
    plan = prepared.plan
    prepared.plan = replace(plan, sample=rows)
    ending = RunResult(ExitCode.OK)
    try:
        if something_pending(prepared.journal.totals):
            ending, _ = await _sent(prepared, access, emit, on_start, None)
    finally:
        prepared.plan = plan
        prepared.journal.stop(None if ending.exit_code is ExitCode.OK else ending.exit_code)
    return ending


class _Closing:
    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self.exit_code: int | None = None

    def close(self) -> None:
        self._prepared.close(self.exit_code)


def something_pending(totals: Totals) -> bool:
    return totals.pending + totals.unknown + totals.in_batches > 0


async def _sent(
    prepared: Prepared, access: Access | None, emit: Emit, on_start: Callable[[Run], None], stream: BinaryIO | None
) -> tuple[RunResult, Run]:
    async with connected(prepared.plan, access, simulator_of(prepared)) as members:
        sending = access is not None or prepared.batch_mode is BatchMode.IMPORT
        await asyncio.to_thread(_paired, prepared, sending=sending)
        client = members[0].client
        records = [
            prepared.journal.lane(member.plan.base_url, member.plan.api_key_env, member.plan.model)
            for member in members
        ]
        prepared.journal.start()
        batching = batching_of(prepared, client, records[0].id)
        rows_out = None

        def forward(event: Event) -> None:
            emit(event)
            if rows_out is not None and isinstance(event, RowFinished | RowsAnswered):
                rows_out.changed.set()

        keys = [] if access is None else [own.key for own in access.lanes or (access,)]
        secrets = tuple(key.value for key in keys if key is not None)
        known = [replace(member, record=record) for member, record in zip(members, records, strict=True)]
        parts = prepared.plan, prepared.journal, known, prepared.renderer
        run = Run(
            *parts,
            checker=prepared.checker,
            emit=forward if prepared.plan.output == STREAM else emit,
            only=prepared.only,
            secrets=secrets,
            batching=batching,
        )
        if prepared.plan.output == STREAM and stream is not None:
            rows_out = await asyncio.to_thread(RowsOut, prepared, stream, run)
        on_start(run)
        known = await asyncio.to_thread(_to_send, prepared), await asyncio.to_thread(_tiers, prepared)
        emit(_started(prepared, members, *known))
        steering = Server(prepared.run.path, handler(prepared, run))
        try:
            await steering.open()
            if rows_out is None:
                return await run.run(), run
            return await rows_out.beside(run), run
        finally:
            await steering.close()


def _paired(prepared: Prepared, *, sending: bool) -> None:
    plan, journal = prepared.plan, prepared.journal
    wanted = selection(plan, journal.totals.rows, prepared.only if sending else ())
    journal.pair(dedupe=plan.dedupe, wanted=wanted)


def _to_send(prepared: Prepared) -> int | None:
    plan, total = prepared.plan, prepared.journal.totals.rows
    wanted = selection(plan, total)
    return None if wanted is None else prepared.journal.count_pending(plan.limit, wanted)


def _batches_left(prepared: Prepared) -> tuple[str, ...]:
    totals = prepared.journal.totals
    if not totals.in_batches:
        return ()
    left = [ticket for ticket in prepared.journal.tickets if ticket.state in OPEN]
    ids = ", ".join(printable(ticket.remote or f"chunk {ticket.chunk} ({ticket.state})", 80) for ticket in left[:5])
    more = f" and {len(left) - 5} more" if len(left) > 5 else ""
    money = f", up to ${usd(totals.cost_reserved):,.4f} in flight" if totals.cost_reserved else ""
    reference = prepared.run.reference
    return (
        f"{counted(totals.in_batches)} in {len(left)} batch{'es' if len(left) > 1 else ''} at the provider: {ids}{more}{money}",
        f"`batchrun resume {reference}` collects them, `batchrun batches {reference} cancel` ends them",
    )


def _tiers(prepared: Prepared) -> dict[str, tuple[int, int]]:
    """Reads all attempts."""
    if not prepared.plan.tier or not prepared.journal.totals.replies:
        return {}
    with Reader.open(prepared.journal.path) as reader:
        return {share.tier: (share.replies, share.cost) for share in reader.tiers() if share.tier != STANDARD}


def _started(
    prepared: Prepared, members: Sequence[Member], to_send: int | None, tiers: dict[str, tuple[int, int]]
) -> RunStarted:
    plan, loop = prepared.plan, asyncio.get_running_loop()
    clients = [member.client for member in members if member.client is not None]
    host = "the simulated provider" if plan.simulated else ", ".join(str(client.describe()) for client in clients)
    if not clients:
        host = IMPORT_ONLY if prepared.batch_mode is BatchMode.IMPORT else POST_ONLY
    own = [(member.name, tariff_of(member.plan).of(member.plan.model)) for member in members if member.plan.model]
    tier = "batch" if plan.batch else STANDARD
    texts = [f"{name}: " * bool(name) + price.text_of(tier) for name, price in own if price is not None]
    return RunStarted(
        run=prepared.run.id,
        totals=prepared.journal.totals,
        host=host,
        model=plan.model or "",
        simulated=plan.simulated,
        at=loop.time(),
        price="; ".join(texts) or None,
        to_send=to_send,
        lanes=tuple(member.name for member in members) if len(members) > 1 else (),
        tiers=tiers,
    )


def simulator_of(prepared: Prepared) -> "sim.Settings | None":
    """With batches its state is kept for the next session."""
    if prepared.simulator is None or not prepared.plan.batch or prepared.simulator.state:
        return prepared.simulator
    return replace(prepared.simulator, state=str(batch_folder(prepared.run) / "provider"))


def batching_of(prepared: Prepared, client: Client | None, lane: int) -> "Batching | None":
    plan = prepared.plan
    if client is None and prepared.batch_mode is not BatchMode.IMPORT:
        return None
    if not plan.batch and not any(ticket.state in OPEN or is_unread(ticket) for ticket in prepared.journal.tickets):
        return None
    from batchrun.engine.batches import Batching  # noqa: PLC0415  only a run with batches pays for it
    from batchrun.lanes.batch import BatchExecutor  # noqa: PLC0415  likewise
    from batchrun.lanes.shapes import SHAPES  # noqa: PLC0415  likewise

    found = vendor(plan.dialect, plan.batches)
    calls = None if client is None else client.calls(SHAPES[found.shape].key_header)
    folder = batch_folder(prepared.run)
    return Batching(
        executor=BatchExecutor(
            found,
            calls,
            run=prepared.run.id,
            folder=folder,
            scale=1.0 if prepared.simulator is None else SIMULATED / prepared.simulator.time_scale,
        ),
        run=prepared.run.id,
        lane=lane,
        folder=folder,
        sending=plan.batch and prepared.batch_mode is not BatchMode.IMPORT,
        first=plan.batch_first,
        batch_mode=prepared.batch_mode,
        parts=prepared.parts,
    )


def _settled(ending: RunResult, totals: Totals, prepared: Prepared, *, sending: bool) -> RunResult:
    if ending.exit_code is not ExitCode.OK:
        return ending
    if prepared.batch_mode is BatchMode.IMPORT and something_pending(totals):
        left = totals.pending + totals.unknown + totals.in_batches
        return RunResult(ExitCode.WAITING, f"{counted(left)} without a result yet", notes=ending.notes)
    plan = prepared.plan
    whole = plan.limit is None and plan.sample is None and prepared.only is None and sending
    whole = whole and prepared.batch_mode is not BatchMode.CANCEL and not prepared.left_out
    if totals.pending < 0 or (whole and something_pending(totals)):
        return RunResult(
            ExitCode.UNEXPECTED,
            f"the row counts do not add up: {counted(totals.pending + totals.unknown)} without an outcome",
            "this is a bug in batchrun; nothing is lost: the journal has every reply",
        )
    return ending._replace(exit_code=ExitCode.ROWS_FAILED) if totals.failed or prepared.left_out else ending


async def _output(
    prepared: Prepared, ending: RunResult, run: Run | None, emit: Emit, *, sending: bool
) -> tuple[RunResult, Exported | None]:
    output = prepared.run.output
    if output is None or prepared.tried or ending.exit_code is ExitCode.STORAGE:
        return ending, None
    # Whether the run had finished before its replies were post-processed again.
    was_whole = not something_pending(prepared.journal.totals) or (
        output.exists() and not partial_path(output).exists()
    )
    whole = ending.exit_code in (ExitCode.OK, ExitCode.ROWS_FAILED) and (sending or was_whole)
    if ending.hasty or ending.exit_code in HASTY or (not whole and is_device(output)):
        message = f"`batchrun export {prepared.run.reference}` writes what is done"
        return ending._replace(hint=ending.hint or message), None
    if prepared.plan.output_format == DOCUMENT and something_pending(prepared.journal.totals):
        whole = False  # a document is in place when it is translated to its end, also with --limit
    target = output if whole or await asyncio.to_thread(_cut_short, prepared, output) else partial_path(output)
    exported = await _written(prepared, target, output, run, emit)
    if isinstance(exported, RunResult):
        message = f"`batchrun export {prepared.run.reference} --output FILE` writes it again"
        return exported._replace(hint=exported.hint or message), None
    if target == output:
        partial_path(output).unlink(missing_ok=True)
    return ending, exported


async def _written(prepared: Prepared, target: Path, output: Path, run: Run | None, emit: Emit) -> Exported | RunResult:
    reader_wait = ReaderWait(run)
    with contextlib.ExitStack() as held:
        fifo = target.is_fifo()  # noqa: ASYNC240  one look
        if fifo and (stopped := await _until_read(target, run, emit, held)) is not None:
            return stopped
        work = partial(write_output, prepared.plan, prepared.journal.path, target, output, reader_wait.over)
        try:
            return await reader_wait.write(work)
        except BatchrunError as error:
            return RunResult(ExitCode.STORAGE, error.message, error.hint)
        except UnreadError:
            return reader_wait.ending
        except BrokenPipeError:
            return RunResult(ExitCode.BROKEN_PIPE, "the program that reads the output has ended")


async def _until_read(fifo: Path, run: Run | None, emit: Emit, held: contextlib.ExitStack) -> RunResult | None:
    """Keeps the pipe open; returns the ending if stopped first."""
    reported = False
    while run is None or run.ending is None:
        try:
            held.callback(os.close, os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        except OSError as error:
            if error.errno != errno.ENXIO:  # which means that it has no reader
                return None  # the error is met again when it is written
        else:
            return None
        if not reported:
            message = f"{fifo} is a pipe: the rows are written once a program reads it"
            emit(Notice(message, asyncio.get_running_loop().time()))
            reported = True
        await asyncio.sleep(POLL_EVERY)
    return run.ending


def _cut_short(prepared: Prepared, output: Path) -> bool:
    if not output.exists():
        return False
    with Reader.open(prepared.journal.path) as reader:
        ends = [s.ended for s in reader.sessions if s.exit_code in (ExitCode.OK, ExitCode.ROWS_FAILED) and s.ended]
        before = [sample for sample in reader.samples() if ends and sample.at <= ends[-1]]
    return bool(before) and before[-1].state.get("pending", 0) > 0
