"""Functions, workers and clusters of a plan, and whether this machine's user chose them.

A journal from elsewhere must not select code to run or a place to send keys to: an HMAC with a secret of this user on
this machine signs the choices.
"""

import contextlib
import hashlib
import hmac
import logging
import os
import secrets
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from batchrun import user_directories
from batchrun.errors import RefusedError
from batchrun.plan.record import Plan
from batchrun.plan.settings import RAY, Settings

log = logging.getLogger(__name__)


def sign(functions: Sequence[str], ray: str | None = None) -> str | None:
    """None without names or if no secret can be kept."""
    secret = _secret() if functions else None
    if secret is None:
        return None
    names = functions if ray is None else (*functions, f"--ray {ray}")
    return hmac.new(secret, "\n".join(names).encode(), hashlib.sha256).hexdigest()


def is_signed(names: Sequence[str], found: str | None, ray: str | None) -> bool:
    own = sign(names, ray)
    return own is not None and found is not None and hmac.compare_digest(own, found)


def _secret() -> bytes | None:
    folder = user_directories.state()
    if folder is None:
        log.warning("functions and clusters are not signed, so resume will refuse them: there is no home directory")
        return None
    path = folder / "seal"
    try:
        if not path.exists():
            _make(path)
        return path.read_bytes() or None
    except OSError as error:
        log.warning("functions and clusters are not signed, so resume will refuse them: %s: %s", path, error)
        return None


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    building = path.with_name(f"seal.{os.getpid()}")
    building.unlink(missing_ok=True)
    with open(os.open(building, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(secrets.token_bytes(32))
    with contextlib.suppress(FileExistsError):
        os.link(building, path)  # the first of several commands wins
    building.unlink()


def check_signature(functions: Sequence[str], found: str | None, ray: str | None = None) -> None:
    """Raises RefusedError for choices made elsewhere."""
    if ray is None and not any(":" in name for name in functions):
        return  # the built-in ones are batchrun's own
    if not is_signed(functions, found, ray):
        cluster = "" if ray is None else f" --workers ray --ray {ray}"
        what = "functions that were" if ray is None else "functions, and a Ray cluster for them, that were"
        raise RefusedError(
            f"the journal has {what} not chosen on this machine: {', '.join(functions)}{cluster}",
            "to allow them: " + " ".join(f"--post {name}" for name in functions) + cluster,
        )


def post_of_new_run(settings: Settings) -> dict[str, Any]:
    """Raises RefusedError."""
    workers, ray = _workers_and_cluster(settings, None)
    if settings.ray is not None and ray is None and settings.senders is None:
        raise _unused()
    return {"workers": workers, "ray": ray, "post_seal": sign(settings.post, ray)}


def post_on_resume(plan: Plan, settings: Settings, typed: Collection[str]) -> dict[str, Any]:
    """Raises RefusedError for choices made elsewhere."""
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
    workers = settings.workers
    if not isinstance(workers, str):
        return workers, None
    number = workers.removeprefix(RAY).removeprefix(":")
    return int(number) if number else None, settings.ray or before or "auto"


def _unused() -> RefusedError:
    return RefusedError("--ray is the cluster of --workers ray and of --senders", "add one of them, or omit --ray")


_SENDERS = ("--senders",)


def senders_of_new_run(settings: Settings) -> dict[str, Any]:
    """Raises RefusedError."""
    if settings.senders is None:
        return {}
    if settings.processes > 1:
        raise RefusedError(
            "--senders and --processes both select the processes that make the requests",
            "use --processes for this machine, --senders for a Ray cluster",
        )
    cluster = settings.ray or "auto"
    return {"senders": settings.senders, "senders_ray": cluster, "senders_seal": sign(_SENDERS, cluster)}


def senders_on_resume(plan: Plan, settings: Settings, typed: Collection[str]) -> dict[str, Any]:
    """Raises RefusedError for a cluster chosen elsewhere."""
    if "senders" in typed:
        return senders_of_new_run(settings)
    if plan.senders is None:
        return {}
    if "processes" in typed:
        return dict.fromkeys(("senders", "senders_ray", "senders_seal"))
    if "ray" in typed:
        return {"senders_ray": settings.ray, "senders_seal": sign(_SENDERS, settings.ray)}
    if not is_signed(_SENDERS, plan.senders_seal, plan.senders_ray):
        raise RefusedError(
            f"the journal has a Ray cluster for sending requests that was not chosen on this machine: {plan.senders_ray}",
            f"to allow it: --senders {plan.senders} --ray {plan.senders_ray}; to send from here: --processes 1",
        )
    return {}
