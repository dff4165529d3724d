"""Prepares a run from the user's settings. Runs before the first call, and blocks."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchrun import journal as journals
from batchrun import post, prompts, registry, rows
from batchrun.digests import BLAKE3
from batchrun.display import counted
from batchrun.engine import document_output
from batchrun.engine.batch_mode import BatchMode
from batchrun.engine.budget_guard import tariff_of
from batchrun.engine.bytes_held import keep_freed_memory
from batchrun.engine.export import reserved
from batchrun.engine.ingest import Problems, checked, report_input, report_rows
from batchrun.engine.output_cap import with_known_worst_case
from batchrun.engine.reuse import reused_run, take_replies, unfinished
from batchrun.engine.segment_checks import RowChecks, check_named, row_checks
from batchrun.errors import RefusedError
from batchrun.events import Emit, IntakeProgress, Notice
from batchrun.journal import Drift, Journal, Lock, Meta
from batchrun.lanes.vendors import vendor
from batchrun.models import Kind
from batchrun.plan import Plan, drift_text, outputs, plan_from_json, plan_to_json
from batchrun.plan.blanks import blanks_of
from batchrun.plan.inputs import DocumentInput, check_rows_used, open_documents, open_rows
from batchrun.plan.outputs import STREAM, check_output, default_format, is_device, written_beside
from batchrun.plan.reducing import Reduction, check_reduced
from batchrun.plan.rendering import plain_renderer, prompt_of
from batchrun.plan.resolve import facts_of, resolve
from batchrun.plan.settings import Settings
from batchrun.plan.sources import Gathered
from batchrun.prompts import Prompt, Renderer
from batchrun.registry import RunFile
from batchrun.replies import Checker, checker
from batchrun.rows import Input

if TYPE_CHECKING:
    from batchrun import sim
    from batchrun.engine.result_files import Part


@dataclass(slots=True)
class Prepared:
    """`close` it."""

    run: RunFile
    plan: Plan
    journal: Journal
    lock: Lock
    renderer: Renderer
    checker: Checker | RowChecks | None
    simulator: "sim.Settings | None"
    only: tuple[int, ...] | None = None  # Positions to send
    made: bool = False
    tried: bool = False  # Writes no output
    left_out: int = 0  # Rows that lack files
    notice: str | None = None
    batch_mode: BatchMode = BatchMode.RESUME
    parts: "Sequence[Part]" = ()

    def close(self, exit_code: int | None = None) -> None:
        self.journal.close(exit_code)
        self.lock.release()

    def forget(self) -> None:
        """Delete the new journal of a run that never started."""
        self.journal.close()
        if self.made:
            journals.delete(self.run.path)
            self.lock.remove()
        self.lock.release()


class DriftError(RefusedError):
    """`done` finished rows would be paid for again."""

    def __init__(self, message: str, hint: str, done: int) -> None:
        super().__init__(message, hint)
        self.done = done


def prepare(gathered: Gathered, emit: Emit, *, only: Sequence[int] | None = None) -> Prepared:
    """Find or create the output's run. Raises RefusedError, BusyError, StorageError."""
    keep_freed_memory()
    settings = gathered.settings
    if settings.output is not None:
        check_output(settings.output)
    directory = registry.directory_for(settings.output or STREAM, settings.runs_dir)
    prompt = prompts.load(settings.prompt) if settings.prompt is not None else None
    with ExitStack() as always, ExitStack() as undo:
        source = open_input(gathered, directory, prompt, always)
        report_input(source, emit)
        plan = planned(gathered, source, prompt, emit)
        targets = source.check_targets(plan.output) if isinstance(source, DocumentInput) else ()
        journals.prepare(registry.directory_for(plan.output, settings.runs_dir))
        other = reused_run(settings, plan)
        prepared = _claimed(plan, source, gathered, undo, targets, other)
        if other is not None and not prepared.journal.ingested:
            prepared.journal.note_reuse(other.path)
        _fill(prepared, source, gathered, emit)
        if isinstance(source, DocumentInput):
            document_output.keep(prepared.journal, source)
        other = other or unfinished(prepared.run, prepared.journal, plan)
        if (message := take_replies(prepared.journal, other, plan)) is not None:
            emit(Notice(message, time.monotonic()))
        tariff_of(plan).of(plan.model)  # now, since the first look takes long
        only = () if plan.limit == 0 else only
        restrict(prepared, only)
        prepared.tried = only is not None
        undo.pop_all()
    return prepared


