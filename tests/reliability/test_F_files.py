"""Full disks, missing permissions, two processes, damaged journals, changed inputs, met by the real program."""

import asyncio
import ctypes
import importlib
import os
import random
import re
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from program import Program, Ran, until
from waiting import PATIENCE
from wire import Answer, Call, FaultServer, Peer, whole

from batchrun.engine.export import replaced
from batchrun.journal.database import connect

N = 60
PLENTY = [f"row {number}" for number in range(N)]


def slow(seconds: float) -> Answer:
    async def answer(peer: Peer) -> None:
        await asyncio.sleep(seconds)
        await whole()(peer)

    return answer


class SmallDisk(NamedTuple):
    """A directory where about a megabyte fits; `options` for the process that shall feel it; `grow` makes room."""

    path: Path
    options: dict[str, Any]
    grow: Callable[[], None]


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[SmallDisk]:
    """A tmpfs of its own where one can be mounted, else a limit on the size of files."""
    path = tmp_path / "small"
    path.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "x", str(path)], capture_output=True, check=False
    ).returncode:

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

        yield SmallDisk(path, {"preexec_fn": limit}, lambda: None)
        return
    try:
        yield SmallDisk(path, {}, lambda: _remount(path))
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def _remount(path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", str(path)], check=True)


async def test_F1_a_full_disk_under_the_journal_stops_the_run_and_loses_only_what_is_in_flight(
    tmp_path: Path, small_disk: SmallDisk
) -> None:
    rows, concurrency = 400, 4
    program = Program(tmp_path)
    program.rows(f"row {number}" for number in range(rows))
    reply = whole(b'{"choices":[{"message":{"content":"%s"},"finish_reason":"stop"}]}' % (b"x" * 20_000))
    async with FaultServer(reply) as server:
        args = [*program.send(server.base_url, "--runs-dir", str(small_disk.path)), "--concurrency", str(concurrency)]
        with program.going(*args, **small_disk.options) as process:
            _, err = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
        assert process.returncode == 5, err
        assert str(small_disk.path) in err
        assert re.search(r"MB free", err), err
        assert "Traceback" not in err
        before = dict(server.prompts)
        ((done, lost),) = _ask(
            small_disk.path, "SELECT sum(state = 'done'), count(*) - sum(state = 'done') FROM outcomes"
        )
        assert 0 < done < rows
        assert not lost
        assert sum(before.values()) - done <= concurrency
        small_disk.grow()
        again = await program.run(*args)
        assert again.code == 0, again.err
        assert len(program.done()) == rows
        twice = sum(server.prompts.values()) - rows
        assert twice <= concurrency


def _ask(directory: Path, query: str) -> list[tuple[Any, ...]]:
    (path,) = directory.glob("*.db")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.parametrize(
    "output", ["/dev/full", pytest.param("small", marks=pytest.mark.slow), pytest.param("-", marks=pytest.mark.slow)]
)
async def test_F2_an_output_that_cannot_be_written_keeps_the_paid_rows(
    program: Program, small_disk: SmallDisk, output: str
) -> None:
    program.rows(PLENTY)
    reply = whole(b'{"choices":[{"message":{"content":"%s"},"finish_reason":"stop"}]}' % (b"x" * 30_000))
    target = str(small_disk.path / "out.jsonl") if output == "small" else output
    async with FaultServer(reply) as server:
        args = [*program.send(server.base_url, "--runs-dir", "runs", output=target)]
        full = os.open("/dev/full", os.O_WRONLY)
        options: dict[str, Any] = {"stdout": full} if output == "-" else {}
        limits = small_disk.options if output == "small" else {}
        with program.going(*args, **options, **limits) as process:
            os.close(full)
            _, err = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
        assert process.returncode == 5, err
        assert "Traceback" not in err
        calls = len(server.calls)
        if output != "-":
            assert calls == N
        exported = await program.run("export", "last", "--runs-dir", "runs", "--output", "there.jsonl")
        assert exported.code == 0, exported.err
        assert len(server.calls) == calls
    done = _ask(program.directory / "runs", "SELECT count(*) FROM outcomes WHERE state = 'done'")
    assert len(program.output("there.jsonl")) == done[0][0] > 0
    assert list(small_disk.path.glob(".*.tmp")) == []


def humble() -> None:
    """Before exec: root without the right to overlook permissions (Linux capability 1)."""
    if sys.platform == "linux" and os.geteuid() == 0:
        ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


@pytest.mark.parametrize("elsewhere", [(), ("--runs-dir", "runs")])
async def test_F3_a_place_that_cannot_be_written_is_refused_before_the_first_call(
    program: Program, elsewhere: tuple[str, ...]
) -> None:
    program.rows(PLENTY)
    locked = program.directory / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    async with FaultServer() as server:
        args = program.send(server.base_url, *elsewhere, output="locked/out.jsonl")
        with program.going(*args, preexec_fn=humble) as process:
            _, err = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
        assert process.returncode == 2, err
        assert "locked" in err
        assert "Traceback" not in err
        assert not server.calls


@pytest.mark.slow
@pytest.mark.parametrize("count", [4, 24])
async def test_F4_of_programs_started_at_once_one_runs(program: Program, count: int) -> None:
    """The provider answers once all others have given up: however slowly they start, they meet."""
    program.rows(PLENTY[:8])
    alone = asyncio.Event()

    async def answer(peer: Peer) -> None:
        await alone.wait()
        await whole()(peer)

    async with FaultServer(answer) as server:
        args = program.send(server.base_url, "--concurrency", "2", "--concurrency-fixed")
        turn = asyncio.Semaphore(10)
        ended: list[Ran] = []

        async def one() -> None:
            async with turn:
                ended.append(await program.run(*args))
            if len(ended) == count - 1:
                alone.set()

        await asyncio.gather(*(one() for _ in range(count)))
        assert set(server.prompts.values()) == {1}
        assert len(server.prompts) == 8
    assert [ran.code for ran in ended] == [11] * (count - 1) + [0], [ran.err for ran in ended if ran.code != 11]
    for ran in ended:
        if ran.code == 11:
            assert re.search(rf"locked by process \d+ on {re.escape(os.uname().nodename)}", ran.err), ran.err


@pytest.mark.slow
async def test_F6_the_same_command_resumes_and_a_foreign_file_is_not_overwritten(program: Program) -> None:
    program.rows(PLENTY)
    async with FaultServer() as server:
        await program.run(*program.send(server.base_url))
        before = (program.directory / "out.jsonl").read_bytes()
        again = await program.run(*program.send(server.base_url))
        assert again.code == 0
        assert (program.directory / "out.jsonl").read_bytes() == before
        (program.directory / "mine.jsonl").write_text("precious\n")
        refused = await program.run(*program.send(server.base_url, output="mine.jsonl"))
        assert refused.code == 2
        assert (program.directory / "mine.jsonl").read_text() == "precious\n"
        (program.directory / "other.errors.jsonl").write_text("precious\n")
        refused = await program.run(*program.send(server.base_url, output="other.jsonl"))
        assert refused.code == 2
        assert "other.errors.jsonl exists and belongs to no run" in refused.err
        assert (program.directory / "other.errors.jsonl").read_text() == "precious\n"
        assert len(server.calls) == N


PAGE = 8192
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "header": lambda data: bytes([data[0] ^ 255]) + data[1:],
    "middle": lambda data: data[: 26 * PAGE] + bytes(PAGE) + data[27 * PAGE :],  # a page of rows
    "cut": lambda data: data[: len(data) * 2 // 3],
    "empty": lambda _: b"",
    "version": lambda data: data[:60] + (99).to_bytes(4, "big") + data[64:],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "harm", ["middle", *(pytest.param(name, marks=pytest.mark.slow) for name in DAMAGE if name != "middle")]
)
async def test_F7_a_damaged_journal_is_told_and_never_taken_for_a_new_run(program: Program, harm: str) -> None:
    program.rows([f"row {number} {'x' * 300}" for number in range(N * 5)])
    async with FaultServer() as server:
        await program.run(*program.send(server.base_url))
        (program.directory / "out.jsonl").unlink()
        journal = program.journal
        harmed = DAMAGE[harm](journal.read_bytes())
        journal.write_bytes(harmed)
        calls = len(server.calls)
        for args in (program.send(server.base_url), ("resume",), ("check",), ("export", "out.jsonl")):
            ran = await program.run(*args)
            assert ran.code == 5, (args, ran.err)
            assert "Traceback" not in ran.err
            assert "hint: " in ran.err or "can be read" in ran.err
        assert len(server.calls) == calls
        assert journal.read_bytes() == harmed
    if harm == "middle":
        assert 0 < len(program.output("out.jsonl.partial")) < N * 5
    fresh = await program.run(*program.send("http://127.0.0.1:9/v1", "--fresh"))
    assert fresh.code == 2
    assert "refused" in fresh.err


def test_F7_check_says_that_a_journal_is_intact(program: Program) -> None:
    program.rows(PLENTY[:5])
    assert program("--input", "in.jsonl", "--prompt", "say.txt", "--profile", "sim", "--output", "o.jsonl").code == 0
    ran = program("check", "last")
    assert ran.code == 0, ran.err
    assert "is intact: 5 done" in ran.out
    assert program("check", "nosuch").code == 2


READING = (
    ("check", "last"),
    ("export", "last", "--output", "again.jsonl"),
    ("show", "last"),
    ("show", "last", "--failed"),
    ("show", "last", "--json"),
    ("report", "last"),
    ("runs",),
    ("export", "last", "--output", "-"),
)
GOING_ON = (("resume", "last"), ("resume", "last", "--failed"), ("post", "last", "--post", "strip"))


@pytest.mark.slow
def test_F7_no_flip_and_no_cut_of_a_journal_is_a_crash(program: Program) -> None:
    """A hundred random ones: each command ends as it should or with a plain message, and reading changes nothing."""
    program.rows([f"row {number} {'x' * 200}" for number in range(300)])
    sent = program("--input", "in.jsonl", "--prompt", "say.txt", "--profile", "sim", "--output", "out.jsonl")
    assert sent.code == 0
    journal, lots = program.journal, random.Random(7)
    data = journal.read_bytes()
    seen: dict[tuple[str, int], int] = {}
    for name in ("pages", "exports", "headless", "html"):
        importlib.import_module(f"batchrun.report.{name}")
    for number in range(100):
        harmed = bytearray(data)
        if number % 4 == 0:
            del harmed[lots.randrange(len(data)) :]
        for _ in range(lots.choice([1, 8, 64])):
            if harmed:
                harmed[lots.randrange(len(harmed))] ^= 1 << lots.randrange(8)
        journal.write_bytes(harmed)
        for args in (*READING[:2], READING[2 + number % (len(READING) - 2)], GOING_ON[number % len(GOING_ON)]):
            if args in GOING_ON:
                assert journal.read_bytes() == harmed
            code, err = _in_process(program, args)
            seen[args[0], code] = seen.get((args[0], code), 0) + 1
            assert code in (0, 5) or (code == 3 and args in GOING_ON), (number, args, err)
            assert "unexpected error" not in err
        for beside in journal.parent.glob(f"{journal.name}-*"):
            beside.unlink()
    print(seen)
    assert seen["check", 5] > 25


def _in_process(program: Program, args: tuple[str, ...]) -> tuple[int, str]:
    """The command in a fork of this process, which has everything imported."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        code = 99
        try:
            os.chdir(program.directory)
            os.dup2(write, 1)
            os.dup2(write, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            from batchrun.cli import main  # noqa: PLC0415 - in the child

            code = main(args)
            sys.stderr.flush()
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, errors="replace") as told:
        err = told.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), err


@pytest.mark.slow
async def test_F8_a_directory_that_is_moved_meanwhile_ends_in_one_whole_journal(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    program = Program(here)
    program.rows(PLENTY)
    async with FaultServer(slow(0.1)) as server:
        with program.going(*program.send(server.base_url, "--concurrency", "2", "--concurrency-fixed")) as process:
            await until(lambda: len(server.calls) >= 10)
            here.rename(tmp_path / "there")
            _, err = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
        assert "Traceback" not in err
        moved = Program(tmp_path / "there")
        assert moved.ask("PRAGMA integrity_check") == [("ok",)]
        ended = await moved.run(*moved.send(server.base_url))
        assert ended.code == 0, ended.err
        assert len(moved.done()) == N
        assert set(server.prompts.values()) == {1}
    assert not here.exists()


@pytest.mark.slow
async def test_F6_the_errors_file_of_a_run_is_not_read_and_replaced_at_once(program: Program) -> None:
    program.rows(["good", "bad"])

    def choose(call: Call, _: int) -> Answer:
        return whole(b"{}", 400) if call.prompt == "bad" else whole()

    async with FaultServer(choose=choose) as server:
        ran = await program.run(*program.send(server.base_url))
        assert ran.code == 3, ran.err
        before = (program.directory / "out.jsonl").read_bytes(), (program.directory / "out.errors.jsonl").read_bytes()
        for more in ((), ("--fresh",)):
            again = await program.run("-i", "out.errors.jsonl", *program.send(server.base_url, *more)[2:])
            assert again.code == 2
            assert "would overwrite the input out.errors.jsonl" in again.err
        elsewhere = await program.run("-i", "out.errors.jsonl", *program.send(server.base_url, output="more.jsonl")[2:])
        assert elsewhere.code == 3, elsewhere.err
    assert before == (
        (program.directory / "out.jsonl").read_bytes(),
        (program.directory / "out.errors.jsonl").read_bytes(),
    )


@pytest.mark.slow
async def test_F9_what_a_run_writes_is_private_and_links_are_not_followed(program: Program) -> None:
    program.rows(PLENTY)
    previous = os.umask(0)
    try:
        async with FaultServer() as server:
            ran = await program.run(*program.send(server.base_url, "--log-file", "run.log"))
            assert ran.code == 0, ran.err
            runs = program.directory / ".batchrun"
            assert stat.S_IMODE(runs.stat().st_mode) == 0o700
            secret = [path for path in runs.iterdir() if path.name != ".gitignore"]
            assert {stat.S_IMODE(path.stat().st_mode) for path in [*secret, program.directory / "run.log"]} == {0o600}
            journal = program.journal
            elsewhere = journal.rename(program.directory / "elsewhere.db")
            before = elsewhere.read_bytes()
            journal.symlink_to(elsewhere)
            refused = await program.run("resume", journal.stem)
            assert refused.code == 5
            assert "links are not followed" in refused.err
            assert elsewhere.read_bytes() == before
    finally:
        os.umask(previous)


@pytest.mark.slow
async def test_F10_rows_that_did_not_change_are_not_sent_again(program: Program) -> None:
    rows = [(f"r{number}", f"row {number}") for number in range(10)]
    path = program.directory / "in.jsonl"

    def put(rows: list[tuple[str, str]]) -> None:
        path.write_text("".join(f'{{"id": "{name}", "text": "{text}"}}\n' for name, text in rows))

    put(rows)
    async with FaultServer() as server:
        await program.run(*program.send(server.base_url))
        put([("new", "row new"), *reversed(rows[2:])])
        moved = await program.run(*program.send(server.base_url))
        assert moved.code == 0, moved.err
        assert server.prompts == {text: 1 for _, text in [*rows, ("new", "row new")]}
        assert [row["id"] for row in program.output()] == ["new", *(name for name, _ in reversed(rows[2:]))]
        put([("new", "row new"), ("r9", "row 9 edited"), *reversed(rows[2:9])])
        refused = await program.run(*program.send(server.base_url))
        assert refused.code == 2
        assert "--update" in refused.err
        assert sum(server.prompts.values()) == 11
        updated = await program.run(*program.send(server.base_url, "--update"))
        assert updated.code == 0, updated.err
        assert server.prompts["row 9 edited"] == 1
        assert sum(server.prompts.values()) == 12


def test_F11_every_commit_waits_for_the_disk_and_an_output_is_synced_before_its_name_is_taken(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.rows(PLENTY[:3])
    assert program("--input", "in.jsonl", "--prompt", "say.txt", "--profile", "sim", "--output", "o.jsonl").code == 0
    with closing(connect(program.journal, write=True)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    steps: list[str] = []
    sync, rename = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        steps.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    with replaced(program.directory / "o.jsonl") as stream:
        stream.write(b"x")
    assert steps == ["file", "rename", "directory"]


@pytest.mark.slow
async def test_F12_a_journal_of_an_older_schema_is_refused_and_unchanged(program: Program) -> None:
    program.rows(PLENTY[:3])
    async with FaultServer() as server:
        await program.run(*program.send(server.base_url))
        with closing(sqlite3.connect(program.journal)) as connection:
            connection.execute("PRAGMA user_version = 0")
        before = program.journal.read_bytes()
        for args in (program.send(server.base_url), ("resume",), ("check",), ("export",), ("show",)):
            ran = await program.run(*args)
            assert ran.code == 5, ran.err
            assert "an older version of batchrun, 0." in ran.err
        listed = await program.run("runs")
        assert listed.code == 0
        assert "an older version of batchrun" in listed.err
        assert program.journal.read_bytes() == before
        assert len(server.calls) == 3
    shutil.rmtree(program.directory / ".batchrun")
