"""From what the user chose to a run that can begin: what is refused, what goes on, what is left behind."""

import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchrun import registry, rows
from batchrun.engine.export import export
from batchrun.engine.ingest import Problems
from batchrun.engine.request_stats import dry_run
from batchrun.engine.resume import prepare_resume
from batchrun.engine.start import Prepared, prepare
from batchrun.errors import BatchrunError, BusyError, InputError, RefusedError, StorageError
from batchrun.events import Event, Notice
from batchrun.journal import End, Journal, Reader
from batchrun.models import Outcome, State
from batchrun.plan.sources import gather

ROWS = [{"id": f"r{n}", "text": f"text {n}"} for n in range(1, 6)]
Told = list[Event]


@pytest.fixture(autouse=True)
def _alone(alone: None) -> None:
    asking("Say {{ text }}")
    given(ROWS)


def asking(prompt: str) -> None:
    Path("p.md").write_text(prompt)


def given(rows: list[dict[str, Any]], name: str = "in.jsonl") -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def prepared(told: Told | None = None, **flags: Any) -> Prepared:
    flags = {"input": "in.jsonl", "prompt": "p.md", "profile": "sim", "output": "out.jsonl", **flags}
    return prepare(gather(flags), (told if told is not None else []).append)


def test_an_output_that_cannot_be_written_here_is_refused_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepared(output="out.parquet").close()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "extra" in refused(output="new.parquet").message
    with pytest.raises(RefusedError, match="extra"):
        prepare_resume("out.parquet", {}, failed=False)


def test_a_cluster_that_is_not_there_is_refused_before_a_run_goes_on() -> None:
    prepared().close()
    cluster = {"post": ("strip",), "workers": "ray", "ray": "127.0.0.1:1"}
    for again in (lambda: prepare_resume("last", cluster, failed=False), lambda: prepared(**cluster)):
        with pytest.raises(RefusedError, match=r"no Ray cluster at 127\.0\.0\.1:1"):
            again()
    prepared().close()


def refused(**flags: Any) -> BatchrunError:
    with pytest.raises(BatchrunError) as caught:
        prepared(**flags).close()
    return caught.value


async def finished(run: Prepared, *rows: int) -> None:
    """The rows at these positions answered, all that are pending by default; then the run is closed."""
    journal = run.journal
    wanted = [row for row in journal.pending() if not rows or row.position in rows]
    journal.start()
    for row in wanted:
        number = row.history.number + 1
        await journal.begin(row.seq, number)
        body = json.dumps({"choices": [{"message": {"content": "said"}, "finish_reason": "stop"}]})
        await journal.end(row.seq, number, End(200, 0.1), body)
        await journal.finish(row.seq, Outcome(State.DONE, True, None, None, frozenset(), None))
    run.close(0)


def pending(run: Prepared) -> list[str]:
    keys = [row.key for row in run.journal.pending()]
    run.close()
    return keys


@pytest.fixture
def left() -> Iterator[None]:
    """Nothing but locks and the ignore file may be left of a run that was refused."""
    yield
    directory = Path(".batchrun")
    names = set(os.listdir(directory)) if directory.exists() else set()
    assert names <= {".gitignore", "registry.lock"}


def test_a_run_is_made_and_filled() -> None:
    run = prepared()
    assert run.journal.totals.rows == 5
    assert run.plan.simulated
    assert pending(run) == ["r1", "r2", "r3", "r4", "r5"]
    assert run.run.output == Path("out.jsonl") or run.run.output == Path.cwd() / "out.jsonl"


@pytest.mark.usefixtures("left")
def test_every_bad_line_is_named_and_none_is_sent() -> None:
    Path("in.jsonl").write_text('{"text": "a"}\n{"text": }\n{"other": 1}\n[]\n{"text": "b"}\n')
    error = refused()
    assert isinstance(error, InputError)
    for said in ("3 rows cannot be sent", "line 2:", "line 3:", "line 4:"):
        assert said in error.message
    assert "--skip-invalid" in (error.hint or "")


