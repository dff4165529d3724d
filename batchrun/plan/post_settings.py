"""Where the functions of `--post` run, and whether the user of this machine has named them, and the cluster.

A journal can be copied here from anywhere, and what it says of post-processing is code that would run, and a place that
replies would go to. So the plan keeps a signature (HMAC), made with a secret of this user on this machine, over the very
names that were typed or configured here.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from platformdirs import user_state_path

from batchrun.errors import RefusedError
from batchrun.plan.record import Plan
from batchrun.plan.settings import RAY, Settings


def sign(functions: Sequence[str], ray: str | None = None) -> str | None:
    """The signature over these names, and that of the cluster; None where there are none, or where no secret can be kept
    here."""
    secret = _secret() if functions else None
    if secret is None:
        return None
    names = functions if ray is None else (*functions, f"--ray {ray}")
    return hmac.new(secret, "\n".join(names).encode(), hashlib.sha256).hexdigest()


def check_signature(functions: Sequence[str], found: str | None, ray: str | None = None) -> None:
    """Raises RefusedError for functions that nobody has named on this machine, or a cluster for them."""
    if ray is None and not any(":" in name for name in functions):
        return  # the built-in ones are batchrun's own
    own = sign(functions, ray)
    if own is None or found is None or not hmac.compare_digest(own, found):
        cluster = "" if ray is None else f" --workers ray --ray {ray}"
        what = "functions that were" if ray is None else "functions, and a Ray cluster for them, that were"
        raise RefusedError(
            f"the journal names {what} not named on this machine: {', '.join(functions)}{cluster}",
            "name what may run: " + " ".join(f"--post {name}" for name in functions) + cluster,
        )


def _secret() -> bytes | None:
    path = user_state_path("batchrun", appauthor=False) / "seal"
    with contextlib.suppress(OSError):
        if not path.exists():
            _make(path)
        return path.read_bytes() or None
    return None


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    building = path.with_name(f"seal.{os.getpid()}")
    with open(os.open(building, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(secrets.token_bytes(32))
    with contextlib.suppress(FileExistsError):
        os.link(building, path)  # the first of several commands wins
    building.unlink()


def chosen(settings: Settings) -> dict[str, Any]:
    """The members of the plan: `workers`, `ray` and `post_seal`. Raises RefusedError for a cluster without use."""
    workers, ray = _employed(settings, None)
    if settings.ray is not None and ray is None:
        raise RefusedError("--ray is the cluster of --workers ray", "add --workers ray, or leave --ray out")
    return {"workers": workers, "ray": ray, "post_seal": sign(settings.post, ray)}


def again(plan: Plan, settings: Settings, typed: Collection[str]) -> dict[str, Any]:
    """What the typed flags change of the plan of a journal. Raises RefusedError for functions, or a cluster, that were
    named elsewhere."""
    workers, ray = plan.workers, plan.ray
    if "workers" in typed:
        workers, ray = _employed(settings, plan.ray)
    elif "ray" in typed:
        if ray is None:
            raise RefusedError("--ray is the cluster of --workers ray", "add --workers ray, or leave --ray out")
        ray = settings.ray
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
