"""Takes replies to equal requests from another run's journal (`--reuse`); its path is journaled until all are taken."""

from batchrun import registry
from batchrun.display import counted
from batchrun.errors import RefusedError
from batchrun.journal import Journal, Reader
from batchrun.plan import Plan, plan_from_json
from batchrun.plan.settings import Settings
from batchrun.registry import RunFile


def reused_run(settings: Settings, plan: Plan) -> RunFile | None:
    """Raises RefusedError where its replies may differ, StorageError."""
    if settings.reuse is None:
        return None
    other = registry.find(settings.reuse, settings.runs_dir)
    _check(other, plan, "leave --reuse out")
    return other


def unfinished(run: RunFile, journal: Journal, plan: Plan) -> RunFile | None:
    """What an earlier session has not taken. Raises as `reused_run`."""
    path = journal.reusing
    if path is None:
        return None
    without = f"resume without the rest of them: --reuse {run.id}"
    if not path.is_file():
        raise RefusedError(
            f"run {run.id} was stopped while it took replies from {path}, which no longer exists",
            f"name its new location with --reuse, or {without}",
        )
    with Reader.open(path) as reader:
        other = RunFile(path, reader.meta)
    _check(other, plan, without)
    return other


def _check(other: RunFile, plan: Plan, otherwise: str) -> None:
    if other.meta.simulated != plan.simulated:
        had, needed = ("simulated", "real") if other.meta.simulated else ("real", "simulated")
        raise RefusedError(
            f"--reuse: run {other.id} has {had} replies, and this run needs {needed} ones",
            f"name a run of the same kind, or {otherwise}",
        )
    host = plan_from_json(other.meta.plan).base_url
    if host != plan.base_url:
        raise RefusedError(
            f"--reuse: the replies of run {other.id} came from {host}, and this run uses {plan.base_url}, "
            "where the same request may mean another model",
            f"name a run with the same base URL, or {otherwise}",
        )


def take_replies(journal: Journal, other: RunFile | None, plan: Plan) -> str | None:
    """Returns a message. Raises RefusedError for incomparable digests."""
    if other is None:
        return None
    if other.path.resolve() == journal.path.resolve():
        journal.note_reuse(None)
        return None
    if other.meta.digest != journal.meta.digest:
        raise RefusedError(
            f"--reuse: run {other.id} and this one, one of which an earlier version made, hash long "
            "requests differently, so equal ones cannot be found",
            "name the other run when this one is begun (--fresh), or leave --reuse out",
        )
    count = journal.take_replies(other.path, once=plan.dedupe)
    return taken_over(count, other.id)


def taken_over(count: int, run: str) -> str:
    return f"{counted(count)} {'reuses a reply' if count == 1 else 'reuse replies'} of run {run} without a new request"
