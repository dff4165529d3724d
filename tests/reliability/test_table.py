"""The table of docs/reliability.md against the tests, so that it cannot lie."""

import ast
import re
from functools import cache

from program import ROOT

CASES = {"K": 17, "F": 12, "S": 36, "I": 16, "X": 18}
IDS = [f"{letter}{number}" for letter, count in CASES.items() for number in range(1, count + 1)]
ROW = re.compile(r"^\| ([KFSIX]\d+) \| (.+?) \| (.+) \|$", re.MULTILINE)


@cache
def table() -> dict[str, str]:
    """The proof of each case by its id."""
    found = ROW.findall((ROOT / "docs" / "reliability.md").read_text(encoding="utf-8"))
    assert [name for name, _, _ in found] == IDS
    return {name: proof for name, _, proof in found}


@cache
def every_test() -> set[str]:
    """The names of all tests."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "tests").rglob("test_*.py")]
    functions = [
        node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return {function.name for function in functions if function.name.startswith("test_")}


def ids_of(test: str) -> set[str]:
    """The cases that a test names: `test_K4_K5_a_torn…` K4 and K5, `test_S10_to_S20_…` both ends."""
    return set(re.findall(r"(?<=_)[KFSIX]\d+(?=_)", test))


def test_every_case_has_a_test_that_exists_or_says_why_not() -> None:
    for name, proof in table().items():
        named = re.findall(r"`(test_\w+)`", proof)
        assert named or proof.startswith("no test: "), name
        assert set(named) <= every_test(), (name, set(named) - every_test())


def test_every_test_of_a_case_stands_in_its_row() -> None:
    missing = [(name, test) for test in every_test() for name in ids_of(test) if f"`{test}`" not in table()[name]]
    assert missing == []


def test_few_cases_are_without_a_test() -> None:
    assert len([name for name, proof in table().items() if proof.startswith("no test: ")]) <= 4
