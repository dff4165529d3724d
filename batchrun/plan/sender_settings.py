"""Which processes make the requests, where it is not this one, and that the user of this machine has named their cluster."""

from collections.abc import Collection
from typing import Any

from batchrun.errors import RefusedError
from batchrun.plan.record import Plan
from batchrun.plan.settings import Settings
from batchrun.plan.signature import is_signed, sign

_NAMES = ("--senders",)
"""What is signed together with the address of the cluster."""


def chosen(settings: Settings) -> dict[str, Any]:
    """The members of the plan: `senders`, `senders_ray` and `senders_seal`. Raises RefusedError together with --processes."""
    if settings.senders is None:
        return {}
    if settings.processes > 1:
        raise RefusedError(
            "--senders and --processes both say which processes make the requests",
            "--processes for this machine, --senders for a Ray cluster",
        )
    cluster = settings.ray or "auto"
    return {"senders": settings.senders, "senders_ray": cluster, "senders_seal": sign(_NAMES, cluster)}


def again(plan: Plan, settings: Settings, typed: Collection[str]) -> dict[str, Any]:
    """What the typed flags change of the plan of a journal. Raises RefusedError for a cluster that was named elsewhere."""
    if "senders" in typed:
        return chosen(settings)
    if plan.senders is None:
        return {}
    if "processes" in typed:
        return dict.fromkeys(("senders", "senders_ray", "senders_seal"))
    if "ray" in typed:
        return {"senders_ray": settings.ray, "senders_seal": sign(_NAMES, settings.ray)}
    if not is_signed(_NAMES, plan.senders_seal, plan.senders_ray):
        raise RefusedError(
            f"the journal names a Ray cluster to send requests from, which was not named on this machine: {plan.senders_ray}",
            f"name it: --senders {plan.senders} --ray {plan.senders_ray}, or send from here: --processes 1",
        )
    return {}
