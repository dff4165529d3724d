"""What real providers and gateways send and mean, as data with its sources.

Each `*.toml` in this package is one table: a comment or a `source` beside each line says where the fact was read. The
parts that use a table (`limits`, `retry`, `replies`, prices) compile it once and keep no knowledge of their own. A user
adds lines in `batchrun.toml`, in tables of the same names.
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

ANY = "any"
"""The dialect of a provider that nothing is known of."""


@cache
def table(name: str) -> dict[str, Any]:
    """The built-in table of that name, as TOML has it. Raises FileNotFoundError where there is none."""
    return tomllib.loads(resources.files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8"))


def dialect_of(base_url: str, otherwise: str) -> str:
    """The dialect that is spoken at an address, by `hosts` of the table `answers`; `otherwise` for an unknown host."""
    host = base_url.split("//", 1)[-1].split("/", 1)[0].rsplit("@", 1)[-1].split(":", 1)[0].lower()
    hosts: Mapping[str, str] = table("answers")["hosts"]
    labels = host.split(".")
    names = (".".join(labels[place:]) for place in range(len(labels)))
    return next((hosts[name] for name in names if name in hosts), otherwise)
