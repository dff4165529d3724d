"""Checks of a translation, for `--post examples/check_translation.py:check`.

A translation can read well and still lack a number, a placeholder or half of the text. `check` adds columns that show
this. `strict` fails the row instead, so it is written to the errors file.
"""

import re
from collections import Counter
from typing import Any

from batchrun.post import Reply

NUMBER = re.compile(r"\d+(?:[.,'\u202f\u00a0]\d+)*")
PLACEHOLDER = re.compile(r"\{\{?\w+\}?\}|%\(\w+\)[sd]|%[sd]|<\w+/?>|</\w+>|\$\{\w+\}")
SOURCE = "text"
"""The column that was translated."""


def numbers(text: str) -> Counter[str]:
    """The numbers in a text, without separators, which differ between languages."""
    plain = PLACEHOLDER.sub(" ", text)
    return Counter(re.sub(r"\D", "", number) for number in NUMBER.findall(plain))


def check(reply: Reply) -> dict[str, Any]:
    """The missing numbers and placeholders, and the length of the translation divided by that of its source."""
    source = str(reply.fields[SOURCE])
    lost_numbers = numbers(source) - numbers(reply.text)
    lost_placeholders = Counter(PLACEHOLDER.findall(source)) - Counter(PLACEHOLDER.findall(reply.text))
    ratio = len(reply.text) / max(1, len(source))
    return {
        "missing": sorted([*lost_numbers.elements(), *lost_placeholders.elements()]),
        "length_ratio": round(ratio, 2),
        "complete": not lost_numbers and not lost_placeholders and ratio > 0.2 and reply.finish != "length",
    }


def strict(reply: Reply) -> dict[str, Any]:
    """As `check`, but an incomplete translation fails its row."""
    found = check(reply)
    if not found["complete"]:
        raise ValueError(f"missing: {found['missing']}, length ratio {found['length_ratio']}, finish {reply.finish}")
    return found
