"""Batches by hand: the requests of pending rows as files, and result files of every kind taken in. No provider is called."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE

from batchrun.cli import main
from batchrun.engine.resume import prepare_import
from batchrun.journal import Reader

Result = dict[str, Any]


@dataclass
class Said:
    """How a command ended, and what it said."""

    code: int
    err: str


@pytest.fixture(autouse=True)
def _alone(alone: None) -> None:
    Path("say.md").write_text("Say {{ text }}")


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def run(*args: str) -> Said:
        capsys.readouterr()
        code = main([*args])
        return Said(code, capsys.readouterr().err)

    return run


def write(rows: int, *more: str) -> list[str]:
    """An input of so many rows; the words of the command that takes them in and sends nothing."""
    Path("in.jsonl").write_text(
        "".join(json.dumps({"id": f"r{n}", "text": f"t{n}"}) + "\n" for n in range(1, rows + 1))
    )
    return ["-i", "in.jsonl", "-p", "say.md", "-P", "vllm", "-m", "m", "-o", "out.jsonl", "--limit", "0", *more]


def requests(folder: str = "out") -> list[dict[str, Any]]:
    """All lines of the request files."""
    return [json.loads(line) for path in sorted(Path(folder).iterdir()) for line in path.read_text().splitlines()]


def answered(request: dict[str, Any], said: str | None = None, status: int = 200) -> Result:
    """The line of a result as OpenAI writes it."""
    text = said or request["body"]["messages"][0]["content"].upper()
    choices = [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
    body = {"id": "c", "choices": choices, "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    failed = {"error": {"message": "no such thing", "code": "invalid_value"}}
    response = {"status_code": status, "request_id": "q", "body": body if status == 200 else failed}
    return {"id": "batch_req_1", "custom_id": request["custom_id"], "response": response, "error": None}


def results(name: str, lines: list[Result | str]) -> str:
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    Path(name).write_text("".join(text + "\n" for text in texts))
    return name


def outputs(name: str = "out.jsonl") -> dict[str, str]:
    """What each row got, by id, in the order of the file."""
    return {line["id"]: line["output"] for line in map(json.loads, Path(name).read_text().splitlines())}


def journaled() -> list[Any]:
    """What the journal holds of rows and attempts."""
    (path,) = [path for path in Path(".batchrun").glob("*.db") if path.name != "registry.db"]
    with Reader.open(path) as reader:
        rows = [record._asdict() for record in reader.export_rows()]
        return [reader.totals, rows, [reader.attempts(row["seq"]) for row in rows]]


def test_a_run_by_hand_from_the_command_line() -> None:
    """Requests out, results in: in another order, in two parts, with lines of others, and everything twice."""

    def ran(*args: str) -> Said:
        command = [sys.executable, "-m", "batchrun", *args]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        return Said(done.returncode, done.stderr)

    assert ran(*write(6)).code == 0
    said = ran("export", "last", "--batch-requests", "out")
    assert (said.code, "(6 rows" in said.err, "batchrun import out.jsonl FILE…" in said.err) == (0, True, True)
    lines = [answered(request) for request in reversed(requests())]
    first = results("first.jsonl", [*lines[:2], {"custom_id": "somebody-1-1", "response": None}, '{"custom_id": "cut'])
    said = ran("import", "out.jsonl", first)
    assert (said.code, Path("out.jsonl").exists()) == (7, False)
    assert "results of 2 rows imported; 1 line of other runs ignored; 1 line incomplete, ignored" in said.err
    assert outputs("out.jsonl.partial") == {"r5": "SAY T5", "r6": "SAY T6"}
    said = ran("import", "out.jsonl", results("rest.jsonl", lines[1:]), first)
    assert (said.code, "results of 4 rows imported; 3 lines imported before" in said.err) == (0, True)
    assert list(outputs().items()) == [(f"r{n}", f"SAY T{n}") for n in range(1, 7)]


def test_a_second_import_changes_nothing(here: Callable[..., Said]) -> None:
    here(*write(4))
    here("export", "last", "--batch-requests", "out")
    asked = requests()
    lines: list[Result | str] = [answered(asked[0]), answered(asked[1], status=400), answered(asked[2], status=500)]
    lines.append({"custom_id": asked[3]["custom_id"], "response": None, "error": {"code": "batch_expired"}})
    name = results("all.jsonl", lines)
    assert here("import", "last", name).code == 7
    before = journaled()
    said = here("import", "last", name)
    assert (said.code, "nothing new; 4 lines imported before" in said.err) == (7, True)
    assert journaled() == before
    assert (before[0].done, before[0].failed, before[0].pending) == (1, 1, 2)


def test_a_row_that_is_answered_twice_counts_once_and_says_so(here: Callable[..., Said]) -> None:
    here(*write(2))
    here("export", "last", "--batch-requests", "out")
    asked = requests()
    lines: list[Result | str] = [answered(asked[0], "ONE"), answered(asked[0], "TWO"), answered(asked[1])]
    said = here("import", "last", results("all.jsonl", lines))
    assert (said.code, "1 line for rows that have a reply already" in said.err) == (0, True)
    said = here("import", "last", results("again.jsonl", [answered(asked[1], "LATE")]))
    assert (said.code, "1 line for rows that have a reply already" in said.err) == (0, True)
    assert outputs() == {"r1": "ONE", "r2": "SAY T2"}


def test_a_reply_counts_more_than_a_failure_whichever_comes_first(here: Callable[..., Said]) -> None:
    here(*write(2))
    here("export", "last", "--batch-requests", "out")
    one, two = requests()
    errors = results("errors.jsonl", [answered(one, status=400), answered(two, status=400)])
    assert here("import", "last", errors, results("output.jsonl", [answered(one)])).code == 3
    assert outputs() == {"r1": "SAY T1"}
    assert here("import", "last", results("later.jsonl", [answered(two)])).code == 0
    assert outputs() == {"r1": "SAY T1", "r2": "SAY T2"}


def test_request_files_are_split_by_what_the_vendor_takes(here: Callable[..., Said]) -> None:
    Path("batchrun.toml").write_text("[batches.any]\nlines = 10\n")
    here(*write(20))
    said = here("export", "last", "--batch-requests", "out")
    assert said.err.count("batchrun: wrote out/") == 3
    counts = [len(path.read_text().splitlines()) for path in sorted(Path("out").iterdir())]
    assert (counts, len({line["custom_id"] for line in requests()})) == ([9, 9, 2], 20)
    here("import", "last", results("some.jsonl", [answered(line) for line in requests()[:12]]))
    here("export", "last", "--batch-requests", "out")
    assert [len(path.read_text().splitlines()) for path in sorted(Path("out").iterdir())] == [8]


def test_requests_are_split_by_endpoint_and_model_and_spelled_as_the_vendor_takes_them(
    here: Callable[..., Said],
) -> None:
    def line(name: str, model: str, url: str = "/v1/chat/completions") -> str:
        body = {"model": model, "messages": [{"role": "user", "content": "x"}]}
        return json.dumps({"custom_id": name, "method": "POST", "url": url, "body": body}) + "\n"

    Path("in.jsonl").write_text(line("a", "m1") + line("b", "m2") + line("c", "m1") + line("d", "m1", "/v1/responses"))
    here("-i", "in.jsonl", "-P", "vllm", "-o", "out.jsonl", "--limit", "0")
    here("export", "last", "--batch-requests", "out")
    found = [[json.loads(each) for each in path.read_text().splitlines()] for path in sorted(Path("out").iterdir())]
    assert sorted((len(each), each[0]["url"], each[0]["body"]["model"]) for each in found) == [
        (1, "/v1/chat/completions", "m2"),
        (1, "/v1/responses", "m1"),
        (2, "/v1/chat/completions", "m1"),
    ]
    here(*write(1, "--max-output-tokens", "5", "--fresh"))
    here("export", "last", "--batch-requests", "other")
    assert requests("other")[0]["body"]["max_tokens"] == 5


def test_equal_requests_are_written_once_where_they_are_sent_once(here: Callable[..., Said]) -> None:
    words = write(3, "--dedupe")
    Path("in.jsonl").write_text('{"id": "a", "text": "x"}\n{"id": "b", "text": "x"}\n{"id": "c", "text": "y"}\n')
    here(*words)
    here("export", "last", "--batch-requests", "out")
    assert here("import", "last", results("all.jsonl", [answered(each) for each in requests()])).code == 0
    assert (len(requests()), outputs()) == (2, {"a": "SAY X", "b": "SAY X", "c": "SAY Y"})


def test_results_of_anthropics_shape_are_read(here: Callable[..., Said]) -> None:
    here(*write(2))
    here("export", "last", "--batch-requests", "out")
    one, two = (request["custom_id"] for request in requests())
    message = {"content": [{"type": "text", "text": "HI"}], "stop_reason": "end_turn", "usage": {"output_tokens": 1}}
    lines: list[Result | str] = [{"custom_id": one, "result": {"type": "succeeded", "message": message}}]
    lines.append({"custom_id": two, "result": {"type": "expired"}})
    assert here("import", "last", results("all.jsonl", lines)).code == 7
    assert outputs("out.jsonl.partial") == {"r1": "HI"}


def test_a_kill_while_results_are_taken_in_loses_none(here: Callable[..., Said]) -> None:
    here(*write(3))
    here("export", "last", "--batch-requests", "out")
    name = results("all.jsonl", [answered(request) for request in requests()])
    prepared, _ = prepare_import("last", {}, [name])

    async def begin() -> None:
        """The tickets are committed, and the process ends."""
        prepared.journal.start()
        for part in prepared.parts:
            await prepared.journal.plan(part.ticket, part.leases())

    asyncio.run(begin())
    prepared.close()
    assert journaled()[0].in_batches == 3
    said = here("import", "last", name)
    assert (said.code, outputs()) == (0, {"r1": "SAY T1", "r2": "SAY T2", "r3": "SAY T3"})
    assert [len(each) for each in journaled()[2]] == [1, 1, 1]


def test_results_of_a_batch_that_is_open_can_be_brought_by_hand(here: Callable[..., Said]) -> None:
    """Somebody has fetched the files of the run's own batch: its rows are answered, and the batch brings nothing more."""
    words = [*write(3)[:-2], "--batch", "--batch-detach", "-P", "sim"]
    assert here(*words).code == 7
    (path,) = [path for path in Path(".batchrun").glob("*.db") if path.name != "registry.db"]
    asked = [{"custom_id": f"{path.stem}-{n}-1", "body": {"messages": [{"content": f"t{n}"}]}} for n in (1, 2, 3)]
    assert here("import", "last", results("all.jsonl", [answered(each) for each in asked])).code == 0
    assert (list(outputs().values()), journaled()[0].in_batches) == (["T1", "T2", "T3"], 0)
    assert [len(each) for each in journaled()[2]] == [1, 1, 1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["import", "last", "nowhere.jsonl"], "nowhere.jsonl: No such file"),
        (["import", "last", "."], "Is a directory"),
        (["import", "last"], "FILE…"),
        (["export", "last", "--batch-requests", "out", "--failed"], "--batch-requests writes only requests"),
    ],
)
def test_what_cannot_be_meant_is_refused(here: Callable[..., Said], words: list[str], said: str) -> None:
    here(*write(1))
    found = here(*words)
    assert (found.code, said in found.err) == (2, True), found.err