def test_what_all_bad_lines_need_is_the_hint() -> None:
    problems = Problems(lambda line: f"line {line}")
    problems.add(1, "`stream` is not supported", hint="Remove `stream`.")
    problems.add(2, "`stream` is not supported", hint="Remove `stream`.")
    with pytest.raises(InputError) as caught:
        problems.refuse("in.jsonl", skip_invalid=False)
    assert caught.value.hint == "Remove `stream`, or skip these lines with --skip-invalid; nothing was sent"
    problems.add(3, "not JSON")
    with pytest.raises(InputError) as caught:
        problems.refuse("in.jsonl", skip_invalid=False)
    assert caught.value.hint == "fix these lines, or skip them with --skip-invalid; nothing was sent"


def test_bad_lines_can_be_skipped_and_are_counted() -> None:
    Path("in.jsonl").write_text('{"text": "a"}\n{"text": }\n{"other": 1}\n')
    run = prepared(skip_invalid=True)
    assert (run.journal.totals.rows, run.journal.totals.skipped) == (3, 2)
    run.close()


def test_the_errors_file_has_all_of_what_was_skipped(tmp_path: Path) -> None:
    broken = '{"text": "' + "long " * 200_000
    Path("in.jsonl").write_bytes(f'{broken}\n{{"other": 1.10}}\n{{"text": "caf'.encode() + b'\xe9"}\n{"text": "a"}\n')
    run = prepared(skip_invalid=True)
    with Reader.open(run.journal.path) as reader:
        export(run.plan, reader, tmp_path / "out", errors=tmp_path / "errors")
    run.close()
    cut, unfilled, foreign = (tmp_path / "errors").read_text().splitlines()
    said = json.loads(cut)["_batchrun"]
    assert (said["cause"], said["line"], said["text"]) == ("invalid line", 1, broken)
    assert unfilled.startswith('{"other": 1.10,"_batchrun":{"cause":"invalid line","message":"no value for `text`')
    assert json.loads(foreign)["_batchrun"]["text"].encode("latin-1") == b'{"text": "caf\xe9"}'
    found = rows.open_input(str(tmp_path / "errors"), has_prompt=True)
    assert [row.text for row in found] == ['{"other": 1.10}']


@pytest.mark.usefixtures("left")
def test_many_bad_lines_are_counted_beyond_the_first() -> None:
    Path("in.jsonl").write_text('{"text": "a"}\n' + "x\n" * 50)
    assert "… and 30 more" in refused().message


@pytest.mark.usefixtures("left")
@pytest.mark.parametrize("skip", [False, True])
def test_a_mixed_input_is_refused_with_its_lines(skip: bool) -> None:
    lines = [{"custom_id": "a", "body": {"model": "m", "messages": []}, "url": "/v1/chat/completions"}, {"text": "x"}]
    given(lines)
    with pytest.raises(InputError, match="line 2"):
        prepare(gather({"input": "in.jsonl", "profile": "sim", "skip_invalid": skip}), [].append)


@pytest.mark.usefixtures("left")
def test_ids_that_are_not_unique_are_refused_with_both_lines() -> None:
    given([*ROWS, ROWS[1]])
    error = refused()
    assert "2" in error.message
    assert "6" in error.message


@pytest.mark.usefixtures("left")
def test_a_column_that_clashes_with_the_output_is_refused_in_whichever_row() -> None:
    assert "output" in refused(**_with([*ROWS, {"text": "x", "output": "mine"}])).message
    late = [{"id": f"r{n}", "text": "x"} for n in range(150)] + [{"id": "late", "text": "x", "output": "mine"}]
    error = refused(**_with(late))
    assert "line 151: already has a column output" in error.message
    assert "--output-column" in error.message


def _with(rows: list[dict[str, Any]]) -> dict[str, Any]:
    given(rows)
    return {}


