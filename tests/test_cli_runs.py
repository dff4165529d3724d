"""Whole runs from the command line, killed, stopped and gone on with; what was called is counted at the server."""

import contextlib
import csv
import json
import os
import random
import re
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE, read_up_to, wait_until

from batchrun import sim
from batchrun.cli import main
from batchrun.errors import ExitCode
from batchrun.journal import Reader

KEY = "sk-canary-0123456789abcdef"
ACCOUNT = re.compile(
    r"batchrun: (?P<done>[\d,]+) done.* \+ (?P<failed>[\d,]+) failed.* \+ (?P<skipped>[\d,]+) skipped"
    r" \+ (?P<unknown>[\d,]+) unknown \+ (?P<pending>[\d,]+) pending = (?P<rows>[\d,]+) input rows?(?P<rest>.*)"
)
Process = subprocess.Popen[str]
moment = threading.Event().wait
"""Time for other processes, whose clocks cannot be faked."""


@pytest.fixture(scope="session")
def base_url() -> Iterator[str]:
    """One provider for all runs: 10 ms, no limits."""
    with sim.spawn(sim.from_json({"latency": "0.01", "require_key": True})) as url:
        yield url


@pytest.fixture(autouse=True)
def _alone(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    Path("say.md").write_text("Say {{ text }}")


@dataclass
class Provider:
    """The server and what it had seen when the test began. Settings it is given hold for the test."""

    base_url: str

    def __post_init__(self) -> None:
        self.before = sim.stats(self.base_url)

    @property
    def calls(self) -> int:
        return sim.stats(self.base_url, prompts=False)["calls"] - self.before["calls"]

    def calls_of(self) -> Counter[str]:
        """Calls per request hash, which is the journal's too."""
        return Counter(sim.stats(self.base_url)["prompts"]) - Counter(self.before["prompts"])

    def args(self, *more: str, rows: str = "in.jsonl", output: str = "out.jsonl") -> list[str]:
        own = ["-i", rows, "-p", "say.md", "-m", "m", "--base-url", self.base_url, "-o", output]
        return [*own, *more]


@pytest.fixture
def provider(base_url: str) -> Iterator[Provider]:
    yield Provider(base_url)
    sim.change(base_url, latency="0.01", faults=[])


def given(count: int, name: str = "in.jsonl", start: int = 1) -> list[dict[str, Any]]:
    """Rows that no other test has."""
    mark = random.randbytes(6).hex()
    rows = [{"id": f"r{n}", "text": f"{mark} {n}."} for n in range(start, start + count)]
    write(rows, name)
    return rows


def write(rows: list[dict[str, Any]], name: str = "in.jsonl") -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def begun(*args: str, **options: Any) -> Process:
    """The process, begun from Python so that signals are not ignored."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options}
    process = subprocess.Popen([sys.executable, "-m", "batchrun", *args], text=True, **streams)
    _begun.append(process)
    return process


_begun: list[Process] = []


@pytest.fixture(autouse=True)
def _none_outlives_its_test() -> Iterator[None]:
    yield
    while _begun:
        process = _begun.pop()
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@dataclass
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def account(self) -> dict[str, int]:
        """The accounting sentence, which is the last line on stderr."""
        found = ACCOUNT.fullmatch(self.err.strip().splitlines()[-1])
        assert found, self.err
        counts = {name: int(text.replace(",", "")) for name, text in found.groupdict().items() if name != "rest"}
        assert sum(counts.values()) == 2 * counts["rows"]
        return counts

    @property
    def goes_on(self) -> str | None:
        found = re.search(r"; resume with: batchrun (.*)$", self.err.strip())
        return found and found[1]


def ended(process: Process, timeout: float = PATIENCE) -> Ran:
    out, err = process.communicate(timeout=timeout)
    out = out or ""  # it goes elsewhere
    assert KEY not in out + err
    assert "Traceback" not in err
    return Ran(process.returncode, out, err)


def ran(*args: str, **options: Any) -> Ran:
    text = options.pop("input", None)
    process = begun(*args, **options, **({"stdin": subprocess.PIPE} if text is not None else {}))
    if text is None:
        return ended(process)
    out, err = process.communicate(text, timeout=PATIENCE)
    return Ran(process.returncode, out, err)


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Commands that only read, in this process: they need no start of their own."""

    def run(*args: str) -> Ran:
        capsys.readouterr()
        return Ran(main(args), *capsys.readouterr())

    return run


def table(name: str) -> list[list[str]]:
    with Path(name).open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def lines(name: str = "out.jsonl") -> list[Any]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def journal() -> Path:
    (path,) = [path for path in Path(".batchrun").glob("*.db") if path.name != "registry.db"]
    return path


def committed() -> set[str]:
    """The request hashes of rows that an independent reader finds done."""
    with contextlib.closing(sqlite3.connect(journal(), timeout=10)) as connection:
        query = "SELECT request FROM rows JOIN outcomes ON outcomes.row = rows.seq WHERE state = 'done'"
        return {request for (request,) in connection.execute(query)}


def sound() -> None:
    with Reader.open(journal()) as reader:
        assert reader.check() == []


def test_a_run_from_file_to_file(provider: Provider) -> None:
    rows = given(20)
    done = ran(*provider.args())
    assert (done.code, done.out) == (ExitCode.OK, "")
    assert done.account == {"done": 20, "failed": 0, "skipped": 0, "unknown": 0, "pending": 0, "rows": 20}
    assert done.goes_on is None
    assert provider.calls == 20
    assert [row["id"] for row in lines()] == [row["id"] for row in rows]
    assert all(row["output"].startswith("[simulated] Say") for row in lines())
    assert provider.base_url.split("/")[2] in done.err
    again = ran(*provider.args())
    assert (again.code, again.account["done"], provider.calls) == (ExitCode.OK, 20, 20)
    more = [{"id": f"new{n}", "text": f"{rows[0]['text']} new {n}"} for n in range(10)]
    write([*rows[:5], *more, *rows[5:]])
    inserted = ran(*provider.args())
    assert (inserted.code, inserted.account["rows"], provider.calls) == (ExitCode.OK, 30, 30)
    assert [row["id"] for row in lines()] == [row["id"] for row in [*rows[:5], *more, *rows[5:]]]


def test_a_changed_prompt_is_refused_by_name_and_sent_again_with_update(provider: Provider) -> None:
    given(5)
    assert ran(*provider.args()).code == ExitCode.OK
    Path("say.md").write_text("Tell {{ text }}")
    refused = ran(*provider.args())
    assert refused.code == ExitCode.REFUSED
    assert "the prompt" in refused.err
    assert "5 already done would be sent again" in refused.err
    assert provider.calls == 5
    assert ran(*provider.args("--update")).code == ExitCode.OK
    assert provider.calls == 10
    assert lines()[0]["output"].startswith("[simulated] Tell")


def killed_and_gone_on(provider: Provider, count: int, kills: int, cap: int) -> None:
    rows = given(count)
    sim.change(provider.base_url, latency="0.03")
    args = provider.args("--concurrency", str(cap), "--concurrency-fixed")
    done_then: set[str] = set()
    calls_then: Counter[str] = Counter()
    lost = 0
    for _ in range(kills):
        process = begun(*args)
        calls = provider.calls
        while provider.calls == calls and process.poll() is None:
            moment(0.005)
        moment(random.uniform(0, 0.1))
        process.kill()
        process.communicate()
        moment(0.05)
        sound()
        now = provider.calls_of()
        assert all(now[request] == calls_then[request] for request in done_then)
        done_then, calls_then = committed(), now
        lost += 1
    last = ran(*args)
    assert last.code == ExitCode.OK
    assert [row["id"] for row in lines()] == [row["id"] for row in rows]
    final = provider.calls_of()
    assert all(final[request] == calls_then[request] for request in done_then)
    assert count <= provider.calls <= count + lost * cap
    sound()


def test_kill_9_loses_and_repeats_nothing(provider: Provider) -> None:
    killed_and_gone_on(provider, 200, 3, 8)


@pytest.mark.slow
def test_kill_9_at_twenty_random_moments(provider: Provider) -> None:
    killed_and_gone_on(provider, 1000, 20, 16)


def running(provider: Provider, *more: str, latency: str = "0.3", rows: int = 400, **options: Any) -> Process:
    """A run that has requests in flight."""
    given(rows)
    sim.change(provider.base_url, latency=latency)
    process = begun(*provider.args("--concurrency", "8", *more), **options)
    wait_until(lambda: provider.calls >= 8)
    return process


def test_a_run_whose_directory_is_deleted_pays_for_nothing_more(provider: Provider, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "say.md").write_text("Say {{ text }}")
    os.chdir(place)
    process = running(provider, latency="2")
    shutil.rmtree(place)
    stopped = ended(process)
    assert stopped.code == ExitCode.STORAGE
    assert "deleted, moved or replaced" in stopped.err
    assert stopped.account["rows"] == 400
    assert stopped.goes_on is None
    assert provider.calls <= 16


def test_ctrl_c_drains_and_names_the_command_that_goes_on(provider: Provider) -> None:
    process = running(provider, latency="1")
    process.send_signal(signal.SIGINT)
    read_up_to(process, "stopping")
    calls = provider.calls
    stopped = ended(process)
    assert stopped.code == ExitCode.INTERRUPTED
    assert provider.calls <= calls + 8  # those in flight may arrive later
    assert stopped.account["unknown"] == 0
    assert stopped.account["done"] == (calls := provider.calls)
    assert stopped.goes_on == "resume out.jsonl"
    assert not Path("out.jsonl").exists()
    assert len(lines("out.jsonl.partial")) == calls
    sim.change(provider.base_url, latency="0.01")
    on = ran(*stopped.goes_on.split())
    assert (on.code, on.account["done"], provider.calls) == (ExitCode.OK, 400, 400)
    assert not Path("out.jsonl.partial").exists()
    assert len(lines()) == 400


@pytest.mark.slow
def test_ctrl_c_while_the_last_rows_are_in_flight_ends_a_run_that_is_whole(provider: Provider) -> None:
    process = running(provider, latency="5", rows=8)
    process.send_signal(signal.SIGINT)
    whole = ended(process)
    assert (whole.code, whole.account["done"], whole.goes_on) == (ExitCode.OK, 8, None)
    assert "waiting for 8 requests in flight" in whole.err
    assert "interrupted while the last rows were in flight; all of them have finished" in whole.err
    assert len(lines()) == 8
    assert not Path("out.jsonl.partial").exists()


def test_a_second_ctrl_c_leaves_at_once(provider: Provider) -> None:
    process = running(provider, "--drain", "1h", latency="300")
    process.send_signal(signal.SIGINT)
    read_up_to(process, "stopping")
    process.send_signal(signal.SIGINT)
    left = ended(process)
    assert left.code == ExitCode.INTERRUPTED
    assert left.account["unknown"] == provider.calls == 8
    assert "batchrun export" in left.err
    assert not Path("out.jsonl.partial").exists()
    sound()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, ExitCode.TERMINATED), (signal.SIGHUP, ExitCode.HANGUP)])
