"""What real providers and gateways send and mean, as data with its sources.

Each `*.toml` in this package is one table: a comment or a `source` beside each line says where the fact was read. The
parts that use a table (`limits`, `retry`, `replies`, prices) compile it once and keep no knowledge of their own. A user
adds lines in `batchrun.toml`, in tables of the same names.
"""

import tomllib
from functools import cache
from importlib import resources
from typing import Any


@cache
def table(name: str) -> dict[str, Any]:
    """The built-in table of that name, as TOML has it. Raises FileNotFoundError where there is none."""
    return tomllib.loads(resources.files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8"))
