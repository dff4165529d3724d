"""Whether the functions, and the cluster, that a journal names were named by the user of this machine.

A journal can be copied here from anywhere, and what it says of post-processing is code that would run, and a place that
replies would go to, or with `--senders` requests and the key. So the plan keeps a signature (HMAC), made with a secret of
this user on this machine, over the very names that were typed or configured here.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from platformdirs import user_state_path


def sign(functions: Sequence[str], ray: str | None = None) -> str | None:
    """The signature over these names, and that of the cluster; None where there are none, or where no secret can be kept
    here."""
    secret = _secret() if functions else None
    if secret is None:
        return None
    names = functions if ray is None else (*functions, f"--ray {ray}")
    return hmac.new(secret, "\n".join(names).encode(), hashlib.sha256).hexdigest()


def is_signed(names: Sequence[str], found: str | None, ray: str | None) -> bool:
    """Whether this signature is that of these names, and this cluster, made here."""
    own = sign(names, ray)
    return own is not None and found is not None and hmac.compare_digest(own, found)


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