def test_a_service_manager_finds_it_gone_in_time(
    provider: Provider, number: int, code: ExitCode, here: Callable[..., Ran]
) -> None:
    process = running(provider)
    process.send_signal(number)
    stopped = ended(process)
    assert stopped.code == code
    assert stopped.account["done"] >= 8
    assert not list(Path().glob("out*"))
    exported = here("export", "out.jsonl")
    assert exported.code == ExitCode.OK
    assert len(lines()) == stopped.account["done"]


def last_words(process: Process, code: ExitCode) -> str:
    assert process.stderr is not None
    with process.stderr as stream:
        err = stream.read()
    assert process.wait(PATIENCE) == code
    assert "Traceback" not in err
    return err


def test_a_reader_that_leaves_stops_the_run(provider: Provider) -> None:
    given(4000)
    sim.change(provider.base_url, latency="0.05")
    process = begun(*provider.args("--concurrency", "8", output="-"))
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["id"] == "r1"
    process.stdout.close()
    err = last_words(process, ExitCode.BROKEN_PIPE)
    assert provider.calls < 4000
    assert ACCOUNT.fullmatch(err.strip().splitlines()[-1])


def test_a_reader_of_events_that_leaves_stops_the_run(provider: Provider) -> None:
    process = running(provider, "--json", latency="0.05", rows=4000)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    last_words(process, ExitCode.BROKEN_PIPE)
    assert provider.calls < 4000


