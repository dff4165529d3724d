"""Prepares a run from its journal alone. Runs before the first call, and blocks."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from batchrun import post, registry, rows
from batchrun.engine.batch_mode import BatchMode
from batchrun.engine.budget_guard import tariff_of
from batchrun.engine.bytes_held import keep_freed_memory
from batchrun.engine.output_cap import check_pending
from batchrun.engine.reuse import reused_run, take_replies, unfinished
from batchrun.engine.row_files import LeftOut, changed, pending_positions
from batchrun.engine.selection import cause_of, positions_of, selection
from batchrun.engine.start import Prepared, check_batched, checker_of, renderer_of, restrict, simulator_of
from batchrun.errors import RefusedError
from batchrun.journal import Journal, Reader
from batchrun.plan import plan_from_json, plan_to_json
from batchrun.plan.rendering import prompt_of
from batchrun.plan.resolve import gather_for_resume, override
from batchrun.plan.sources import Gathered


def prepare_resume(  # noqa: PLR0913  what is to be sent again, each by name
    reference: str,
    flags: dict[str, Any],
    *,
    failed: bool,  # Also permanent failures
    cause: str | None = None,  # Only those of one cause
    only: Sequence[int] | None = None,  # Just these positions
    chosen: str | None = None,  # Named by the user
    done: bool = False,  # Also finished rows
) -> tuple[Prepared, Gathered]:
    """Raises RefusedError, BusyError, StorageError."""
    with ExitStack() as undo:
        prepared, gathered = _opened(reference, flags, undo)
        plan, journal = prepared.plan, prepared.journal
        rows.check_format(plan.output_format)
        check_batched(plan)
        if chosen is not None or cause is not None:
            with Reader.open(journal.path) as reader:
                only = only if chosen is None else positions_of(reader, chosen)
                cause = None if cause is None else cause_of(reader, cause)
        if only is None:
            journal.reopen(failed_for_good=failed)
        if cause is not None:
            journal.reopen(failed_for_good=True, cause=cause)
        named = only
        if only is not None and plan.reduce is not None:
            with Reader.open(journal.path) as reader:
                only = reader.with_parts(only)
        restrict(prepared, only)
        if done and named is not None:
            journal.reopen_replies(named)
        _leave_out_changed(prepared)
        other = reused_run(gathered.settings, plan) if "reuse" in flags else unfinished(prepared.run, journal, plan)
        prepared.notice = "; ".join(filter(None, (prepared.notice, take_replies(journal, other, plan)))) or None
        check_pending(plan, journal, prepared.renderer)
        tariff_of(plan).of(plan.model)  # now, since the first look takes long
        undo.pop_all()
    return prepared, gathered


def _leave_out_changed(prepared: Prepared) -> None:
    """Raises RefusedError if no other row is left."""
    prompt = prompt_of(prepared.plan)
    if prompt is None or not prompt.files:
        return
    wanted = selection(prepared.plan, prepared.journal.totals.rows, prepared.only)
    left_out, positions = LeftOut(), set[int]()
    for row, why in changed(prepared.journal):
        if wanted is None or wanted(row.position):
            left_out.add(row, why)
            positions.add(row.position)
    if not positions:
        return
    prepared.only = tuple(
        position
        for position in pending_positions(prepared.journal)
        if position not in positions and (wanted is None or wanted(position))
    )
    if not prepared.only:
        message = "\n  ".join([f"{left_out.text}:", *left_out.named])
        raise RefusedError(message, "restore the files, or run the first command again with --update")
    prepared.left_out, prepared.notice = len(left_out), left_out.notes[0]


def prepare_post(reference: str, flags: dict[str, Any]) -> tuple[Prepared, Gathered]:
    """Journals the functions. Raises as `prepare_resume`."""
    with ExitStack() as undo:
        prepared, gathered = _opened(reference, flags, undo)
        journal = prepared.journal
        if not prepared.plan.post:
            raise RefusedError(f"run {prepared.run.id} has no post-processing", "name a function: --post FILE.py:name")
        journal.amend(replace(journal.meta, plan=plan_to_json(prepared.plan)))
        journal.reopen_replies()
        undo.pop_all()
    return prepared, gathered


def prepare_import(reference: str, flags: dict[str, Any], files: Sequence[str]) -> tuple[Prepared, Gathered]:
    """At batch prices. Raises as `prepare_resume`."""
    from batchrun.engine.result_files import import_results  # noqa: PLC0415  only an import pays for it

    with ExitStack() as undo:
        prepared, gathered = _opened(reference, flags, undo)
        prepared.plan = replace(prepared.plan, batch=True)
        prepared.batch_mode = BatchMode.IMPORT
        imported = import_results(prepared.run, prepared.journal, files)
        prepared.parts, prepared.notice = imported.parts, imported.summary
        tariff_of(prepared.plan).of(prepared.plan.model)
        undo.pop_all()
    return prepared, gathered


def _opened(reference: str, flags: dict[str, Any], undo: ExitStack) -> tuple[Prepared, Gathered]:
    keep_freed_memory()
    found = registry.find(reference, flags.get("runs_dir"))
    lock = registry.held(found.path)
    undo.callback(lock.release)
    journal = Journal.open(found.path)
    undo.callback(journal.close)
    if not journal.ingested:
        raise RefusedError(f"run {found.id} was stopped while its input was read", "run its first command again")
    old = plan_from_json(journal.meta.plan)
    gathered = gather_for_resume(old, flags)
    plan = override(old, gathered)
    post.check(plan.post, plan.ray)
    prompt = prompt_of(plan)
    parts = renderer_of(plan, prompt), checker_of(plan, prompt), simulator_of(plan, gathered)
    return Prepared(found, plan, journal, lock, *parts), gathered
