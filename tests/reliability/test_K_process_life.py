"""Crashes, signals, closed pipes, stopped processes and wrong clocks, met by the real program."""

import asyncio
import json
import os
import random
import signal
import time
from pathlib import Path

import campaign_batch
import campaign_crash
import campaign_soak
import pytest
from program import Program, Stalls, holds_once, until
from waiting import PATIENCE, read_up_to
from wire import Answer, FaultServer, Peer, hang, whole

from batchrun import sim

N = 40
PLENTY = [f"row {number}" for number in range(N)]


def slow(seconds: float) -> Answer:
    async def answer(peer: Peer) -> None:
        await asyncio.sleep(seconds)
        await whole()(peer)

    return answer


@pytest.mark.slow
@pytest.mark.parametrize(("kills", "rows", "c"), [(12, 300, campaign_crash.C), (4, 600, 64)])
def test_K1_kills_at_random_moments_lose_nothing_that_was_committed(kills: int, rows: int, c: int) -> None:
    seed = random.randrange(1000)
    figures = campaign_crash.random_kills(kills, rows, seed, c)
    print(f"seed {seed}\n{figures}")
    assert figures.bad == []


@pytest.mark.slow
def test_K2_kills_at_journal_writes_lose_nothing_that_was_committed() -> None:
    figures = campaign_crash.kills_at_writes(12, 100)
    print(figures)
    assert figures.kills == 12
    assert figures.bad == []


@pytest.mark.slow
def test_kills_around_calls_of_batches_pay_for_no_row_twice() -> None:
    figures = campaign_batch.campaign(20, 10, kills=2, faults=("close@create", "close@list"))
    print(figures)
    assert (figures.kills, figures.lost_answers, figures.bad) == (6, 2, [])


DISTINCT, TIMES, IN_FLIGHT = 60, 10, 4


@pytest.mark.slow
async def test_K1_equal_requests_that_are_sent_once_stay_so_wherever_the_program_is_killed(program: Program) -> None:
    program.rows(f"text {number % DISTINCT}" for number in range(DISTINCT * TIMES))
    flags = ("--dedupe", "--concurrency", str(IN_FLIGHT), "--concurrency-fixed")
    settled = "SELECT DISTINCT json_extract(text, '$.text') FROM rows JOIN outcomes ON row = seq"
    kills, done, before = 0, set[str](), dict[str, int]()
    async with FaultServer(slow(0.05)) as server:
        args = program.send(server.base_url, *flags)
        for calls in (9, 21, 34, 45):
            with program.going(*args) as process:
                await until(lambda calls=calls: len(server.calls) >= calls)
                process.kill()
                kills += process.wait() == -signal.SIGKILL
            args = ("resume", "last")
            done, before = {text for (text,) in program.ask(settled)}, dict(server.prompts)
        ran = await program.run(*args)
        assert ran.code == 0, ran.err
        print(f"{kills} kills, {len(server.calls)} calls for {DISTINCT} requests of {DISTINCT * TIMES} rows")
        assert kills
        assert 0 < len(done) < DISTINCT
        assert all(server.prompts[text] == before[text] for text in done)
        assert len(server.prompts) == DISTINCT
        assert len(server.calls) <= DISTINCT + kills * IN_FLIGHT
    assert len(program.done()) == DISTINCT * TIMES
    assert program.ask("SELECT done, deduplicated FROM totals") == [(DISTINCT * TIMES, DISTINCT * (TIMES - 1))]


@pytest.mark.slow
async def test_K3_a_row_that_was_answered_but_not_committed_is_sent_once_more_and_counted(program: Program) -> None:
    program.rows(["only"])
    async with FaultServer() as server:
        killed = await asyncio.to_thread(program.altered, "reply", "1", *program.send(server.base_url))
        assert killed.returncode == -signal.SIGKILL
        assert len(server.calls) == 1
        assert program.account() == {"unknown": 1}
        ran = await program.run("resume")
        assert len(server.calls) == 2
    assert ran.code == 0, ran.err
    assert program.account() == {"done": 1}
    assert program.ask("SELECT possibly_billed FROM attempts ORDER BY number") == [(1,), (0,)]
    shown = json.loads((await program.run("show", "--json")).out)
    assert shown["possibly_billed"] == 1