def test_two_processes_do_not_share_a_run(provider: Provider, here: Callable[..., Ran]) -> None:
    process = running(provider, latency="300")
    for second in (ran(*provider.args()), here("resume", "out.jsonl")):
        assert second.code == ExitCode.BUSY
        assert str(process.pid) in second.err
    assert "running" in here("runs").out
    process.kill()
    process.communicate()
    assert "killed" in here("runs").out


def test_ctrl_c_while_the_input_is_checked_leaves_nothing_behind(provider: Provider) -> None:
    given(1)
    os.mkfifo("endless")
    process = begun(*provider.args(rows="endless"))
    with Path("endless").open("w") as endless:
        endless.write('{"text": "x"}\n')
        endless.flush()
        moment(0.5)
        process.send_signal(signal.SIGINT)
        stopped = ended(process)
    assert (stopped.code, provider.calls) == (ExitCode.INTERRUPTED, 0)
    assert "nothing was sent" in stopped.err
    assert not [*Path(".batchrun").glob("*.db"), *Path(".batchrun").glob("*.spool")]


@pytest.mark.parametrize("then", ["read", "removed", "ctrl-c"])
def test_a_named_pipe_waits_for_its_reader_until_it_is_gone_or_ctrl_c(provider: Provider, then: str) -> None:
    given(2)
    os.mkfifo("pipe.jsonl")
    process = begun(*provider.args(output="pipe.jsonl"))
    assert process.stderr is not None
    assert any("pipe.jsonl is a pipe: the rows are written once a program reads it" in line for line in process.stderr)
    if then == "removed":
        Path("pipe.jsonl").unlink()
        assert ended(process).code == ExitCode.OK
    if then != "ctrl-c":
        assert len(Path("pipe.jsonl").read_text().splitlines()) == 2
        assert ended(process).code == ExitCode.OK
        return
    process.send_signal(signal.SIGINT)
    stopped = ended(process)
    assert (stopped.code, stopped.account["done"]) == (ExitCode.INTERRUPTED, 2)
    assert "--output FILE` writes it again" in stopped.err