def test_the_output_column_can_be_another() -> None:
    given([*ROWS, {"id": "x", "text": "x", "output": "mine"}])
    run = prepared(output_column="answer")
    assert run.plan.output_column == "answer"
    run.close()


@pytest.mark.usefixtures("left")
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"prompt": "nowhere.md"}, "nowhere.md"),
        ({"input": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"output": "nowhere/out.jsonl"}, "no such directory"),
        ({"output": "."}, "is a directory"),
        ({"output": "in.jsonl"}, "would overwrite"),
        ({"columns": ["text=nope"]}, "nope"),
        ({"id_column": "nope"}, "nope"),
        ({"output_column": "_batchrun"}, "_batchrun is reserved for errors files"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_leaves_nothing(flags: dict[str, Any], said: str) -> None:
    error = refused(**flags)
    assert isinstance(error, RefusedError)
    assert said in error.message
    assert sorted(path.name for path in Path().glob("*")) == ["in.jsonl", "p.md"] or Path(".batchrun").exists()
    assert not Path("nowhere").exists()


class Stdin(io.TextIOWrapper):
    def __init__(self, text: str) -> None:
        super().__init__(io.BytesIO(text.encode()))


def test_a_stream_is_spooled_only_until_it_is_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(Path("in.jsonl").read_text()))
    run = prepared(input="-")
    assert pending(run) == ["r1", "r2", "r3", "r4", "r5"]
    assert not list(Path(".batchrun").glob("*.spool"))


@pytest.mark.usefixtures("left")
def test_a_stream_that_is_refused_leaves_no_spool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin('{"text": }\n{}\n' + Path("in.jsonl").read_text()))
    assert isinstance(refused(input="-"), InputError)
    monkeypatch.setattr(sys, "stdin", Stdin(Path("in.jsonl").read_text()))
    assert "no such directory" in refused(input="-", output="nowhere/out.jsonl").message
    assert not Path("nowhere").exists()


async def test_the_same_command_again_has_nothing_to_send() -> None:
    await finished(prepared())
    told: Told = []
    assert pending(prepared(told)) == []
    assert not [event for event in told if isinstance(event, Notice)]


async def test_inserted_deleted_and_reordered_rows_cost_only_the_new_ones() -> None:
    await finished(prepared())
    new = [{"id": f"n{n}", "text": "new"} for n in range(3)]
    given([new[0], ROWS[4], ROWS[1], new[1], ROWS[0], new[2]])
    told: Told = []
    run = prepared(told)
    assert (run.journal.totals.rows, run.journal.totals.done) == (6, 3)
    assert pending(run) == ["n0", "n1", "n2"]
    (notice,) = [event for event in told if isinstance(event, Notice)]
    assert "3 new" in notice.message
    assert "2 no longer in the input" in notice.message


async def test_a_changed_prompt_is_named_and_refused_until_update_or_fresh() -> None:
    await finished(prepared(), 1, 2)
    asking("Tell {{ text }}")
    error = refused()
    assert isinstance(error, RefusedError)
    assert "the prompt (Say {{ text }} → Tell {{ text }}) changed" in error.message
    assert "2 already done would be sent again" in error.message
    assert "--update" in (error.hint or "")
    asking("Say {{ text }}")
    assert pending(prepared()) == ["r3", "r4", "r5"]
    asking("Tell {{ text }}")
    assert len(pending(prepared(update=True))) == 5


async def test_fresh_begins_a_run_of_its_own() -> None:
    first = prepared()
    await finished(first)
    second = prepared(fresh=True)
    assert second.run.id != first.run.id
    assert len(pending(second)) == 5
    assert registry.find("out.jsonl", None).id == second.run.id


async def test_one_changed_row_is_named_by_its_line() -> None:
    await finished(prepared())
    given([*ROWS[:3], {"id": "r4", "text": "other"}, ROWS[4]])
    assert "line 4" in refused().message
    assert pending(prepared(update=True)) == ["r4"]


