"""What providers and gateways send and mean, as tables with sources.

The parts that use a table compile it once and have no such knowledge of their own. Users add lines in `batchrun.toml`.
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

ANY = "any"
"""The dialect of an unknown provider."""


@cache
def table(name: str) -> dict[str, Any]:
    """The built-in table of that name. Raises FileNotFoundError."""
    return tomllib.loads(resources.files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8"))


def dialect_of(base_url: str, otherwise: str) -> str:
    """The dialect of an address by `hosts` of the table `answers`, or `otherwise`."""
    host = base_url.split("//", 1)[-1].split("/", 1)[0].rsplit("@", 1)[-1].split(":", 1)[0].lower()
    hosts: Mapping[str, str] = table("answers")["hosts"]
    labels = host.split(".")
    names = (".".join(labels[place:]) for place in range(len(labels)))
    return next((hosts[name] for name in names if name in hosts), otherwise)