def padded(count: int, hanging: int | None = None) -> None:
    """Rows of which a pipe takes thirteen; from the row `hanging` on their text says that they hang."""
    texts = [f"{random.randbytes(6).hex()}{' hangs' * (n >= (hanging or count))}." for n in range(count)]
    write([{"id": f"r{n}", "text": text, "pad": "x" * 5000} for n, text in enumerate(texts)])


class Unread:
    """A pipe from which one byte is read, and then nothing more; `write` is its other end."""

    def __init__(self) -> None:
        self._read, self.write = os.pipe()
        self._full = os.dup(self.write)
        threading.Thread(target=os.read, args=(self._read, 1), daemon=True).start()

    def fill(self) -> None:
        """Wait until nothing more goes in, which is when its writer stands still."""
        wait_until(lambda: not select.select([], [self._full], [], 0)[1])

    def close(self) -> None:
        os.close(self._read)
        os.close(self._full)


@pytest.fixture
def unread() -> Iterator[Unread]:
    with contextlib.closing(Unread()) as pipe:
        yield pipe


def signalled(process: Process, number: signal.Signals) -> Ran:
    """Where this signal does not end it, nothing does: nobody reads on."""
    process.send_signal(number)
    return ended(process)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_whose_named_pipe_is_read_no_further(provider: Provider, number: signal.Signals) -> None:
    padded(40)
    os.mkfifo("pipe.jsonl")
    process = begun(*provider.args(output="pipe.jsonl"))
    with Path("pipe.jsonl").open("rb", buffering=0) as reader:
        assert reader.read(1) == b"{"
        moment(0.5)
        stopped = signalled(process, number)
    assert (stopped.code, stopped.account["done"]) == (128 + number, 40)
    assert "next: `batchrun export " in stopped.err


@pytest.mark.slow
@pytest.mark.parametrize("command", [["resume", "last"], ["export", "last", "-o", "-"]])
def test_ctrl_c_ends_the_writing_of_a_finished_run_that_is_read_no_further(
    provider: Provider, command: list[str], unread: Unread
) -> None:
    padded(40)
    assert ended(begun(*provider.args(output="-"))).code == ExitCode.OK
    process = begun(*command, stdout=unread.write)
    os.close(unread.write)
    unread.fill()
    assert process.poll() is None
    stopped = signalled(process, signal.SIGINT)
    assert stopped.code == ExitCode.INTERRUPTED
    assert "Traceback" not in stopped.err


