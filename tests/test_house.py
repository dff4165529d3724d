"""The conventions of the house, kept by running them."""

import ast
import importlib
import re
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

import batchrun

ROOT = Path(__file__).parent.parent
PACKAGE = sorted((ROOT / "batchrun").rglob("*.py"))
SOURCES = [*PACKAGE, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))]
DOCUMENTS = [*ROOT.glob("*.md"), *(path for name in ("docs", "examples") for path in (ROOT / name).rglob("*.md"))]
REQUIREMENTS = sorted((ROOT / "requirements").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

MODULES_TO_AVOID = {"utils", "helpers", "common", "core", "base", "manager"}
UNSAFE_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle"}
UNSAFE_CALLS = {"eval", "exec", "__import__", "os.system", "os.popen"}
UNSAFE_LOADERS = {"yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load"}
UNFINISHED_TESTS = {"skip", "skipif", "xfail", "importorskip"}
EXCUSE = re.compile(r"#\s*(?:noqa|type:\s*ignore|pyright:\s*ignore)")
EXCUSE_WITH_REASON = re.compile(
    r"#\s*(?:noqa:\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*|(?:type|pyright):\s*ignore\[[\w, -]+\])\W+\w.{3,}"
)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def lines(offenders: Iterable[str]) -> str:
    """Each offender on a line of its own, so that a failing comparison with "" shows them all."""
    return "\n".join(sorted(offenders))


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT).as_posix()}:{line}"


def dotted(node: ast.expr) -> str:
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    return {node.module.split(".")[0]} if isinstance(node, ast.ImportFrom) and node.module else set()


def is_true(node: ast.expr) -> bool:
    return not (isinstance(node, ast.Constant) and not node.value)


