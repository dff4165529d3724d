"""The built-in functions of `--post`."""

import contextlib
import json as jsons
import re
from collections.abc import Callable
from typing import Any

from batchrun import extraction
from batchrun.post.reply import Reply

_FOOTNOTE = re.compile(r"\[\s*\d+(?:\s*[,-]\s*\d+)*\s*\]")
_ONLY_BETWEEN = re.compile(r"[\s,;]*")


def json(reply: Reply) -> Any:
    """Find the JSON in the text, inside or outside a code block, repair it if it is broken, and return its value.

    Tries the text, the text after the model's thinking, the last code block, the last complete value. A broken value is
    repaired only if it is the only one. Raises ValueError.
    """
    text = reply.text
    answer = extraction.split(text).answer
    for candidate in (text, answer, extraction.last_fence(answer)):
        if candidate is not None:
            with contextlib.suppress(ValueError, RecursionError):
                return jsons.loads(candidate, parse_constant=_refuse)
    return _last_value(extraction.last_fence(answer) or answer)


def strip(reply: Reply) -> str:
    """Remove white space at both ends of the text."""
    return reply.text.strip()


def lines(reply: Reply) -> list[str]:
    """Return the lines of the text as a list, without blank lines and without white space at both ends."""
    return [line for line in map(str.strip, reply.text.split("\n")) if line]


def markdown(reply: Reply) -> str:
    """Remove the code fence: return the content of the first code block, or the whole text if there is none."""
    found = extraction.first_fence(reply.text)
    return reply.text.strip() if found is None else found


BUILT_IN: dict[str, Callable[[Reply], Any]] = {
    "json": json,
    "strip": strip,
    "lines": lines,
    "markdown": markdown,
}


def _last_value(text: str) -> Any:
    # the last whole value among words, or the only one, repaired
    blocks = extraction.blocks(text)
    found = [text[block.start : block.end] for block in blocks]
    if len(found) > 1 and blocks[-1].closed and not _ONLY_BETWEEN.fullmatch(_between(text, blocks)):
        values = [value for value in found if not _FOOTNOTE.fullmatch(value)] or found
        with contextlib.suppress(ValueError, RecursionError):
            return jsons.loads(values[-1], parse_constant=_refuse)
    loose = extraction.blocks(text, loose=True)
    if len(loose) > 1:
        raise ValueError(
            f"there are {len(loose)} values in the reply, and it is unclear which one is meant: {text[:80]!r}"
        )
    if not loose:
        raise ValueError(f"there is no JSON in the reply: {text[:80]!r}")
    return _repaired(text[loose[0].start :])


def _between(text: str, blocks: list[extraction.Block]) -> str:
    ends = [0, *(block.end for block in blocks)]
    starts = [*(block.start for block in blocks), len(text)]
    return "".join(text[end:start] for end, start in zip(ends, starts, strict=True))


def _repaired(text: str) -> Any:
    from json_repair import repair_json  # noqa: PLC0415  only for a reply that is not JSON

    value = repair_json(text, return_objects=True, skip_json_loads=True)
    if not isinstance(value, dict | list):
        raise ValueError(f"the reply cannot be repaired to JSON: {text[:80]!r}")
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
