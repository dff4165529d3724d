"""Which other processes make the requests, and whether this machine's user chose their cluster."""

from collections.abc import Collection
from typing import Any

from batchrun.errors import RefusedError
from batchrun.plan.record import Plan
from batchrun.plan.settings import Settings
from batchrun.plan.signature import is_signed, sign

_NAMES = ("--senders",)
"""Signed together with the cluster's address."""


def of_new_run(settings: Settings) -> dict[str, Any]:
    """Fields of a new plan. Raises RefusedError."""
    if settings.senders is None:
        return {}
    if settings.processes > 1:
        raise RefusedError(
            "--senders and --processes both select the processes that make the requests",
            "use --processes for this machine, --senders for a Ray cluster",
        )
    cluster = settings.ray or "auto"
    return {"senders": settings.senders, "senders_ray": cluster, "senders_seal": sign(_NAMES, cluster)}


def of_resume(plan: Plan, settings: Settings, typed: Collection[str]) -> dict[str, Any]:
    """Changes by typed flags. Raises RefusedError for a cluster chosen elsewhere."""
    if "senders" in typed:
        return of_new_run(settings)
    if plan.senders is None:
        return {}
    if "processes" in typed:
        return dict.fromkeys(("senders", "senders_ray", "senders_seal"))
    if "ray" in typed:
        return {"senders_ray": settings.ray, "senders_seal": sign(_NAMES, settings.ray)}
    if not is_signed(_NAMES, plan.senders_seal, plan.senders_ray):
        raise RefusedError(
            f"the journal has a Ray cluster for sending requests that was not chosen on this machine: {plan.senders_ray}",
            f"to allow it: --senders {plan.senders} --ray {plan.senders_ray}; to send from here: --processes 1",
        )
    return {}