def opened(gathered: Gathered, emit: Emit) -> tuple[Input, Plan, Renderer]:
    """Without a journal. Raises as `prepare`."""
    settings = gathered.settings
    prompt = prompts.load(settings.prompt) if settings.prompt is not None else None
    source = open_documents(settings) or _open_rows(settings, settings.input or STREAM, prompt)
    report_input(source, emit)
    plan = planned(gathered, source, prompt, emit)
    return source, plan, renderer_of(plan, prompt)


def restrict(prepared: Prepared, only: Sequence[int] | None) -> None:
    """Also rows that failed before."""
    if only is not None:
        prepared.only = tuple(sorted(only))
        prepared.journal.reopen(failed_for_good=True, positions=prepared.only)


def open_input(gathered: Gathered, directory: Path, prompt: Prompt | None, always: ExitStack) -> Input:
    """A stream is spooled beside the journals."""
    settings = gathered.settings
    if (found := open_documents(settings)) is not None:
        return found
    name = settings.input or STREAM
    spool = None
    if name == STREAM:
        journals.prepare(directory)
        spool = directory / f"{registry.new_id(time.time())}.spool"
        always.callback(spool.unlink, missing_ok=True)
    return _open_rows(settings, name, prompt, spool)


def _open_rows(settings: Settings, name: str, prompt: Prompt | None, spool: Path | None = None) -> Input:
    takes_files = prompt is not None and bool(prompt.files)
    return open_rows(settings, name, has_prompt=prompt is not None, takes_files=takes_files, spool=spool)


def planned(gathered: Gathered, source: Input, prompt: Prompt | None, emit: Emit) -> Plan:
    """Raises RefusedError."""
    plan = resolve(gathered, facts_of(gathered.settings.input or STREAM, source), prompt)
    if prompt is not None and source.kind is Kind.ROWS:
        check_rows_used(gathered.settings, source, prompt)
        prompts.check_variables(prompt, source.columns, plan.variables, plan.columns)
    post.check(plan.post, plan.ray)
    check_output(plan.output)
    rows.check_format(plan.output_format)
    check_named(plan, source.columns)
    check_reduced(plan, source.columns)
    check_batched(plan)
    if gathered.settings.split is not None and not isinstance(source, DocumentInput):
        raise RefusedError(
            f"--split is for documents, and {source.name} is read as rows, which are sent whole",
            "an --output with the suffix of the input makes a document of text and JSON, such as -o out.txt",
        )
    if outputs.is_pattern(plan.output) and not isinstance(source, DocumentInput):
        raise RefusedError(
            f"an --output with {outputs.PATH} is for documents, and {source.name} is read as rows",
            "name one file, such as -o out.jsonl",
        )
    if rows.RESERVED in reserved(plan):
        raise RefusedError(f"{rows.RESERVED} is reserved for errors files", "name another --output-column")
    return _under_earlier_name(plan, gathered.settings, emit)


def check_batched(plan: Plan) -> None:
    """Raises RefusedError where no row can go into a batch."""
    if plan.batch and plan.kind is not Kind.BATCH:  # whose lines name an endpoint each
        vendor(plan.dialect, plan.batches).check(plan.endpoint)


def _under_earlier_name(plan: Plan, settings: Settings, emit: Emit) -> Plan:
    """Keeps the earlier default output name (`.jsonl`) if a run has it: its rows are paid for."""
    if settings.output is not None or settings.format is not None or settings.fresh:
        return plan
    if plan.output_format != default_format(plan.kind, plan.input_format) or plan.output_format == "jsonl":
        return plan
    output, earlier = Path(plan.output), Path(plan.output).with_suffix(".jsonl")
    directory = registry.directory_for(plan.output, settings.runs_dir)
    if registry.of_output(output, directory) is not None:
        return plan
    found = registry.of_output(earlier, directory)
    if found is None:
        registry.refuse_damaged(earlier, directory)
        return plan
    if Path(plan_from_json(found.meta.plan).input).name != Path(plan.input).name:
        return plan  # `in.jsonl` has that output name too, and it is no row of `in.csv` that would be paid for again
    message = f"resuming the run of {earlier}, the default name of earlier versions: --output {output} starts a new run"
    emit(Notice(message, time.monotonic()))
    return replace(plan, output=str(earlier), output_format="jsonl")


