"""The command line as its users meet it: exit codes, what stands on stdout and stderr, and what help costs."""

import ast
import errno
import inspect
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import click
import pytest
from waiting import PATIENCE

from batchrun.cli import main, program
from batchrun.cli.options import RESUME, RUN
from batchrun.display import coloured
from batchrun.engine import budget_guard
from batchrun.engine import run as run_module
from batchrun.errors import ExitCode
from batchrun.plan.settings import OPTIONS, Settings, settings_of
from batchrun.prompts import load
from batchrun.retry import decision

CANARY = "sk-canary-0123456789abcdef"
HEAVY = {
    "aiohttp",
    "asyncio",
    "httpx2",
    "jinja2",
    "json_repair",
    "multiprocessing",
    "openai",
    "orjson",
    "pebble",
    "pydantic",
    "pydantic_settings",
    "textual",
    "tqdm",
    "yaml",
}
Ran = subprocess.CompletedProcess[str]


@pytest.fixture(autouse=True)
def _alone(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))


def batchrun(*args: str, options: tuple[str, ...] = (), **environment: str) -> Ran:
    command = [sys.executable, *options, "-m", "batchrun", *args]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("args", [("--help",), ("run", "--help"), ("--version",), ("resume", "-h"), ()])
def test_help_loads_nothing_heavy(args: tuple[str, ...]) -> None:
    ran = batchrun(*args, options=("-X", "importtime"))
    loaded = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in ran.stderr.splitlines() if "import time:" in line
    }
    assert "click" in loaded
    assert not loaded & HEAVY
    assert not set(re.findall(r"batchrun\.[\w.]+", ran.stderr)) & {
        "batchrun.plan.settings",
        "batchrun.engine",
    }


def test_looking_at_runs_loads_no_engine(tmp_path: Path) -> None:
    ran = batchrun("runs", "--runs-dir", str(tmp_path), options=("-X", "importtime"))
    assert "no runs here" in ran.stderr
    heavy = "|".join(HEAVY - {"asyncio", "sqlite3"})
    assert not re.findall(
        rf"\| +(?:{heavy}|batchrun\.engine|batchrun\.client|batchrun\.plan\.settings)$", ran.stderr, re.M
    )


def test_a_run_that_lost_its_texts_gives_its_replies_and_can_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_text(f'{{"id": "a", "text": "{"x" * 20_000}"}}\n{{"id": "b", "text": "short"}}\n')
    ran = batchrun("-i", "in.jsonl", "-p", "Echo {{ text }}", "-P", "sim", "-o", "out.jsonl", "-q")
    assert ran.returncode == ExitCode.OK, ran.stderr
    (texts,) = Path(".batchrun").glob("*.db-texts")
    texts.unlink()
    assert main(["runs"]) == ExitCode.OK
    told = capsys.readouterr().err
    assert texts.name in told
    assert "no runs here" not in told
    assert main(["export", "last", "-o", "saved.jsonl"]) == ExitCode.STORAGE
    assert "the 2 done rows that can be read; rows whose texts cannot be read have only" in capsys.readouterr().err
    assert [row.keys() for row in map(json.loads, Path("saved.jsonl").read_text().splitlines())] == [
        {"output"},
        {"id", "text", "output"},
    ]
    run = texts.name.removesuffix(".db-texts")
    assert main(["rm", run, run, "--yes"]) == ExitCode.OK
    assert capsys.readouterr().err.count("deleted") == 1
    assert {path.name for path in Path(".batchrun").iterdir()} == {".gitignore", "registry.lock"}


def test_a_run_loads_only_what_it_needs(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"custom_id": "a", "url": "/v1/chat/completions", "body": {"model": "m", "messages": []}}\n')
    ran = batchrun("-i", str(rows), "--base-url", "http://127.0.0.1:9/v1", "--limit", "0", options=("-X", "importtime"))
    assert "0 done" in ran.stderr, ran.stderr[-1000:]
    assert not re.findall(
        r"\| +(?:html\.parser|httpx2|openai|pydantic|pydantic_settings|textual|yaml)$", ran.stderr, re.M
    )


def test_help_begins_with_examples_and_names_every_exit_code() -> None:
    ran = batchrun("--help")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.index("Examples:") < ran.stdout.index("Commands:") < ran.stdout.index("Options:")
    codes = {int(code) for code in re.findall(r"^  (\d+)  ", ran.stdout.partition("Exit codes:")[2], re.MULTILINE)}
    assert codes == set(ExitCode)


@pytest.mark.parametrize("name", [*program.commands, "prompts show", "profiles show"])
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Usage: batchrun {name}" in shown
    assert "\nExamples:\n  " in shown
    assert not re.findall(r"^  [^- ].*$", shown.partition("\nOptions:\n")[2], re.MULTILINE), "an argument is no option"


