"""The named statements of `queries.sql`.

The file holds blocks that begin with a line `-- name: NAME`, and may go on in comments before the statement. `{NAME}` in
a block stands for the text of an earlier one, so that a condition that several statements share stands once.
"""

import re
from functools import cache
from importlib import resources

_BLOCK = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_PART = re.compile(r"\{(\w+)\}")


def sql(name: str) -> str:
    """The statement of that name. Raises KeyError where there is none."""
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
