"""JSON that the fast parser refuses though it is safe to read.

A byte order mark; half of a surrogate pair, from a cut between two tokens; NaN and Infinity, which several servers write. Such a body
is paid for, so it is not requested again. The journal keeps the original.
"""

import json
import re
from typing import Any, NamedTuple

import orjson

from batchrun.replies.wrapping import unwrapped

_LONE = re.compile("[\ud800-\udfff]")
_SIGNS = ("\\ud", "\\uD", "NaN", "Infinity")
_CHARACTERS = ("\\", "N", "I")
"""One of each sign, for bodies from `_LONG` on: a sign takes as long to find in them as parsing them takes, and one character
a hundredth of that."""
_LONG = 4_000


class Repaired(NamedTuple):
    """A body with U+FFFD for each half pair and, with `numbers`, null for each NaN or Infinity."""

    text: str
    data: Any
    numbers: bool


def repaired(body: bytes | str) -> Repaired | None:
    """The repaired body, None where it cannot be read safely."""
    numbers: list[str] = []
    try:
        text = body if isinstance(body, str) else body.decode()
        data = json.loads(text.removeprefix("\ufeff"), parse_constant=numbers.append)
        spelled = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        spelled = _LONE.sub("\ufffd", spelled)
        return Repaired(spelled, orjson.loads(spelled), bool(numbers))
    except (ValueError, RecursionError):
        return None


def valid(body: str) -> str:
    """A reply's body as JSON for any parser; unchanged where it is valid, or no JSON."""
    signs = _SIGNS if len(body) < _LONG else _CHARACTERS
    if body[:1] == "{" and body[-1:] == "}" and not any(sign in body for sign in signs):
        return body
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        found = repaired(body)
        if found is not None:
            return found.text
        held = unwrapped(body)
        return body if held is None else orjson.dumps(held).decode()
    return body