async def test_rows_that_nothing_was_paid_for_follow_the_new_prompt() -> None:
    await finished(prepared(), 1)
    given([ROWS[0], {"id": "r2", "text": "other"}, *ROWS[2:]])
    assert pending(prepared()) == ["r2", "r3", "r4", "r5"]


def test_simulated_and_real_replies_never_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    prepared().close()
    error = refused(profile="openai", model="m")
    assert "has simulated replies" in error.message
    assert "--fresh" in (error.hint or "")
    with pytest.raises(RefusedError, match="simulated"):
        prepare_resume("last", {"profile": "openai"}, failed=False)


def test_an_output_that_belongs_to_no_run_is_not_overwritten() -> None:
    Path("out.jsonl").write_text("precious")
    assert "belongs to no run" in refused().message
    assert Path("out.jsonl").read_text() == "precious"
    prepared(fresh=True).close()


def test_a_damaged_journal_of_the_output_is_not_passed_over() -> None:
    run = prepared()
    run.close()
    run.journal.path.write_bytes(b"SQLite format 3\0" + b"\0" * 4000)
    assert isinstance(refused(), StorageError)
    prepared(fresh=True).close()


def test_two_processes_on_one_run() -> None:
    run = prepared()
    error = refused()
    assert isinstance(error, BusyError)
    assert str(os.getpid()) in error.message
    with pytest.raises(BusyError):
        prepare_resume("last", {}, failed=False)
    assert isinstance(refused(fresh=True), BusyError)
    run.close()
    prepared().close()


def test_who_only_looks_does_not_keep_a_run_from_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepared()
    run.close()
    looking = registry.held(run.run.path)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        looking.release()

    monkeypatch.setattr("batchrun.registry.time.sleep", wait)
    prepared().close()
    assert len(waits) == 1
    assert waits[0] < 0.1


def test_an_intake_that_was_cut_short_starts_over() -> None:
    run = prepared()
    run.close()
    journal = Journal.open(run.run.path)
    journal._connection.execute("UPDATE meta SET value = 'begun' WHERE name = 'intake'")
    journal.close()
    with pytest.raises(RefusedError, match="was stopped while its input was read"):
        prepare_resume("last", {}, failed=False)
    assert len(pending(prepared())) == 5


async def test_resume_reads_neither_input_nor_prompt() -> None:
    await finished(prepared(), 1)
    os.unlink("in.jsonl")
    os.unlink("p.md")
    run, gathered = prepare_resume("out.jsonl", {"concurrency": "3"}, failed=False)
    assert run.plan.concurrency == 3
    assert gathered.settings.concurrency == 3
    assert pending(run) == ["r2", "r3", "r4", "r5"]


async def test_resume_sends_what_failed_for_good_only_where_that_is_asked_for() -> None:
    run = prepared()
    journal = run.journal
    journal.start()
    for seq, permanent in ((1, True), (2, False)):
        await journal.begin(seq, 1)
        await journal.end(seq, 1, End(400, 0.1, "400"))
        await journal.finish(seq, Outcome(State.FAILED, permanent, "400", "bad", frozenset(), None))
    run.close(3)
    assert pending(prepare_resume("last", {}, failed=False)[0]) == ["r2", "r3", "r4", "r5"]
    assert len(pending(prepare_resume("last", {}, failed=True)[0])) == 5


def test_a_dry_run_makes_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    found = dry_run(gather({"input": "in.jsonl", "prompt": "p.md", "profile": "sim", "dry_run": True}), [].append)
    assert (found.rows, found.skipped) == (5, 0)
    assert found.first is not None
    assert json.loads(found.first.body)["messages"][0]["content"] == "Say text 1"
    assert sorted(os.listdir()) == ["in.jsonl", "p.md"]


def test_a_device_as_output_keeps_its_journal_here() -> None:
    run = prepared(output="/dev/null", format="jsonl")
    assert run.run.path.parent.resolve() == (Path.cwd() / ".batchrun").resolve()
    run.close()
