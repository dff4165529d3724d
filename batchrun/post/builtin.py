"""The functions that `--post` knows by a bare name."""

import json as jsons
import re
from collections.abc import Callable
from typing import Any

from batchrun.post.reply import Reply

_FENCE = re.compile(
    r"^[ \t]*(`{3,}|~{3,})[^\n`]*\n(?P<body>.*?)(?:\n[ \t]*\1[`~]*[ \t]*$|\Z)", re.DOTALL | re.MULTILINE
)


def json(reply: Reply) -> Any:
    """Find the JSON in the text, in or out of a code fence, repair it where it is broken, and return its value."""
    text = _unfenced(reply.text)
    try:
        return jsons.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return _repaired(text)


def strip(reply: Reply) -> str:
    """Take white space off both ends of the text."""
    return reply.text.strip()


def lines(reply: Reply) -> list[str]:
    """Return the lines of the text as a list, without blank ones and without white space at their ends."""
    return [line for line in map(str.strip, reply.text.split("\n")) if line]


def markdown(reply: Reply) -> str:
    """Take the code fence away: the content of the first fenced block, or the whole text where there is none."""
    return _unfenced(reply.text)


BUILT_IN: dict[str, Callable[[Reply], Any]] = {
    "json": json,
    "strip": strip,
    "lines": lines,
    "markdown": markdown,
}


def _unfenced(text: str) -> str:
    found = _FENCE.search(text)
    return (found["body"] if found else text).strip()


def _repaired(text: str) -> Any:
    from json_repair import repair_json  # noqa: PLC0415  only for a reply that is not JSON as it stands

    start = min((place for place in (text.find("{"), text.find("[")) if place >= 0), default=-1)
    if start < 0:
        raise ValueError(f"there is no JSON in the reply: {text[:80]!r}")
    value = repair_json(text[start:], return_objects=True, skip_json_loads=True)
    if not isinstance(value, dict | list):
        raise ValueError(f"the reply cannot be repaired to JSON: {text[:80]!r}")
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