@pytest.mark.parametrize("harm", ["torn", pytest.param("deleted", marks=pytest.mark.slow)])
async def test_K4_K5_a_torn_or_deleted_output_is_rebuilt_without_a_call(program: Program, harm: str) -> None:
    program.rows(PLENTY)
    output = program.directory / "out.jsonl"
    async with FaultServer() as server:
        await program.run(*program.send(server.base_url))
        whole_output = output.read_bytes()
        last = whole_output.rindex(b"\n", 0, -1) + 1
        for cut in (last, len(whole_output) - 1):
            output.write_bytes(whole_output[:cut])
            if harm == "deleted":
                output.unlink()
            again = await program.run(*(("export", "last") if cut % 2 else program.send(server.base_url)))
            assert again.code == 0, again.err
            assert output.read_bytes() == whole_output
        assert len(server.calls) == N


SIGNALS = {
    "K6 SIGINT": (signal.SIGINT, 130),
    "K8 SIGTERM": (signal.SIGTERM, 143),
    "K9 SIGHUP": (signal.SIGHUP, 129),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SIGNALS)
async def test_K6_K8_K9_a_signal_lets_in_flight_rows_finish_and_starts_none(program: Program, name: str) -> None:
    await holds_once(3, lambda number: signalled(program.beside(f"{number}"), *SIGNALS[name]))


async def signalled(program: Program, number: signal.Signals, code: int) -> list[str]:
    program.rows(PLENTY)
    async with FaultServer(slow(0.5)) as server:
        with program.going(*program.send(server.base_url, "--concurrency", "4", "--concurrency-fixed")) as process:
            await until(lambda: len(server.calls) >= 8)
            process.send_signal(number)
            sent = asyncio.get_running_loop().time()
            _, err = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
            took = asyncio.get_running_loop().time() - sent
        late = max(server.times) - sent
        calls = len(server.calls)
    print(f"{number.name}: last new request {late:+.3f} s after the signal (promised 0.2), ended after {took:.2f} s")
    assert process.returncode == code, err
    account = program.account()
    assert account["done"] == calls
    assert account == {"done": calls, "pending": N - calls}
    assert "resume with: batchrun resume out.jsonl" in err.splitlines()[-1]
    assert (program.directory / "out.jsonl").exists() is False
    return [] if late <= 5 * 0.2 else ["no new request"]


@pytest.mark.slow
async def test_K7_a_second_ctrl_c_leaves_at_once(program: Program) -> None:
    await holds_once(3, lambda number: interrupted_twice(program.beside(f"{number}")))


async def interrupted_twice(program: Program) -> list[str]:
    program.rows(PLENTY)
    async with FaultServer(hang) as server:
        args = program.send(server.base_url, "--concurrency", "4", "--concurrency-fixed", "--drain", "1h")
        with program.going(*args) as process:
            await until(lambda: len(server.calls) >= 4)
            process.send_signal(signal.SIGINT)
            await asyncio.to_thread(read_up_to, process, "stopping")
            process.send_signal(signal.SIGINT)
            sent = time.monotonic()
            _, err = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
            took = time.monotonic() - sent
        calls = len(server.calls)
    print(f"second SIGINT to exit {took:.2f} s (promised 1)")
    assert process.returncode == 130, err
    assert program.account() == {"unknown": calls, "pending": N - calls}
    assert program.ask("PRAGMA integrity_check") == [("ok",)]
    return [] if took <= 5 * 1.0 else ["at once"]