@pytest.mark.slow
def test_ctrl_c_ends_a_run_that_is_done_and_whose_stream_is_read_no_further(provider: Provider, unread: Unread) -> None:
    padded(40)
    process = begun(*provider.args(output="-"), stdout=unread.write)
    os.close(unread.write)
    wait_until(lambda: provider.calls == 40)
    wait_until(lambda: len(committed()) == 40)
    unread.fill()
    moment(1)  # the run is over
    stopped = signalled(process, signal.SIGINT)
    assert (stopped.code, stopped.account["done"]) == (ExitCode.INTERRUPTED, 40)
    assert "--output FILE` writes what is done" in stopped.err


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [[signal.SIGINT, signal.SIGINT], [signal.SIGTERM]])
def test_signals_end_a_run_whose_events_are_read_no_further(
    provider: Provider, numbers: list[signal.Signals], unread: Unread
) -> None:
    given(2000)
    process = begun(*provider.args("--json"), stdout=unread.write)
    os.close(unread.write)
    wait_until(lambda: provider.calls > 20)
    unread.fill()
    for number in numbers[:-1]:
        process.send_signal(number)
        moment(1)  # two signals at once are one
        assert process.poll() is None
    stopped = signalled(process, numbers[-1])
    assert stopped.code == 128 + numbers[0]
    assert stopped.account["pending"] > 0


@pytest.mark.slow
def test_a_second_ctrl_c_ends_a_run_under_way_whose_stream_is_read_no_further(
    provider: Provider, unread: Unread
) -> None:
    padded(60, hanging=30)
    sim.change(provider.base_url, faults=["hang=text:hangs"])
    process = begun(*provider.args("--concurrency", "4", "--concurrency-fixed", output="-"), stdout=unread.write)
    os.close(unread.write)
    wait_until(lambda: provider.calls == 34)
    unread.fill()
    process.send_signal(signal.SIGINT)
    read_up_to(process, "stopping")
    stopped = signalled(process, signal.SIGINT)
    assert stopped.code == ExitCode.INTERRUPTED
    assert stopped.account["done"] == 30
    assert "--output FILE` writes what is done" in stopped.err


def without(number: int) -> Callable[[], None]:
    """Before exec: a standard stream that is closed, as daemons have it."""
    return partial(os.close, number)


@pytest.mark.slow
def test_a_run_needs_no_place_to_talk_to(provider: Provider) -> None:
    given(2)
    with Path("/dev/full").open("w") as full:
        assert begun(*provider.args("--fresh"), stderr=full).wait(PATIENCE) == ExitCode.OK
        assert begun(*provider.args("--fresh", "--quiet"), stderr=full).wait(PATIENCE) == ExitCode.OK
    assert begun(*provider.args("--fresh"), stderr=None, preexec_fn=without(2)).wait(PATIENCE) == ExitCode.OK
    assert begun(*provider.args("--fresh"), stdout=None, preexec_fn=without(1)).wait(PATIENCE) == ExitCode.OK
    assert len(Path("out.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--help"], ["runs"], ["-i", "in.jsonl", "-p", "say.md", "-P", "sim", "-o", "-"]])
def test_output_to_a_closed_stream_is_an_error_and_no_traceback(words: list[str]) -> None:
    given(2)
    if words == ["runs"]:
        assert ended(begun("-i", "in.jsonl", "-p", "say.md", "-P", "sim")).code == ExitCode.OK
    ran = ended(begun(*words, stdout=None, preexec_fn=without(1)))
    assert ran.code == ExitCode.STORAGE
    assert "written" in ran.err or "closed" in ran.err


@pytest.mark.slow
def test_events_that_cannot_be_written_stop_the_run_and_nothing_else_is_blamed(provider: Provider) -> None:
    given(300)
    with Path("/dev/full").open("w") as full:
        ran = ended(begun(*provider.args("--json"), stdout=full))
    assert ran.code == ExitCode.STORAGE
    assert "stopped: the events cannot be written: No space left on device" in ran.err
    assert ran.account["pending"] > 0


def test_of_many_that_begin_at_once_exactly_one_runs(provider: Provider) -> None:
    given(30)
    sim.change(provider.base_url, latency="300")
    crowd = [begun(*provider.args("--concurrency", "8")) for _ in range(4)]
    wait_until(lambda: sum(process.poll() is None for process in crowd) == 1)
    wait_until(lambda: provider.calls == 8)
    (winner,) = [process for process in crowd if process.poll() is None]
    winner.kill()
    winner.communicate()
    crowd.remove(winner)
    assert [ended(process).code for process in crowd] == [ExitCode.BUSY] * 3
    assert len(list(Path(".batchrun").glob("*.db"))) == 1
    assert provider.calls == 8