def unsafe(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """What can run data as code: pickle and its kin, eval, unsafe YAML, a shell."""
    for node in ast.walk(tree):
        for name in imported(node) & UNSAFE_MODULES:
            yield node.lineno, f"import {name}"
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in UNSAFE_CALLS | UNSAFE_LOADERS:
                yield node.lineno, name
            if any(keyword.arg == "shell" and is_true(keyword.value) for keyword in node.keywords):
                yield node.lineno, "shell=True"


def unfinished(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Skipped tests, and tests that wait for real time to pass."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and dotted(node).startswith("pytest.") and node.attr in UNFINISHED_TESTS:
            yield node.lineno, dotted(node)
        if isinstance(node, ast.Call) and dotted(node.func) == "time.sleep":
            yield node.lineno, "time.sleep"


def requirements_of(path: Path) -> dict[str, str]:
    """Each requirement of a pinned file by name: its version, marker and hashes as one line."""
    text = re.sub(r"\\\n\s*", "", path.read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {re.split(r"[=<>\[ ;]", line, maxsplit=1)[0]: line for line in lines}


def test_functions_fit_on_a_screen():
    functions = [
        (path, node)
        for path in PACKAGE
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert len(functions) > 20
    long = [
        f"{place(path, node.lineno)} {node.name}" for path, node in functions if node.end_lineno - node.lineno >= 50
    ]
    assert lines(long) == ""


PREDICATE = re.compile(r"_*(is|has|may|can|needs|fits|barred)(_|$)")


def test_predicates_write_no_state():
    """What is asked twice has the same answer: whoever performs it records why it waits."""
    functions = [
        (path, node)
        for path in PACKAGE
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and PREDICATE.match(node.name)
    ]
    assert len(functions) > 50
    writing = [
        f"{place(path, target.lineno)} {node.name}: {ast.unparse(target)}"
        for path, node in functions
        for part in ast.walk(node)
        if isinstance(part, ast.Assign | ast.AugAssign | ast.AnnAssign)
        for target in (part.targets if isinstance(part, ast.Assign) else [part.target])
        if any(isinstance(leaf, ast.Attribute) and isinstance(leaf.ctx, ast.Store) for leaf in ast.walk(target))
    ]
    assert lines(writing) == ""


def test_files_stay_small():
    sizes = {place(path, 1): len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE}
    assert lines(f"{name} {size}" for name, size in sizes.items() if size > 450) == ""


def test_modules_are_named_after_what_they_hold():
    assert lines(place(path, 1) for path in SOURCES if MODULES_TO_AVOID & set(path.with_suffix("").parts)) == ""


def test_every_module_says_what_it_is_for():
    assert lines(place(path, 1) for path in PACKAGE if not ast.get_docstring(tree_of(path))) == ""


def test_nothing_runs_data_as_code():
    assert lines(f"{place(path, line)} {what}" for path in SOURCES for line, what in unsafe(tree_of(path))) == ""


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from shelve import open",
        "import os\nos.system('ls')",
        "eval('1')",
        "yaml.load(text, Loader=yaml.Loader)",
        "run('ls', shell=True)",
        "run('ls', shell=flag)",
    ],
)
def test_the_search_for_data_run_as_code_finds_it(source: str):
    assert list(unsafe(ast.parse(source)))


def test_the_search_for_data_run_as_code_lets_safe_calls_pass():
    assert list(unsafe(ast.parse("re.compile('a'); yaml.safe_load(text); run(['ls'], shell=False)"))) == []


def test_what_the_package_claims_of_its_types_holds_where_it_is_installed():
    assert '"Typing :: Typed"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert (ROOT / "batchrun" / "py.typed").is_file()  # PEP 561: without it checkers take all of it for Any


def test_no_test_is_skipped_or_sleeps():
    tests = [path for path in SOURCES if path.is_relative_to(ROOT / "tests")]
    assert lines(f"{place(path, line)} {what}" for path in tests for line, what in unfinished(tree_of(path))) == ""
    assert len(list(unfinished(ast.parse("@pytest.mark.xfail\ndef test(): time.sleep(1)")))) == 2


def test_every_exception_to_a_rule_has_a_code_and_a_reason():
    numbered = [
        (place(path, number), line)
        for path in PACKAGE
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    ]
    assert lines(where for where, line in numbered if EXCUSE.search(line) and not EXCUSE_WITH_REASON.search(line)) == ""


@pytest.mark.parametrize("comment", ["# noqa", "# noqa: S603", "# type: ignore", "# pyright: ignore[reportUnknown]"])
def test_a_bare_exception_to_a_rule_is_found(comment: str):
    assert EXCUSE.search(comment)
    assert not EXCUSE_WITH_REASON.search(comment)
    assert EXCUSE_WITH_REASON.search("x()  # noqa: S603  the user's own command")


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_requirements_are_pinned_and_hashed_and_name_no_host(path: Path):
    pinned = requirements_of(path)
    assert pinned
    assert lines(name for name, line in pinned.items() if "==" not in line or "--hash=sha256:" not in line) == ""
    text = path.read_text(encoding="utf-8")
    assert (
        lines(re.findall(r".*://.*|.*--(?:index|extra|find|trusted).*|.* @ .*|.*[ =]/.*|.*\b[A-Z]:\\\\.*", text)) == ""
    )


def test_requirements_cover_the_project_and_agree():
    files = {path.stem: requirements_of(path) for path in REQUIREMENTS}
    assert files.keys() == {"runtime", "dev", "uv"}
    assert {name: files["dev"].get(name) for name in files["runtime"]} == files["runtime"]
    project = PROJECT["project"]
    assert names(project["dependencies"]) | names(project["optional-dependencies"]["data"]) <= files["runtime"].keys()
    assert names(PROJECT["dependency-groups"]["dev"]) <= files["dev"].keys()


def names(requirements: list[str]) -> set[str]:
    """The names as the index writes them: lower case, one dash for each run of `-`, `_` and `.`."""
    return {re.sub(r"[-_.]+", "-", re.split(r"[\[<>=; ]", line, maxsplit=1)[0]).lower() for line in requirements}


def test_the_version_is_the_same_everywhere():
    assert PROJECT["project"]["name"] == batchrun.DISTRIBUTION
    assert f"dist/{batchrun.DISTRIBUTION.replace('-', '_')}-{batchrun.__version__}-py3" in (
        ROOT / "README.md"
    ).read_text("utf-8")
    assert f"## [{batchrun.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_named_tuples_that_are_made_of_their_values_have_all_of_them():
    """`models.made` counts no values, for speed: with one too few, reading the last member fails far away."""
    offenders: list[str] = []
    for path in PACKAGE:
        for node in ast.walk(tree_of(path)):
            if not (isinstance(node, ast.Call) and dotted(node.func) == "made" and len(node.args) == 2):
                continue
            made, values = node.args
            module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
            assert isinstance(values, ast.Tuple), place(path, node.lineno)
            starred = [each.value for each in values.elts if isinstance(each, ast.Starred)]
            count = len(values.elts) - len(starred) + sum(len(getattr(module, dotted(each))) for each in starred)
            if count != len(getattr(module, dotted(made))._fields):
                offenders.append(place(path, node.lineno))
    assert lines(offenders) == ""


def test_nothing_is_installed_by_the_name_of_another_program():
    command = re.compile(
        r"(?:pipx? install|uv tool install|uvx|pipx run|--from)[^\n#`]*?[\s'\"]batchrun(?![\w-])[^\n`]*"
    )
    allowed = re.compile(r"(?:--from|git\+)\S*|install batchrun again")
    texts = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *PACKAGE]
    found = [line for path in texts for line in command.findall(path.read_text("utf-8")) if not allowed.search(line)]
    assert found == []


def test_the_licence_is_there():
    assert PROJECT["project"]["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")


def test_links_between_documents_lead_somewhere():
    links = [
        (path, link)
        for path in DOCUMENTS
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
        if not re.match(r"[a-z]+:|\{\{", link)
    ]
    assert links
    broken = [f"{path.name}: {link}" for path, link in links if not (path.parent / link).exists()]
    assert lines(broken) == ""


def test_documents_name_only_targets_that_make_knows():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        (path.name, target)
        for path in DOCUMENTS
        for target in re.findall(r"`make ([a-z-]+)", path.read_text(encoding="utf-8"))
    }
    assert {name for name, _ in named} >= {"CONTRIBUTING.md"}
    assert {(name, target) for name, target in named if target not in targets} == set()


def test_make_alone_prints_the_list_of_targets():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.findall(r"^([a-z-]+):(?! =)", text, re.MULTILINE)[0] == "help"
