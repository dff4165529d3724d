"""The example of post-processing does what its documentation says."""

from pathlib import Path
from typing import Any

import pytest

from batchrun.post import Item, Reply
from batchrun.post.chain import Chain
from batchrun.post.load import load
from batchrun.post.reply import Shard

CHECK = Path(__file__).parent.parent / "examples" / "check_translation.py"
FUNCTION = load([f"{CHECK}:check"])[0].make()


@pytest.mark.parametrize(
    ("source", "text", "missing"),
    [
        ("Article 12 of 30", "Artikel 12 von 30", []),
        ("1,234.5 km in 2026", "1.234,5 km im Jahr 2026", []),
        ("1,234 people", "1 234 personnes".replace(" ", "\u202f", 1), []),
        ("12 apples and 12 pears", "12 Äpfel und Birnen", ["12"]),
        ("Hello {name}, {{ count }} <b>new</b> %s", "Hallo {name}, <b>neue</b>", ["%s"]),
        ("Hello {name}", "Hallo Name", ["{name}"]),
        ("Room {1} costs 20", "Zimmer {1} kostet", ["20"]),
    ],
)
def test_lost_numbers_and_placeholders_are_named(source: str, text: str, missing: list[str]) -> None:
    found: dict[str, Any] = FUNCTION(Reply(text, {"text": source}))
    assert (found["missing"], found["complete"]) == (missing, not missing)


def test_a_translation_that_is_cut_is_not_complete() -> None:
    assert not FUNCTION(Reply("Tous les", {"text": "All of them"}, finish="length"))["complete"]
    assert not FUNCTION(Reply("x", {"text": "A long sentence"}))["complete"]
    assert FUNCTION(Reply("eine Zeile", {"text": "one line"}))["length_ratio"] == 1.25


def test_strict_fails_the_row_instead() -> None:
    chain = Chain(load([f"{CHECK}:strict"]), batch=False)
    good, bad = chain.run(Shard([Item("7 Tage", '{"text": "7 days"}'), Item("Tage", '{"text": "7 days"}')])).results
    assert "added" in good._fields
    assert "missing: ['7']" in bad.message