@pytest.mark.slow
async def test_K8_SIGTERM_does_not_wait_longer_than_a_service_manager(program: Program) -> None:
    await holds_once(3, lambda number: terminated(program.beside(f"{number}")))


async def terminated(program: Program) -> list[str]:
    program.rows(PLENTY)
    async with FaultServer(hang) as server:
        with program.going(*program.send(server.base_url, "--concurrency", "4")) as process:
            await until(lambda: len(server.calls) >= 4)
            process.send_signal(signal.SIGTERM)
            sent = time.monotonic()
            await asyncio.to_thread(process.communicate, timeout=PATIENCE)
            took = time.monotonic() - sent
    print(f"SIGTERM with hanging requests to exit {took:.2f} s (promised 10)")
    assert process.returncode == 143
    assert took >= 7
    return [] if took <= 10 + 5 else ["in time"]


@pytest.mark.slow
async def test_K9_nohup_is_respected(program: Program) -> None:
    program.rows(PLENTY)

    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async with FaultServer(slow(0.1)) as server:
        args = program.send(server.base_url, "--concurrency", "4", "--concurrency-fixed")
        with program.going(*args, preexec_fn=ignore) as process:
            await until(lambda: len(server.calls) >= 4)
            process.send_signal(signal.SIGHUP)
            _, err = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
    assert process.returncode == 0, err
    assert program.account() == {"done": N}


@pytest.mark.slow
@pytest.mark.parametrize("how", [("--output", "-"), ("--json",)])
async def test_K10_a_reader_that_leaves_stops_the_run_and_results_are_safe(
    program: Program, how: tuple[str, ...]
) -> None:
    rows = 400
    program.rows(f"row {number}" for number in range(rows))
    async with FaultServer(slow(0.05)) as server:
        args = [*program.send(server.base_url, "--concurrency", "4", "--concurrency-fixed"), *how]
        with program.going(*args) as process:
            assert process.stdout is not None
            await asyncio.to_thread(process.stdout.readline)
            process.stdout.close()
            await asyncio.to_thread(process.wait, PATIENCE)
            assert process.stderr is not None
            err = process.stderr.read()
        calls = len(server.calls)
    assert process.returncode == 141, err
    assert "Traceback" not in err
    assert calls < rows
    account = program.account()
    assert (account.get("done", 0), account["pending"]) == (calls, rows - calls)


@pytest.mark.slow
async def test_K6_an_interruption_while_it_connects_says_that_nothing_was_sent(program: Program) -> None:
    program.rows(["one"])
    async with FaultServer(on_connect=hang) as server:
        with program.going(*program.send(server.base_url.replace("http:", "https:"))) as process:
            await until(lambda: server.connections)
            process.send_signal(signal.SIGINT)
            _, err = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
    assert process.returncode == 130, err
    assert "interrupted before anything was sent" in err
    assert err.splitlines()[-1].endswith("1 pending = 1 input row; resume with: batchrun resume out.jsonl")


@pytest.mark.slow
async def test_K10_a_slow_reader_gets_every_row_once(program: Program) -> None:
    rows = [f"{number} {'long ' * 400}" for number in range(200)]
    program.rows(rows)
    async with FaultServer() as server:
        with program.going(*program.send(server.base_url), "--output", "-") as process:
            await until(lambda: len(server.calls) == len(rows))
            await until(lambda: program.account() == {"done": len(rows)})
            await asyncio.sleep(1)  # the run is over, and the pipe is full
            out, err = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
    assert process.returncode == 0, err
    assert [json.loads(line)["text"] for line in out.splitlines()] == rows