def test_rows_stream_in_input_order(provider: Provider) -> None:
    rows = given(60)
    sim.change(provider.base_url, latency="0.005-0.1")
    text = Path("in.jsonl").read_text()
    done = ran(*provider.args(rows="-", output="-"), input=text)
    assert done.code == ExitCode.OK
    assert [json.loads(line)["id"] for line in done.out.splitlines()] == [row["id"] for row in rows]
    assert done.account["done"] == 60
    assert not list(Path(".batchrun").glob("*.spool"))


def test_events_are_one_json_object_a_line(provider: Provider) -> None:
    given(10)
    sim.change(provider.base_url, latency="0.3", faults=["503=first"])
    done = ran(*provider.args("--json"))
    assert done.code == ExitCode.OK
    events = [json.loads(line) for line in done.out.splitlines()]
    kinds = Counter(event["event"] for event in events)
    assert (kinds["started"], kinds["row"], kinds["ended"]) == (1, 10, 1)
    assert kinds["attempt"] == kinds["attempt_ended"] == provider.calls
    assert events[-1]["event"] == "ended"
    assert events[-1]["exit_code"] == 0
    assert events[-1]["totals"]["done"] == 10
    assert done.account["done"] == 10


def test_failed_rows_exit_3_and_go_beside_the_output(provider: Provider) -> None:
    rows = given(10)
    sim.change(provider.base_url, faults=[f"context=text:{rows[3]['text']}"])
    done = ran(*provider.args())
    assert done.code == ExitCode.ROWS_FAILED
    assert (done.account["done"], done.account["failed"], provider.calls) == (9, 1, 10)
    assert [row["id"] for row in lines("out.errors.jsonl")] == ["r4"]
    assert "resume out.jsonl --failed" in done.err
    sim.change(provider.base_url, faults=[])
    mended = ran("resume", "out.jsonl", "--failed")
    assert (mended.code, provider.calls) == (ExitCode.OK, 11)
    assert not Path("out.errors.jsonl").exists()
    assert len(lines()) == 10


@pytest.mark.parametrize(("fault", "said"), [("402", "credit is used up"), ("key", "key"), ("model", "model")])
def test_a_fatal_answer_exits_4_and_the_same_command_goes_on(provider: Provider, fault: str, said: str) -> None:
    given(50)
    sim.change(provider.base_url, faults=[f"{fault}=1"])
    stopped = ran(*provider.args("--concurrency", "8"))
    assert stopped.code == ExitCode.STOPPED
    assert said in stopped.err
    assert provider.calls <= 8
    assert stopped.account["pending"] == 50
    if fault == "402":
        calls = provider.calls
        sim.change(provider.base_url, faults=[])
        on = ran(*provider.args())
        assert (on.code, on.account["done"], provider.calls) == (ExitCode.OK, 50, calls + 50)


def test_time_that_is_over_exits_6(provider: Provider) -> None:
    given(400)
    sim.change(provider.base_url, latency="0.2")
    over = ran(*provider.args("--stop-after", "1s", "--concurrency", "4"))
    assert over.code == ExitCode.BUDGET
    assert over.account["unknown"] == 0
    assert over.account["pending"] > 0
    assert over.goes_on == "resume out.jsonl"


def test_an_output_that_cannot_be_written_exits_5_and_keeps_every_reply(provider: Provider) -> None:
    given(5)
    full = ran(*provider.args("--format", "jsonl", output="/dev/full"))
    assert full.code == ExitCode.STORAGE
    assert "No space left on device" in full.err
    assert full.account["done"] == 5
    assert ran("export", "last", "-o", "saved.jsonl").code == ExitCode.OK
    assert len(lines("saved.jsonl")) == 5
    assert provider.calls == 5
    assert not Path("/dev/.batchrun").exists()
    assert not list(Path("/dev").glob("full.*"))


def test_a_host_that_is_not_there_is_refused_before_any_call_and_leaves_no_run() -> None:
    given(3)
    args = ["-i", "in.jsonl", "-p", "say.md", "-m", "m", "-o", "out.jsonl", "--base-url", "http://127.0.0.1:9/v1"]
    for _ in range(2):
        refused = ran(*args)
        assert refused.code == ExitCode.REFUSED
        assert "127.0.0.1:9 cannot be reached" in refused.err
    assert not Path("out.jsonl").exists()
    assert not list(Path(".batchrun").glob("*.db"))


