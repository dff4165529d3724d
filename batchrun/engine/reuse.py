"""Replies to equal requests, taken from the journal of another run before anything is sent (`--reuse`).

The journal remembers the other run until all are taken, so that after a kill the rest follows, named again or not.
"""

from batchrun import registry
from batchrun.errors import RefusedError
from batchrun.journal import Journal, Reader
from batchrun.plan import Plan, plan_from_json
from batchrun.plan.settings import Settings
from batchrun.registry import RunFile


def reused_run(settings: Settings, plan: Plan) -> RunFile | None:
    """The run that the settings name, None where they name none.

    Raises RefusedError for a run whose replies are not what this plan would get, and StorageError.
    """
    if settings.reuse is None:
        return None
    other = registry.find(settings.reuse, settings.runs_dir)
    _check(other, plan, "leave --reuse out")
    return other


def unfinished(run: RunFile, journal: Journal, plan: Plan) -> RunFile | None:
    """The run that an earlier session was to take replies from, None where it has. Raises as `reused_run`."""
    path = journal.reusing
    if path is None:
        return None
    without = f"resume without the rest of them: --reuse {run.id}"
    if not path.is_file():
        raise RefusedError(
            f"run {run.id} was ended while it took replies over from {path}, and that is gone",
            f"say where it is now with --reuse, or {without}",
        )
    with Reader.open(path) as reader:
        other = RunFile(path, reader.meta)
    _check(other, plan, without)
    return other


def _check(other: RunFile, plan: Plan, otherwise: str) -> None:
    if other.meta.simulated != plan.simulated:
        held, asked = ("simulated", "real") if other.meta.simulated else ("real", "simulated")
        raise RefusedError(
            f"--reuse: run {other.id} holds {held} replies, which would pass for {asked} ones here",
            f"name a run of the same kind, or {otherwise}",
        )
    host = plan_from_json(other.meta.plan).base_url
    if host != plan.base_url:
        raise RefusedError(
            f"--reuse: the replies of run {other.id} came from {host}, and this run asks {plan.base_url}, "
            "where the same request may mean another model",
            f"name a run with the same base URL, or {otherwise}",
        )


def take_replies(journal: Journal, other: RunFile | None, plan: Plan) -> str | None:
    """Copy the replies of that run to equal pending rows, and say how many; nothing where it is this very run. Blocks. Raises
    RefusedError where their digests cannot be compared."""
    if other is None:
        return None
    if other.path.resolve() == journal.path.resolve():
        journal.note_reuse(None)
        return None
    if other.meta.digest != journal.meta.digest:
        raise RefusedError(
            f"--reuse: run {other.id} and this one, of which one is of an earlier version, keep different hashes of long "
            "requests, so that equal ones cannot be found",
            "name the other run when this one is begun (--fresh), or leave --reuse out",
        )
    count = journal.take_replies(other.path, once=plan.dedupe)
    return taken_over(count, other.id)


def taken_over(count: int, run: str) -> str:
    """How many rows another run answers, in words."""
    rows = "1 row gets its reply" if count == 1 else f"{count:,} rows get their replies"
    return f"{rows} from run {run}, without a call"
