"""Where the functions of `--post` run, and whether the user of this machine has named them, and the cluster."""

from collections.abc import Collection, Sequence
from typing import Any

from batchrun.errors import RefusedError
from batchrun.plan.record import Plan
from batchrun.plan.settings import RAY, Settings
from batchrun.plan.signature import is_signed, sign


def check_signature(functions: Sequence[str], found: str | None, ray: str | None = None) -> None:
    """Raises RefusedError for functions, or a cluster for them, that were not named on this machine."""
    if ray is None and not any(":" in name for name in functions):
        return  # the built-in ones are batchrun's own
    if not is_signed(functions, found, ray):
        cluster = "" if ray is None else f" --workers ray --ray {ray}"
        what = "functions that were" if ray is None else "functions, and a Ray cluster for them, that were"
        raise RefusedError(
            f"the journal names {what} not named on this machine: {', '.join(functions)}{cluster}",
            "name what may run: " + " ".join(f"--post {name}" for name in functions) + cluster,
        )


def chosen(settings: Settings) -> dict[str, Any]:
    """The members of the plan: `workers`, `ray` and `post_seal`. Raises RefusedError for a cluster without use."""
    workers, ray = _employed(settings, None)
    if settings.ray is not None and ray is None and settings.senders is None:
        raise _unused()
    return {"workers": workers, "ray": ray, "post_seal": sign(settings.post, ray)}


def again(plan: Plan, settings: Settings, typed: Collection[str]) -> dict[str, Any]:
    """What the typed flags change of the plan of a journal. Raises RefusedError for functions, or a cluster, that were
    named elsewhere."""
    workers, ray = plan.workers, plan.ray
    if "workers" in typed:
        workers, ray = _employed(settings, plan.ray)
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


def _employed(settings: Settings, before: str | None) -> tuple[int | None, str | None]:
    """The number of workers and the cluster; `before` is the cluster where none is named."""
    workers = settings.workers
    if not isinstance(workers, str):
        return workers, None
    number = workers.removeprefix(RAY).removeprefix(":")
    return int(number) if number else None, settings.ray or before or "auto"


def _unused() -> RefusedError:
    return RefusedError("--ray is the cluster of --workers ray and of --senders", "add one of them, or leave --ray out")