def test_another_format_is_exported_under_its_own_suffix(provider: Provider, here: Callable[..., Ran]) -> None:
    given(2)
    assert ran(*provider.args()).code == ExitCode.OK
    kept = Path("out.jsonl").read_bytes()
    assert here("export", "out.jsonl", "--format", "csv").code == ExitCode.OK
    assert Path("out.csv").read_text().startswith("id,text,output")
    assert Path("out.jsonl").read_bytes() == kept


def test_runs_are_listed_shown_exported_and_removed(provider: Provider, here: Callable[..., Ran]) -> None:
    rows = given(12)
    sim.change(provider.base_url, faults=[f"context=text:{rows[3]['text']}"])
    assert ran(*provider.args()).code == ExitCode.ROWS_FAILED
    (listed,) = [json.loads(line) for line in here("runs", "--json").out.splitlines()]
    assert (listed["state"], listed["done"], listed["failed"], listed["pending"]) == ("finished", 11, 1, 0)
    page = here("show", "out.jsonl", "--failed").out
    for said in ("errors by cause", "too long for the model", "(line 4)", "slowest rows", "line 4 (r4), permanent"):
        assert said in page
    assert json.loads(here("show", listed["id"][:-2], "--json").out)["plan"]["model"] == "m"
    Path("out.jsonl").unlink()
    assert here("export", "last").code == ExitCode.OK
    assert len(lines()) == 11
    assert here("export", "last", "-o", "out.csv").code == ExitCode.OK
    assert len(table("out.csv")) == 12
    streamed = here("export", "last", "-o", "-").out
    assert [json.loads(line)["id"] for line in streamed.splitlines()] == [row["id"] for row in lines()]
    assert here("export", "last", "--failed", "-o", "again.jsonl").code == ExitCode.OK
    assert [row["id"] for row in lines("again.jsonl")] == ["r4"]
    assert here("export", "last", "--journal", "copy.db").code == ExitCode.OK
    with Reader.open(Path("copy.db")) as reader:
        assert reader.totals.done == 11
    assert here("rm", "last").code == ExitCode.REFUSED
    assert here("rm", "last", "--yes").code == ExitCode.OK
    assert here("runs", "--json").out == ""
    assert Path("out.jsonl").exists()
    assert provider.calls == 12


def test_what_is_written_of_a_run_goes_only_where_it_can_and_may(here: Callable[..., Ran]) -> None:
    given(2)
    assert ran("-i", "in.jsonl", "-p", "say.md", "-P", "sim", "-o", "out.jsonl").code == ExitCode.OK
    rows = Path("in.jsonl").read_bytes()
    for command, said in (
        (["report", "-o", "nowhere/x.html"], "mkdir -p nowhere"),
        (["export", "-o", "nowhere/x.jsonl"], "mkdir -p nowhere"),
        (["export", "--failed", "-o", "nowhere/x.jsonl"], "mkdir -p nowhere"),
        (["export", "--journal", "nowhere/x.db"], "mkdir -p nowhere"),
        (["export", "-o", "in.jsonl"], "would overwrite the input in.jsonl"),
        (["export", "--failed", "-o", "in.jsonl"], "would overwrite the input in.jsonl"),
        (["export", "--journal", "x.db", "-o", "x.jsonl"], "--journal copies"),
        (["export", "--journal", "x.db", "--failed"], "--journal copies"),
        (["export", "--failed", "-o", "x.csv"], "JSONL"),
        (["export", "--failed", "--format", "csv"], "JSONL"),
        (["export", "--format", "xml"], "--format must be jsonl, csv, tsv, parquet or xlsx"),
    ):
        refused = here(command[0], "last", *command[1:])
        assert (refused.code, said in refused.err) == (ExitCode.REFUSED, True), (command, refused.err)
    assert Path("in.jsonl").read_bytes() == rows
    assert sorted(os.listdir()) == [".batchrun", "in.jsonl", "out.jsonl", "say.md"]


