"""JSON without its long strings: what a body says of itself, beside a picture of two megabytes that it carries.

To parse a long body for its model and its limits costs more than to send it. Nearly all of it are a few long strings,
and what lies between two quotation marks is found at the speed of the memory.
"""

from typing import Any, cast

import orjson

LONG = 4096
"""Characters between two quotation marks from which on they are left out."""
_WORTH = 4 * LONG


def outlined(text: str) -> str:
    """The text without what is long between two quotation marks; the backslashes before the second one stay.

    Inside of a string that shortens it. Outside, where nothing but arrays of numbers and blanks are so long, two strings
    then follow each other, which is no JSON.
    """
    if len(text) < _WORTH:
        return text
    parts = text.split('"')
    return '"'.join([part if len(part) < LONG else part[len(part.rstrip("\\")) :] for part in parts])


def outline(text: str | bytes) -> dict[str, Any]:
    """The object that a valid text is, its long strings cut short. Integers beyond 64 bits are floats here."""
    if isinstance(text, bytes):
        text = text.decode()
    short = outlined(text)
    try:
        return cast("dict[str, Any]", orjson.loads(short))
    except orjson.JSONDecodeError:
        return cast("dict[str, Any]", orjson.loads(text))
