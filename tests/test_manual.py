"""The users' documents against the program: every command, option, key and name in them exists."""

import asyncio
import inspect
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

import batchrun
from batchrun import sim
from batchrun.cli import program
from batchrun.engine import steer
from batchrun.plan.config import OF_PROFILES, read_files
from batchrun.plan.settings import OPTIONS
from batchrun.progress import Progress
from batchrun.report import observers

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    ROOT / "examples/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
OF_OTHERS = {
    "ray start": {"head", "address", "num-cpus", "include-dashboard", "disable-usage-stats"}
    | {f"{what}-port" for what in ("min-worker", "max-worker", "node-manager", "object-manager")},
    "inference servers": {"enable-metrics", "metrics"},
    "benchmarks": {"rounds", "then"},
    "a notifier": {"to"},
}
"""Options of other programs that the documents name."""


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def section(name: str, title: str) -> str:
    """The text below a heading, up to the next one."""
    return re.split(r"^## ", text(name).partition(f"\n## {title}\n")[2], flags=re.MULTILINE)[0]


def first_cells(table: str) -> set[str]:
    """The names in the first column of its tables."""
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)}


def commands(document: Path) -> list[str]:
    """What follows `batchrun` in code, without the words that explain it."""
    source = re.sub(r"\\\n\s*", "", document.read_text(encoding="utf-8"))
    lines = re.findall(r"^(?: {4}|\$ |.*&& )(.*)$", source, re.MULTILINE)
    code = [
        *(line for line in lines if re.search(r"(?:^|&& |[A-Z] )batchrun ", line)),
        *re.findall(r"`([^`\n]+)`", source),
    ]
    found = [re.fullmatch(r"(?:.*&& |[A-Z_]+=\S+ )?(?:\$ )?batchrun( .*)?", each) for each in code]
    return [re.split(r" {2,}| #| [|>] | && |;", (each[1] or "").strip())[0] for each in found if each]


COMMANDS = sorted({(document.name, command) for document in DOCUMENTS for command in commands(document)})


def test_the_commands_of_the_documents_are_found() -> None:
    assert len(COMMANDS) > 100
    assert ("README.md", "resume NAME --failed") in COMMANDS


@pytest.mark.parametrize(("document", "command"), COMMANDS)
def test_every_command_of_the_documents_can_be_typed(document: str, command: str) -> None:
    words = [word for word in shlex.split(command) if word not in ("--help", "…")] or ["app"]
    name = words.pop(0) if words[0] in program.commands else "run"
    if words and words[-1] == "--post":
        words.append("FUNCTION")
    required = {"export", "steer", "import", "rm"} & {name} and not words
    if not required:
        program.commands[name].make_context(name, words)


def test_every_option_of_the_documents_exists() -> None:
    known = {name for command in program.commands.values() for param in command.params for name in param.opts}
    known |= {f"--{name}" for names in OF_OTHERS.values() for name in names} | {"--help", "--version"}
    named = {
        (path.name, name)
        for path in DOCUMENTS
        for name in re.findall(r"(?<![\w-])--[a-z][a-z-]+", path.read_text("utf-8"))
    }
    assert {(path, name) for path, name in named if name not in known} == set()


def test_every_key_of_the_configuration_in_the_documents_exists() -> None:
    options = section("docs/configuration.md", "Options")
    keys = {
        name
        for row in re.findall(r"^\| .+? \| (`.+?) \|", options, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert keys <= set(OPTIONS)
    profile = first_cells(section("docs/configuration.md", "A file"))
    assert profile == set(OF_PROFILES)


def test_the_app_has_the_keys_that_its_page_names() -> None:
    rows = re.findall(r"^\| `(\w+\.)` \| (.*) \|$", section("docs/app.md", "Settings"), re.MULTILINE)
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "batchrun/tui").rglob("*.py"))
    assert {prefix + name for prefix, names in rows for name in names.split(", ")} == set(
        re.findall(r'\bid="(\w+\.\w+)"', sources)
    )


async def test_the_page_of_the_simulator_has_its_settings_and_statistics() -> None:
    settings = (
        section("docs/sim.md", "Settings") + section("docs/sim.md", "Files and batches").partition("Faults with")[0]
    )
    assert first_cells(settings) == {field.name for field in fields(sim.Settings)}
    control = section("docs/sim.md", "Control and statistics").partition("| statistics |")[2]
    async with sim.running(sim.Settings()) as server:
        assert first_cells(control) == set(await asyncio.to_thread(sim.stats, server.base_url))


def test_the_page_about_operation_has_every_metric_and_every_field_of_the_status() -> None:
    page = text("docs/operation.md")
    picture = Progress(causes={"x": 1}, rows=1, started=0.0, now=1.0)
    metrics = {metric.name for metric in observers._metrics(picture, 0.0)}
    assert set(re.findall(r"`(batchrun_\w+)`", page)) == metrics
    fields_of_status = set(re.findall(r'^ +"(\w+)": ', inspect.getsource(steer.status_of), re.MULTILINE))
    assert first_cells(page.partition("`status` has:")[2].partition("## ")[0]) == fields_of_status


def test_the_map_of_the_architecture_has_every_module() -> None:
    package = Path(batchrun.__file__).parent
    modules = {path.stem for path in package.iterdir() if path.name[0] not in "_." and path.suffix in ("", ".py")}
    lines = [line[4:] for line in section("ARCHITECTURE.md", "Modules").split("\n") if line.startswith("    ")]
    named = {name for line in lines for name in re.split(r" {2,}", line)[0].split()}
    assert named == modules
    engine = re.search(r"^engine (.*?)^progress", "\n".join(lines), re.DOTALL | re.MULTILINE)
    assert engine
    assert set(re.findall(r"\w+", engine[1])) == {path.stem for path in (package / "engine").glob("[a-z]*.py")}


def test_links_to_a_heading_find_it() -> None:
    def slug(title: str) -> str:
        return re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-")

    headings = {
        path: {slug(title) for title in re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)}
        for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
    }
    broken = {
        f"{path.name}: {name}#{heading}"
        for path in headings
        for name, heading in re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", path.read_text(encoding="utf-8"))
        if heading not in headings.get((path.parent / name).resolve() if name else path, set())
    }
    assert broken == set()


@pytest.mark.parametrize("name", ["configuration", "cost", "media", "scale", "app", "sim"])
def test_the_tables_of_a_page_are_configuration_that_is_taken(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them in one file, in the order of the page."""
    page = text(f"docs/{name}.md")
    fenced = re.findall(r"^```toml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    indented = [
        re.sub(r"^ {4}", "", block, flags=re.MULTILINE)
        for block in re.findall(r"(?:^ {4}.+\n|^\n(?= {4}))+", page, re.MULTILINE)
        if block.lstrip().startswith("[") and "=" in block
    ]
    tables: dict[str, str] = {}
    for block in [*fenced, *indented]:
        for title, body in re.findall(r"^(\[.*\]|)\n?((?:(?!\[).*\n)*)", block, re.MULTILINE):
            tables[title if not title.startswith("[[") else f"{title} {len(tables)}"] = body
    assert tables
    (tmp_path / "batchrun.toml").write_text("".join(f"{title.split(' ')[0]}\n{body}" for title, body in tables.items()))
    monkeypatch.chdir(tmp_path)
    assert read_files(OPTIONS)