def renderer_of(plan: Plan, prompt: Prompt | None) -> Renderer:
    return with_known_worst_case(plain_renderer(plan, prompt), plan)


def simulator_of(plan: Plan, gathered: Gathered) -> "sim.Settings | None":
    """Raises RefusedError."""
    if not plan.simulated:
        return None
    from batchrun import sim  # noqa: PLC0415  only a simulated run pays for it

    return sim.from_json(dict(gathered.settings.sim))


def checker_of(plan: Plan, prompt: Prompt | None) -> Checker | RowChecks | None:
    return row_checks(plan, None if prompt is None or prompt.outputs is None else checker(prompt.outputs))


def _claimed(  # noqa: PLR0913, PLR0917  what decides which run it is
    plan: Plan,
    source: Input,
    gathered: Gathered,
    undo: ExitStack,
    targets: tuple[Path, ...],
    other: RunFile | None,
) -> Prepared:
    settings = gathered.settings
    directory = registry.directory_for(plan.output, settings.runs_dir)
    prompt = prompt_of(plan)
    renderer, check = renderer_of(plan, prompt), checker_of(plan, prompt)
    with registry.choosing(directory):
        found = None if plan.output == STREAM else registry.of_output(Path(plan.output), directory)
        if found is not None and settings.fresh:
            registry.held(found.path).release()  # a run that is under way keeps its output
            registry.refuse_in_batches(found)
        if found is not None and not settings.fresh:
            lock = registry.held(found.path)
            undo.callback(lock.release)
            check_not_mixed(found, plan)
            journal = Journal.open(found.path)
            undo.callback(journal.close)
            return Prepared(found, plan, journal, lock, renderer, check, simulator_of(plan, gathered))
        if found is None and not settings.fresh:
            _check_overwrite(plan, directory, targets)
        digest = BLAKE3 if other is None else other.meta.digest
        run, journal, lock = _created(plan, directory, digest, undo)
        return Prepared(run, plan, journal, lock, renderer, check, simulator_of(plan, gathered), made=True)


def check_not_mixed(found: RunFile, plan: Plan) -> None:
    """Raises RefusedError for simulated and real replies in one run."""
    if found.meta.simulated != plan.simulated:
        had, needed = ("simulated", "real") if found.meta.simulated else ("real", "simulated")
        raise RefusedError(
            f"{plan.output} belongs to run {found.id}, which has {had} replies; {needed} ones would be mixed with them",
            "start over with --fresh, or choose another --output",
        )


def _check_overwrite(plan: Plan, directory: Path, targets: tuple[Path, ...]) -> None:
    """Raises RefusedError for a foreign output, StorageError for a damaged journal."""
    if plan.output == STREAM:
        return
    output = Path(plan.output)
    registry.refuse_damaged(output, directory)
    for path in (*targets, *written_beside(output)):
        if path.is_file() and not is_device(path):
            raise RefusedError(
                f"{path} exists and belongs to no run",
                "choose another --output, or replace it with --fresh",
            )


def _created(plan: Plan, directory: Path, digest: str, undo: ExitStack) -> tuple[RunFile, Journal, Lock]:
    now = time.time()
    meta = Meta(
        run=registry.new_id(now),
        created=now,
        plan=plan_to_json(plan),
        prompt=plan.prompt_source,
        simulated=plan.simulated,
        output=registry.relative_output(plan.output, directory),
        digest=digest,
    )
    path = directory / f"{meta.run}.db"
    lock = journals.lock(path)
    undo.callback(lock.remove)
    journal = Journal.create(path, meta)
    undo.callback(journals.delete, path)
    undo.callback(journal.close)
    return RunFile(path, meta), journal, lock


