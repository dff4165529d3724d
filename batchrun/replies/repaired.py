"""JSON that the fast parser refuses though it can be read safely.

A byte order mark before it; half of a surrogate pair among the escapes of a string, where a model was cut between two
tokens; NaN and Infinity, which are no JSON but what several servers write into log probabilities and counts. Such a
body was paid for, and asking again would be paid again. Only the copy that is read is made valid: the journal keeps
what was received.
"""

import json
import re
from typing import Any, NamedTuple

import orjson

from batchrun.replies.wrapping import unwrapped

_LONE = re.compile("[\ud800-\udfff]")
_SIGNS = ("\\ud", "\\uD", "NaN", "Infinity")


class Repaired(NamedTuple):
    """A body as valid JSON: U+FFFD for each half of a pair and, if there were `numbers`, null for each that is none."""

    text: str
    data: Any
    numbers: bool


def repaired(body: bytes | str) -> Repaired | None:
    """The body as valid JSON, None where it cannot be read safely."""
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
    """The body of a reply as JSON that every parser takes, out of its wrapping; as it is where it is that already, or
    none at all."""
    if body[:1] == "{" and body[-1:] == "}" and not any(sign in body for sign in _SIGNS):
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