@pytest.mark.slow
async def test_K11_K12_a_stopped_program_sends_no_burst_and_retries_what_expired(program: Program) -> None:
    rows, rate, stopped = 100, 20, 5.0
    program.rows(f"row {number}" for number in range(rows))
    async with sim.running(sim.Settings(latency=sim.parse_latency("0.3"))) as server, Stalls() as stalls:
        with program.going(*program.send(server.base_url, "--rpm", str(rate * 60), "--timeout", "4s")) as process:
            await until(lambda: server.stats.calls >= 30)
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(stopped)
            process.send_signal(signal.SIGCONT)
            _, err = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
        burst = server.stats.view(prompts=False)["most_calls_in_1s"]
        most = max(server.stats.prompts.values())
    print(
        f"stopped for {stopped} s: most calls in 1 s {burst} at {rate}/s, the server held up for {stalls.worst:.2f} s;"
        f" most calls of a row {most}"
    )
    assert process.returncode == 0, err
    assert len(program.done()) == rows
    assert burst <= rate * (1 + stalls.worst) * 1.01 + 6
    assert most <= 2
    assert program.ask("SELECT count(*), count(DISTINCT row) FROM outcomes") == [(rows, rows)]


@pytest.mark.slow
async def test_K11_a_server_that_is_stopped_for_a_while_is_waited_for(program: Program) -> None:
    rows = 60
    program.rows(f"row {number}" for number in range(rows))
    with sim.spawn(sim.from_json({"latency": "0.05", "rpm": 1200})) as base_url:
        pid = _listener(base_url)
        args = program.send(base_url, "--timeout", "1s", "--max-attempts", "20")
        with program.going(*args) as process:
            await until(lambda: sim.stats(base_url, prompts=False)["answered"] >= 5)
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(4)
            os.kill(pid, signal.SIGCONT)
            _, err = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
    account = program.account()
    assert process.returncode in (0, 3), err
    assert account["done"] + account.get("failed", 0) == rows
    assert program.ask("SELECT count(*) FROM outcomes WHERE state = 'failed' AND permanent") == [(0,)]


def _listener(base_url: str) -> int:
    """The process behind a port: the one that has its listening socket."""
    port = f":{int(base_url.split(':')[2].split('/', maxsplit=1)[0]):04X}"
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    (inode,) = [fields[9] for fields in sockets if fields[1].endswith(port) and fields[3] == LISTENS]
    (pid,) = [entry.name for entry in Path("/proc").glob("[0-9]*") if f"socket:[{inode}]" in _open_files(entry)]
    return int(pid)


LISTENS = "0A"
"""A socket's state in /proc/net/tcp."""


def _open_files(process: Path) -> set[str]:
    try:
        return {os.readlink(entry) for entry in (process / "fd").iterdir()}
    except OSError:
        return set()  # it has ended, or is somebody else's


@pytest.mark.slow
@pytest.mark.parametrize(
    "jump", [-7200, pytest.param(7200, marks=pytest.mark.slow), pytest.param(10**9, marks=pytest.mark.slow)]
)
async def test_K13_a_wall_clock_that_jumps_changes_nothing(program: Program, jump: int) -> None:
    """Two hours back and forth, and to the year 2058."""
    program.rows(PLENTY)
    async with sim.running(sim.Settings(rpm=2400, latency=sim.parse_latency("0.05"))) as server:
        args = program.send(server.base_url, "--json")
        ran = await asyncio.to_thread(program.altered, "clock", str(jump), *args)
        burst = server.stats.view(prompts=False)["most_calls_in_1s"]
    assert ran.returncode == 0, ran.stderr
    assert len(program.done()) == N
    etas = [event["eta"] for line in ran.stdout.splitlines() if (event := json.loads(line)).get("eta") is not None]
    assert all(eta >= 0 for eta in etas)
    assert burst <= 40 * 1.01 + 3
    query = "SELECT count(*) FROM attempts WHERE seconds < 0 OR seconds > 60"
    assert program.ask(query) == [(0,)]


@pytest.mark.slow
def test_K17_a_short_soak_keeps_memory_descriptors_and_threads_flat() -> None:
    bad = campaign_soak.soak(6000)
    assert set(bad) <= {"throughput"}  # of seconds on a shared machine; `make soak` judges minutes
