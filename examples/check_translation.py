"""Checks of a translation, for `--post examples/check_translation.py:check`.

A translation that drops a number, a placeholder or half of the text reads well and is wrong. `check` adds columns
that say so, and `strict` fails the row instead, so that it stands in the errors file.
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
    """The numbers in a text, without the signs that group or divide digits, which differ between languages."""
    plain = PLACEHOLDER.sub(" ", text)
    return Counter(re.sub(r"\D", "", number) for number in NUMBER.findall(plain))


def check(reply: Reply) -> dict[str, Any]:
    """What is missing of numbers and placeholders, and how long the translation is beside its source."""
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
    """The same, but a translation that is not complete fails its row."""
    found = check(reply)
    if not found["complete"]:
        raise ValueError(f"missing: {found['missing']}, length ratio {found['length_ratio']}, finish {reply.finish}")
    return found