EXAMPLES = [
    re.split(r" {2,}| [|>] | && ", example.partition("batchrun ")[2])[0]
    for command in (program, *program.commands.values())
    for example in command.examples  # type: ignore[attr-defined]  every command here is a HelpCommand
    if "batchrun " in example
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_of_help_are_commands_that_go_through(example: str) -> None:
    """With rows that have a column `text`, which is all that they suppose."""
    words = shlex.split(example) or ["app"]
    name = words.pop(0) if words[0] in program.commands else "run"
    said = program.commands[name].make_context(name, words).params
    if name in ("run", "plan") and said["prompt"] in ("translate", "summarize"):
        prompt = load(said["prompt"])
        given = {"text", *(text.partition("=")[0] for text in said["set"]), *prompt.defaults, *prompt.optional}
        assert prompt.variables <= given


def test_batchrun_alone_shows_help_and_is_refused() -> None:
    ran = batchrun()
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("Usage: batchrun")


def test_every_option_of_a_run_is_a_setting_and_the_reverse() -> None:
    assert {option.name for option in RUN} == set(OPTIONS) - {"sim", "notify_url"}
    assert {option.name for option in RESUME} < set(OPTIONS)


def test_help_tells_the_true_defaults() -> None:
    defaults = {field.name: field.default for field in fields(Settings)}
    numbers = [name for name, default in defaults.items() if default and type(default) in (int, float)]
    assert len(numbers) >= 6
    helps = {option.name: str(option.help) for option in RUN}
    for name in numbers:
        told = re.search(r"\[default: (\w+)\]", helps[name])
        assert told, name
        assert getattr(settings_of({name: told[1]}), name) == defaults[name], name


REFUSED = [
    (["--inptu", "x"], "unknown option: --inptu", "did you mean --input?"),
    (["run", "--concurency", "1"], "unknown option: --concurency", "did you mean --concurrency?"),
    (["runn"], "unknown command: runn", "did you mean run?"),
    (["prompts", "shw", "x"], "unknown command: shw", "did you mean show?"),
    (["profiles", "show", "opnai"], "unknown profile: opnai", "did you mean openai?"),
    (["prompts", "show", "translat"], "translat", "translate"),
    (["sim", "--falt", "503=1"], "unknown option: --falt", "did you mean --fault?"),
    (["sim", "--rpm", "many"], "--rpm must be a number, not many", ""),
    (["app", "-i", "x"], "app takes the input as an argument, without -i", "batchrun app [OPTIONS] [PROMPT] [INPUT]"),
    (["--api-key", CANARY, "--input", "x"], "--api-key does not exist", "set OPENAI_API_KEY"),
    ([f"--api-key={CANARY}"], "--api-key does not exist", "api_key_file"),
    (
        ["resume", "last", "--model", "m"],
        "--model is an option of run, not of resume",
        "repeat the command that started the run",
    ),
    (["run", "--zzzzz"], "unknown option: --zzzzz", "batchrun run --help"),
    (["--input"], "requires an argument", ""),
    (["--model", "--profile", "sim"], "--model needs a value, not --profile", ""),
    (["run", "rows.csv"], "unexpected extra argument (rows.csv)", "name the input by --input: a file"),
    (["-i", "a.md", "b.md"], "unexpected extra argument (b.md)", "a pattern in quotes, such as 'data/*.jsonl'"),
    (["-i", "a.csv", "--input", "b.csv"], "--input is given more than once: a.csv, b.csv", "a pattern in quotes"),
    (["-i", "a.csv", "-P", "sim", "--check", "foo,lines"], "--check: must be some of", "not 'foo,lines'"),
    (["--input", "x", "--timeout", "none"], "--timeout: must be a finite duration", ""),
    (["--input", "x", "--json", "-o", "-"], "--json and --output - exclude each other", ""),
    (["--profile", "sim"], "there is no input", "--input FILE"),
    (["--input", "x"], "no API key: OPENAI_API_KEY is not set", "--profile sim"),
    (["rm"], "no run is named", "batchrun rm RUN"),
    (["steer"], "missing argument 'RUN'", "batchrun steer --help"),
    (["import"], "missing argument 'RUN'", "batchrun import --help"),
    (["completion"], "Choose from: bash, zsh, fish, powershell", "batchrun completion --help"),
    (["check", "last", "--json"], "unknown option: --json", "batchrun check --help"),
    (["rm", "last", "--yse"], "unknown option: --yse", "did you mean --yes?"),
    (
        ["--input", "x", "--profile", "sim", "--ca-file", "none.pem"],
        "no such file of certificate authorities: none.pem",
        "",
    ),
    (["--input", "x", "--log-file", "/nowhere/log"], "cannot write the log file /nowhere/log", ""),
]


@pytest.mark.parametrize("args", [["runs", "--runs-dir", "x"], ["show", "x/y.jsonl"]])
@pytest.mark.parametrize("number", [errno.EACCES, errno.ENAMETOOLONG])
def test_a_path_that_may_not_be_read_is_named_and_is_no_bug(
    args: list[str], number: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(path: object, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "stat", closed)
    monkeypatch.setattr(os, "scandir", closed)
    assert main(args) == ExitCode.STORAGE
    assert re.search(rf"error: .*x.*: {os.strerror(number)}\n  hint: check the path", capsys.readouterr().err)


def test_a_place_that_cannot_be_made_is_named_and_is_no_bug(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for place in ("file", "file/folder"):
        assert main(["sim", "--state", str(tmp_path / place)]) == ExitCode.STORAGE
        assert "hint: check the path" in capsys.readouterr().err


@pytest.mark.parametrize(("args", "message", "hint"), REFUSED)
def test_a_mistake_is_refused_with_what_to_do_next(
    args: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == ExitCode.REFUSED
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("batchrun: error: ")
    assert message in err
    assert hint in err
    assert CANARY not in err
    assert "Traceback" not in err


def test_a_file_in_the_place_of_a_command_is_told_how_to_run_it(capsys: pytest.CaptureFixture[str]) -> None:
    Path("rows.csv").write_text("a\n1\n")
    assert main(["rows.csv"]) == ExitCode.REFUSED
    assert "batchrun --input rows.csv" in capsys.readouterr().err


def test_a_name_with_terminal_commands_is_shown_and_does_not_act(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--profile", "\x1b]0;owned\x07", "--input", "x"])
    assert "\x1b" not in capsys.readouterr().err


def test_options_alone_belong_to_run() -> None:
    ran, same = batchrun("--input", "x"), batchrun("run", "--input", "x")
    assert (ran.returncode, ran.stderr) == (same.returncode, same.stderr)


def _fails(error: BaseException) -> Callable[..., int]:
    def execute(*_: object) -> int:
        raise error

    return execute


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (BrokenPipeError(32, "Broken pipe"), ExitCode.BROKEN_PIPE),
        (OSError(28, "No space left on device"), ExitCode.STORAGE),
        (ZeroDivisionError(f"with {CANARY} in it"), ExitCode.UNEXPECTED),
    ],
)
def test_whatever_is_raised_has_an_exit_code_and_no_secret(
    error: BaseException, code: ExitCode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("batchrun.report.headless.run", _fails(error))
    Path("key").write_text(CANARY)
    config = Path(os.environ["XDG_CONFIG_HOME"]) / "batchrun/batchrun.toml"
    config.parent.mkdir(parents=True)
    config.write_text(
        "[profiles.own]\nbase_url='https://h/v1'\napi_key_file='/" + str(Path("key").resolve()).lstrip("/") + "'\n"
    )
    assert main(["--input", "x", "--profile", "own", "--log-file", "run.log"]) == code
    err = capsys.readouterr().err
    log = Path("run.log").read_text()
    assert CANARY not in err + log
    assert "Traceback" not in err
    assert ("Traceback" in log) == (code is ExitCode.UNEXPECTED)
    assert Path("run.log").stat().st_mode & 0o777 == 0o600


def test_a_reader_that_leaves_ends_the_command_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    ran = subprocess.run(
        [sys.executable, "-m", "batchrun", "profiles"],
        stdout=write,
        stderr=subprocess.PIPE,
        timeout=PATIENCE,
        check=False,
    )
    os.close(write)
    assert (ran.returncode, ran.stderr) == (ExitCode.BROKEN_PIPE, b"")


def test_a_full_disk_behind_stdout_is_told() -> None:
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "batchrun", "profiles"],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
            text=True,
        )
    assert ran.returncode == ExitCode.STORAGE
    assert ran.stderr.startswith("batchrun: error: cannot write: No space left on device")


@pytest.mark.parametrize("where", ["typed", "variable", "file"])
def test_runs_kept_elsewhere_are_found_there_and_the_last_word_says_how(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("rows.jsonl").write_text('{"text":"a"}\n{"text":"b"}\n')
    typed = ["--runs-dir", "kept"] if where == "typed" else []
    if where == "variable":
        monkeypatch.setenv("BATCHRUN_RUNS_DIR", "kept")
    if where == "file":
        Path("batchrun.toml").write_text('runs-dir = "kept"\n')
    begun = batchrun(
        "--input", "rows.jsonl", "--prompt", "summarize", "--profile", "sim", "--limit", "1", "--no-progress", *typed
    )
    assert begun.stderr.rstrip().endswith("resume with: batchrun resume rows.summarize.jsonl --runs-dir kept")
    assert "1/2 done" in batchrun("runs", *typed).stdout
    assert "--runs-dir kept" in batchrun("show", "rows.summarize.jsonl", *typed).stdout
    resumed = batchrun("resume", "rows.summarize.jsonl", *typed)
    assert (resumed.returncode, "2 done" in resumed.stderr) == (0, True)


def complete(line: str) -> list[str]:
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    ran = batchrun(_BATCHRUN_COMPLETE="bash_complete", **words)
    assert ran.stderr == ""
    return [shown.partition(",")[2] for shown in ran.stdout.splitlines()]


def test_the_shell_completes_commands_profiles_prompts_and_columns() -> None:
    Path("rows.csv").write_text("id,text,title\n1,a,b\n")
    assert complete("batchrun re") == ["resume", "report"]
    assert complete("batchrun --inp") == ["--input"]
    assert complete("batchrun --he") == ["--help", "--header"]
    assert complete("batchrun --input rows.csv --column body=t") == ["body=text", "body=title"]
    assert complete("batchrun run --profile o") == ["ollama", "openai", "openrouter"]
    assert "translate" in complete("batchrun run --prompt tr")
    assert complete("batchrun --prompt translate --set la") == ["language="]
    assert complete("batchrun --profile sim --model s") == ["simulated"]
    assert complete("batchrun run --input rows.csv --column body=t") == ["body=text", "body=title"]


@pytest.mark.parametrize(
    ("line", "word", "found"),
    [
        ("batchrun re", "re", ["plain,resume", "plain,report"]),
        ("batchrun run --profile o", "o", ["plain,ollama", "plain,openai", "plain,openrouter"]),
        ("batchrun run --profile ", "", None),
        ("batchrun run --output x", "x", ["file,x"]),
    ],
)
def test_powershell_completes_as_the_other_shells_do(line: str, word: str, found: list[str] | None) -> None:
    ran = batchrun(_BATCHRUN_COMPLETE="powershell_complete", COMP_WORDS=line, COMP_CWORD=word)
    assert ran.stderr == ""
    lines = ran.stdout.splitlines()
    assert lines == found if found is not None else "plain,sim" in lines


def test_errors_are_coloured_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert coloured(Screen())
    assert not coloured(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not coloured(Screen())
    assert "\x1b" not in batchrun("run", "--input", "none.jsonl").stderr


def test_a_completion_script_is_printed_for_each_shell(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("zsh", "fish", "powershell"):
        assert main(["completion", shell]) == 0
        assert "_BATCHRUN_COMPLETE" in capsys.readouterr().out


def test_profiles_are_listed_for_people_and_machines_without_keys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    assert main(["profiles", "show", "openai", "--json"]) == 0
    assert main(["profiles"]) == 0
    out = capsys.readouterr().out
    assert '"base_url": "https://api.openai.com/v1"' in out
    assert re.search(r"^groq +https://api\.groq\.com/openai/v1 +GROQ_API_KEY$", out, re.MULTILINE)
    assert CANARY not in out


def test_prompts_are_listed_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    Path("prompts").mkdir()
    Path("prompts/broken.md").write_text("{{")
    assert main(["prompts", "--json"]) == 0
    broken, *_, translate = map(json.loads, capsys.readouterr().out.splitlines())
    assert (broken["name"], broken["variables"], translate["error"]) == ("broken", [], None)
    assert "p" in broken["error"]
    assert translate["variables"] == ["language", "register", "text"]
    assert main(["prompts"]) == 0
    assert re.search(r"^translate +.*language", capsys.readouterr().out, re.MULTILINE)
    assert main(["prompts", "show", "translate"]) == 0
    assert capsys.readouterr().out.startswith("---\n")


def test_a_hint_in_a_run_names_no_option_that_resume_refuses_but_for_the_own_command_of_the_run() -> None:
    known = {name for option in RESUME for name in option.opts}
    for module in (decision, budget_guard, run_module):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            whole = isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and "[" not in str(node.value))
            text = ast.unparse(node) if whole and "own command" not in ast.unparse(node) else ""
            named = set(re.findall(r"--[a-z]+(?:-[a-z]+)*(?![-a-z])", text))
            assert named - known == set(), text


@pytest.mark.parametrize("command", ["resume", "post", "show", "export", "check", "rm", "report", "steer", "batches"])
def test_the_help_of_a_command_for_a_run_says_how_to_name_it(command: str) -> None:
    found = program.commands[command]
    assert (
        " ".join(found.get_help(click.Context(found)).split()).count(
            "RUN is a run id, a unique beginning of one, an output file, or last."
        )
        == 1
    )
