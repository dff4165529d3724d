"""Signs the functions and clusters of a plan, so that a journal from elsewhere cannot select code to run or a place to
send keys to: an HMAC with a secret of this user on this machine."""

import contextlib
import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from platformdirs import user_state_path


def sign(functions: Sequence[str], ray: str | None = None) -> str | None:
    """The signature; None without names, or if no secret can be kept."""
    secret = _secret() if functions else None
    if secret is None:
        return None
    names = functions if ray is None else (*functions, f"--ray {ray}")
    return hmac.new(secret, "\n".join(names).encode(), hashlib.sha256).hexdigest()


def is_signed(names: Sequence[str], found: str | None, ray: str | None) -> bool:
    """Whether the signature was made here for these names and this cluster."""
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
