"""The workers and the cluster of `--post`, and whether this machine's user chose them."""

from collections.abc import Collection, Sequence
from typing import Any

from batchrun.errors import RefusedError
from batchrun.plan.record import Plan
from batchrun.plan.settings import RAY, Settings
from batchrun.plan.signature import is_signed, sign


def check_signature(functions: Sequence[str], found: str | None, ray: str | None = None) -> None:
    """Raises RefusedError for functions or a cluster not chosen on this machine."""
    if ray is None and not any(":" in name for name in functions):
        return  # the built-in ones are batchrun's own
    if not is_signed(functions, found, ray):
        cluster = "" if ray is None else f" --workers ray --ray {ray}"
        what = "functions that were" if ray is None else "functions, and a Ray cluster for them, that were"
        raise RefusedError(
            f"the journal has {what} not chosen on this machine: {', '.join(functions)}{cluster}",
            "to allow them: " + " ".join(f"--post {name}" for name in functions) + cluster,
        )


def of_new_run(settings: Settings) -> dict[str, Any]:
    """Fields of a new plan. Raises RefusedError for an unused cluster."""
    workers, ray = _workers_and_cluster(settings, None)
    if settings.ray is not None and ray is None and settings.senders is None:
        raise _unused()
    return {"workers": workers, "ray": ray, "post_seal": sign(settings.post, ray)}


def of_resume(plan: Plan, settings: Settings, typed: Collection[str]) -> dict[str, Any]:
    """Changes by typed flags. Raises RefusedError for functions or a cluster chosen elsewhere."""
    workers, ray = plan.workers, plan.ray
    if "workers" in typed:
        workers, ray = _workers_and_cluster(settings, plan.ray)
    elif "ray" in typed:
        if ray is None and plan.senders is None and settings.senders is None:
            raise _unused()
        ray = ray and settings.ray
    kept_functions = () if "post" in typed else plan.post
    kept_cluster = plan.ray if ray == plan.ray and "ray" not in typed else None
    if kept_functions or kept_cluster is not None:
        check_signature(plan.post, plan.post_seal, plan.ray)
    changes: dict[str, Any] = {"workers": workers, "ray": ray}
    if {"post", "workers", "ray"} & set(typed):
        changes["post_seal"] = sign(settings.post if "post" in typed else plan.post, ray)
    return changes


def _workers_and_cluster(settings: Settings, before: str | None) -> tuple[int | None, str | None]:
    """Number of workers, and the cluster; `before` is its default."""
    workers = settings.workers
    if not isinstance(workers, str):
        return workers, None
    number = workers.removeprefix(RAY).removeprefix(":")
    return int(number) if number else None, settings.ray or before or "auto"


def _unused() -> RefusedError:
    return RefusedError("--ray is the cluster of --workers ray and of --senders", "add one of them, or omit --ray")