def _fill(prepared: Prepared, source: Input, gathered: Gathered, emit: Emit) -> None:
    problems = Problems(source.where)
    blanks = blanks_of(prepared.plan, prompt_of(prepared.plan))
    reduction = Reduction.of(prepared.plan)
    parts, folder = (source, prepared.renderer, problems, reserved(prepared.plan)), prepared.run.path.parent
    digest = prepared.run.meta.digest
    found = checked(*parts, digest=digest, blanks=blanks, reduction=reduction, folder=folder)
    journal = prepared.journal
    if journal.doubt is not None:
        emit(Notice(journal.doubt, time.monotonic()))

    def report(count: int) -> None:
        emit(IntakeProgress(count))

    if not journal.ingested:
        journal.ingest(_refusing(found, problems, source, gathered), report)
        journal.amend(_amended(prepared))
        report_rows(source, problems, emit)
        return
    drift = journal.compare(_refusing(found, problems, source, gathered), report)
    report_rows(source, problems, emit)
    _check_drift(prepared, drift, update=gathered.settings.update)
    journal.apply(_amended(prepared))
    if not drift.nothing:
        emit(Notice(_drift_sentence(drift), time.monotonic()))
    before = plan_from_json(prepared.run.meta.plan).post
    if before != prepared.plan.post and journal.totals.done:
        emit(Notice(_other_post(prepared, before), time.monotonic()))
    journal.reopen()


def _refusing(found: Any, problems: Problems, source: Input, gathered: Gathered) -> Any:
    yield from found
    problems.refuse(source.name, skip_invalid=gathered.settings.skip_invalid)


def _amended(prepared: Prepared) -> Meta:
    return replace(prepared.run.meta, plan=plan_to_json(prepared.plan), prompt=prepared.plan.prompt_source)


def _check_drift(prepared: Prepared, drift: Drift, *, update: bool) -> None:
    """Raises RefusedError before paid replies are replaced."""
    if drift.in_batches:
        reference = prepared.run.reference
        raise RefusedError(
            f"{counted(drift.in_batches)} that differ from the input are in batches at the provider",
            f"`batchrun resume {reference}` collects them, `batchrun batches {reference} cancel` ends them; then run this "
            "command again",
        )
    if update:
        return
    old, before = plan_from_json(prepared.run.meta.plan), prepared.journal.totals
    other_file = not outputs.is_pattern(old.output) and Path(old.input).resolve() != Path(prepared.plan.input).resolve()
    if other_file and before.done and drift.absent == before.rows:
        raise RefusedError(
            f"{prepared.plan.output} belongs to run {prepared.run.id} over {old.input}, which has no row in common with "
            f"{prepared.plan.input}: {counted(before.done)} already done would be removed from the output",
            "choose another --output, or replace them with --update",
        )
    if not drift.changed_done:
        return
    what = drift_text(old, prepared.plan) or "the input"
    lines = ", ".join(str(line) for line, _ in drift.examples)
    raise DriftError(
        f"{what} changed since run {prepared.run.id}: {counted(drift.changed)} now {'has' if drift.changed == 1 else 'have'} a different request "
        f"(line {lines} …), and {drift.changed_done:,} already done would be sent again",
        "send them again with --update, start over with --fresh, or choose another --output",
        drift.changed_done,
    )


def _other_post(prepared: Prepared, before: tuple[str, ...]) -> str:
    now = prepared.plan.post
    what = f"post-processing has changed (before: {', '.join(before)})" if before else "post-processing is new"
    if not now:
        what = f"post-processing was removed (before: {', '.join(before)})"
    again = f"; `batchrun post {prepared.run.id}` processes all of them" if now else ""
    return f"{what}: {prepared.journal.totals.done:,} finished rows keep their results{again}"


def _drift_sentence(drift: Drift) -> str:
    parts = {
        "new": drift.added,
        "changed": drift.changed,
        "no longer in the input": drift.absent,
        "back in the input": drift.reappeared,
        "moved or touched without a new request": drift.retouched,
    }
    message = ", ".join(f"{count:,} {name}" for name, count in parts.items() if count)
    return f"since the last session: {message}"
