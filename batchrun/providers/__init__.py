"""What providers and gateways send and mean, as tables with sources. Users add lines in `batchrun.toml`."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

ANY = "any"  # the dialect of an unknown provider


@cache
def table(name: str) -> dict[str, Any]:
    """Raises FileNotFoundError."""
    return tomllib.loads(resources.files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8"))


def dialect_of(base_url: str, otherwise: str) -> str:
    """By the table `hosts`."""
    host = base_url.split("//", 1)[-1].split("/", 1)[0].rsplit("@", 1)[-1].split(":", 1)[0].lower()
    hosts: Mapping[str, str] = table("hosts")["hosts"]
    labels = host.split(".")
    names = (".".join(labels[place:]) for place in range(len(labels)))
    return next((hosts[name] for name in names if name in hosts), otherwise)
