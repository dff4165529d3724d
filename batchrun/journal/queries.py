"""The named statements of `queries.sql`."""

# A block begins with `-- name: NAME`; `{NAME}` stands for the text of an earlier block.

import re
from functools import cache
from importlib import resources

_BLOCK = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_PART = re.compile(r"\{(\w+)\}")


def sql(name: str) -> str:
    return _statements()[name]


@cache
def _statements() -> dict[str, str]:
    text = resources.files("batchrun.journal").joinpath("queries.sql").read_text(encoding="utf-8")
    _, *blocks = _BLOCK.split(text)
    known: dict[str, str] = {}
    for name, block in zip(blocks[::2], blocks[1::2], strict=True):
        lines = [line for line in block.strip().splitlines() if not line.startswith("--")]
        known[name] = _PART.sub(lambda part: known[part[1]], "\n".join(lines).rstrip(";"))
    return known