def test_the_json_of_every_command_is_described(here: Callable[..., Ran]) -> None:
    document = (Path(__file__).parents[1] / "docs" / "events.md").read_text(encoding="utf-8")
    account = set(re.findall(r"`(\w+)`", document.split("## The account")[1].partition("all of the whole run")[0]))
    told = {
        command: set(re.findall(r"`(\w+)`", re.sub(r" \(.*?\)", "", members)))
        for command, members in re.findall(r"^\| `batchrun (.*?) --json` \| (.*) \|$", document, re.MULTILINE)
    }
    told["runs"] = told["runs"] - {"runs"} | account - {"totals"}
    told["show"] = told["show"] - {"runs"} | told["runs"]
    told["report"] = told["report"] - {"show"} | told["show"]
    given(2)
    args = ("-i", "in.jsonl", "-p", "say.md", "-P", "sim", "-o", "out.jsonl")
    assert ran(*args).code == ExitCode.OK
    typed = {
        "run --dry-run": ["run", "--dry-run", *args],
        "plan": ["plan", *args],
        "show --row ID": ["show", "last", "--row", "1"],
    }
    for command in told.keys() - {"sim", "batches"}:  # those of a run that has some: test_batch_pages
        said = json.loads(here(*typed.get(command, [command]), "--json").out.splitlines()[0])
        assert said.keys() == told[command], command


def test_a_terminal_that_lacks_characters_gets_escapes_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    Path("in.jsonl").write_text('{"text": "schön 一"}\n', encoding="utf-8")
    args = ("-i", "in.jsonl", "-p", "say.md", "-P", "sim", "-o", "ö.jsonl")
    assert "sch\\xf6n \\u4e00" in ran(*args, "--dry-run").out
    assert ran(*args).code == ExitCode.OK
    for command in (["plan", *args], ["runs"], ["show"]):
        shown = ran(*command)
        assert (shown.code, "\\xf6" in shown.out) == (ExitCode.OK, True), shown
    Path("ö.md").write_text("Größe {{ text }}", encoding="utf-8")
    assert ran("prompts", "show", "./ö.md").out == "Größe {{ text }}"


def test_a_dry_run_makes_no_call_and_no_file(provider: Provider) -> None:
    rows = given(3)
    dry = ran(*provider.args("--dry-run"))
    assert dry.code == ExitCode.OK
    assert "3 rows would be sent" in dry.out
    assert rows[0]["text"] in dry.out
    assert provider.calls == 0
    assert sorted(os.listdir()) == ["in.jsonl", "say.md"]


def test_csv_in_csv_out_with_the_simulated_provider() -> None:
    Path("in.csv").write_text('id,text\n1,"Hello, you."\n2,"Two\nlines."\n', newline="")
    done = ran("-i", "in.csv", "-p", "say.md", "-P", "sim", "-o", "out.csv")
    assert done.code == ExitCode.OK
    assert "SIMULATED" in done.err
    header, *rows = table("out.csv")
    assert header == ["id", "text", "output"]
    assert [row[:2] for row in rows] == [["1", "Hello, you."], ["2", "Two\nlines."]]
    refused = ran("-i", "in.csv", "-p", "say.md", "-m", "m", "-o", "out.csv")
    assert refused.code == ExitCode.REFUSED
    assert "simulated" in refused.err


def test_a_limit_leaves_the_rest_pending_and_says_how_to_go_on(provider: Provider) -> None:
    given(20)
    first = ran(*provider.args("--limit", "5"))
    assert (first.code, first.account["pending"], provider.calls) == (ExitCode.OK, 15, 5)
    assert ran(*provider.args()).account["done"] == 20


def test_a_run_that_stops_early_after_a_limit_leaves_no_older_output_beside_its_own(provider: Provider) -> None:
    given(20)
    ran(*provider.args("--limit", "5"))
    (output,) = Path().glob("out*")
    assert len(output.read_text().splitlines()) == 5
    stopped = ran(*provider.args("--max-requests", "12"))
    assert (stopped.code, stopped.account["done"]) == (ExitCode.BUDGET, 12)
    assert list(Path().glob("out*")) == [output]
    assert len(output.read_text().splitlines()) == 12


def test_quiet_says_to_whom_rows_go_and_the_account_alone(provider: Provider) -> None:
    given(3)
    done = ran(*provider.args("--quiet"))
    assert (done.code, done.out) == (ExitCode.OK, "")
    start, _ = done.err.splitlines()
    assert "3 rows to 127.0.0.1" in start
    assert done.account["done"] == 3
