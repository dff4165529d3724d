"""Performs requests of another process on a run (`batchrun.steering`)."""

from collections.abc import Callable, Mapping
from typing import Any

from batchrun.engine.run import Run
from batchrun.engine.run_result import RunResult
from batchrun.engine.start import Prepared
from batchrun.errors import ExitCode
from batchrun.limits import Limits
from batchrun.plan.settings import settings_of
from batchrun.pricing import usd
from batchrun.steering import COMMANDS, LIMITS, Handler

STOPPED = RunResult(ExitCode.INTERRUPTED, "requested by `batchrun steer`")


def handler(prepared: Prepared, run: Run) -> Handler:
    def limits(request: Mapping[str, Any]) -> None:
        run.change(limits_with(run.limits, request))

    def stop_now(_: Mapping[str, Any]) -> None:
        run.stop(STOPPED, drain=prepared.plan.drain)
        run.leave()

    commands: dict[str, Callable[[Mapping[str, Any]], None]] = {
        "status": lambda _: None,
        "pause": lambda _: run.pause(),
        "resume": lambda _: run.resume(),
        "stop": lambda _: run.stop(STOPPED, drain=prepared.plan.drain),
        "stop-now": stop_now,
        "limits": limits,
    }
    assert set(commands) == set(COMMANDS)

    def perform(request: Mapping[str, Any]) -> dict[str, Any]:
        command = commands.get(str(request.get("command")))
        if command is None:
            raise ValueError(f"the command must be one of {', '.join(COMMANDS)}")
        command(request)
        return status_of(prepared, run)

    return perform


def limits_with(now: Limits, request: Mapping[str, Any]) -> Limits:
    """A null rate removes the user's. Raises ValueError."""
    named = {name: request[name] for name in LIMITS if name in request}
    if not named or named.get("concurrency", 1) is None:
        raise ValueError(f"limits takes {', '.join(LIMITS)}; only the rates may be null")
    try:
        checked = settings_of({name: value for name, value in named.items() if value is not None})
    except ValueError as error:
        raise ValueError("a limit must be a number above 0, concurrency a whole one") from error
    return Limits(
        checked.concurrency if "concurrency" in named else now.cap,
        now.fixed,
        checked.rpm if "rpm" in named else now.rpm,
        checked.tpm if "tpm" in named else now.tpm,
        None if "concurrency" in named else now.most,
    )


def status_of(prepared: Prepared, run: Run) -> dict[str, Any]:
    """docs/operation.md describes the fields."""
    totals, view, limits = prepared.journal.totals, run.view, run.limits
    state = "stopping" if run.ending is not None else "paused" if run.paused else "running"
    return {
        "run": prepared.run.id,
        "state": state,
        "rows": totals.rows,
        "done": totals.done,
        "failed": totals.failed,
        "skipped": totals.skipped,
        "pending": totals.pending + totals.unknown - run.in_flight,
        "in_batches": totals.in_batches,
        "in_flight": run.in_flight,
        "concurrency": limits.cap,
        "rpm": limits.rpm,
        "tpm": limits.tpm,
        "allowed": view.allowed,
        "effective_rpm": view.rpm,
        "effective_tpm": view.tpm,
        "waiting": None if view.reason is None else str(view.reason),
        "cost": usd(totals.cost) if totals.cost else None,
    }
