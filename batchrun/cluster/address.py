"""Where a Ray cluster is, and why it cannot be joined, in words for the user."""

import importlib.util
import os
import re
import socket
from pathlib import Path

from batchrun.display import printable
from batchrun.errors import RefusedError

AUTO = "auto"
"""The cluster that this machine is a node of."""
JOIN = 30.0
"""Seconds that joining may take, once something listens at the address."""
CONNECT = 3.0
"""Seconds for a first connection to the address."""
_CURRENT = Path("/tmp/ray/ray_current_cluster")  # noqa: S108  where Ray keeps it
_VERSIONS = re.compile(r"Ray: (\S+)\s+Python: (\S+)")


def found(address: str) -> str:
    """The address that this one means. Raises RefusedError where it is `auto`, and this machine is a node of no cluster."""
    if address != AUTO:
        return address
    address = os.environ.get("RAY_ADDRESS", "")
    if not address and _CURRENT.is_file():
        address = _CURRENT.read_text(encoding="utf-8").strip()
    if address and address != AUTO:
        return address
    raise RefusedError(
        "--ray auto: this machine is no node of a Ray cluster",
        "start one with `ray start --head`, or name one that this machine has joined: --ray HOST:PORT",
    )


def check_address(address: str) -> None:
    """Raises RefusedError where Ray is not installed, or nothing listens at the address. Ray itself would try for many
    minutes."""
    if importlib.util.find_spec("ray") is None:
        raise RefusedError(
            'a Ray cluster needs ray (the extra "ray"), which is not installed.',
            "pip install ray; with uv tool, install batchrun again with --with ray",
        )
    address = found(address)
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT).close()
    except (OSError, ValueError, OverflowError) as error:
        said = "it is not HOST:PORT" if isinstance(error, ValueError | OverflowError) else error.strerror or error
        raise RefusedError(
            f"no Ray cluster at {printable(address, 100)}: {said}",
            "name the address of its head, as `ray start --head` prints it, such as --ray HOST:6379",
        ) from error


def refusal_of(address: str, error: Exception) -> RefusedError:
    """Why the cluster cannot be joined, in words for the user."""
    text = str(error)
    where = f"the Ray cluster at {printable(address, 100)}"
    versions = _VERSIONS.findall(text)
    if isinstance(error, TimeoutError) or "No node info found" in text:
        return RefusedError(
            f"{where} cannot be joined: nothing answered as Ray within {JOIN:.0f} s",
            "--ray is the address of the head (HOST:6379, not the dashboard's), and this machine has to be a node of the "
            "cluster: `ray start --address=HOST:PORT`",
        )
    if "Version mismatch" in text and len(versions) == 2:
        (ray, python), (own_ray, own_python) = versions
        return RefusedError(
            f"{where} has Ray {ray} on Python {python}, and batchrun runs Ray {own_ray} on Python {own_python}",
            "both must be equal to the last number: install batchrun under the cluster's Python, with its ray",
        )
    if "uthenticat" in text:
        return RefusedError(
            f"{where} asks for a token", "put it where Ray looks for it: RAY_AUTH_TOKEN, or ~/.ray/auth_token"
        )
    said = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return RefusedError(f"{where} cannot be joined: {printable(said, 300)}", "its head's log says more")
