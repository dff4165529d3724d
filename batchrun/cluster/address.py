"""The address of a Ray cluster, and errors if it cannot be joined."""

import errno
import importlib.util
import os
import re
import socket
from pathlib import Path

from batchrun.display import printable
from batchrun.errors import RefusedError

AUTO = "auto"  # the cluster that this machine is a node of
JOIN = 30.0  # seconds to join, once something listens at the address
CONNECT = 3.0  # seconds for the first connection, and for its answer
# what HTTP/2 clients, such as gRPC's, send first: preface and empty SETTINGS (RFC 9113, section 3.4)
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS = 4  # the type, in its fourth byte, of the first frame of such a server (section 4.1)
_CURRENT = Path("/tmp/ray/ray_current_cluster")  # noqa: S108  where Ray keeps it
_VERSIONS = re.compile(r"Ray: (\S+)\s+Python: (\S+)")


def found(address: str) -> str:
    """Raises RefusedError for `auto` outside a node."""
    if address != AUTO:
        return address
    address = os.environ.get("RAY_ADDRESS", "")
    if not address and _CURRENT.is_file():
        address = _CURRENT.read_text(encoding="utf-8").strip()
    if address and address != AUTO:
        return address
    raise RefusedError(
        "--ray auto: this machine is not a node of a Ray cluster",
        "start one with `ray start --head`, or name one that this machine has joined: --ray HOST:PORT",
    )


def check_address(address: str) -> None:
    """Raises RefusedError without Ray, or without a head (which uses gRPC) there."""
    if importlib.util.find_spec("ray") is None:
        raise RefusedError(
            'a Ray cluster needs ray (the extra "ray"), which is not installed.',
            "pip install ray; with uv tool, install batchrun again with --with ray",
        )
    address = found(address)
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT) as connection:
            if os.environ.get("RAY_USE_TLS", "0") not in ("0", ""):
                return
            connection.settimeout(CONNECT)
            connection.sendall(_PREFACE)
            if connection.makefile("rb").read(9)[3:4] != bytes([_SETTINGS]):
                raise OSError(errno.EPROTO, "the server there is not Ray")
    except (OSError, ValueError, OverflowError) as error:
        reason = "it is not HOST:PORT" if isinstance(error, ValueError | OverflowError) else error.strerror or error
        raise RefusedError(
            f"no Ray cluster at {printable(address, 100)}: {reason}",
            "name the address of its head, as `ray start --head` prints it, such as --ray HOST:6379",
        ) from error


def refusal_of(address: str, error: Exception) -> RefusedError:
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
            "both versions must match exactly: install batchrun under the cluster's Python, with its ray",
        )
    if "uthenticat" in text:
        return RefusedError(f"{where} requires a token", "set RAY_AUTH_TOKEN, or write the token to ~/.ray/auth_token")
    reason = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return RefusedError(f"{where} cannot be joined: {printable(reason, 300)}", "see the log of the cluster's head")
