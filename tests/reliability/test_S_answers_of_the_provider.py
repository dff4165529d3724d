"""Answers that concern the whole run: the key, the account, the address, the rate, an outage."""

import asyncio
import json
import signal
from collections.abc import Awaitable
from itertools import pairwise
from pathlib import Path

import pytest
from program import CANARY, Program, Ran, holds_once, until
from waiting import PATIENCE, a_while
from wire import Answer, Call, FaultServer, Peer, chat, head, page, raw, redirect, whole

from batchrun import sim

C = 4
N = 60
PLENTY = [f"row {number}" for number in range(N)]


def error(status: int, message: str, *headers: tuple[str, str], **members: object) -> Answer:
    body = json.dumps({"error": {"message": message, **members}}).encode()
    return whole(body, status, *headers)


async def echo(peer: Peer) -> None:
    """A 401 that repeats the key it was sent, as it came."""
    assert peer.call is not None
    key = peer.call.headers["authorization"]
    await error(401, f"Incorrect API key provided: {key}", code="invalid_api_key")(peer)


FATAL: dict[str, tuple[Answer, int]] = {
    "S6 no quota": (error(429, "You exceeded your quota", ("Retry-After", "1"), code="billing_hard_limit_reached"), C),
    "S6 no credit": (error(429, "no credit", type="credit_balance_exhausted"), C),
    "S7 wrong key": (echo, C),
    "S7 forbidden": (error(403, "not for you"), C),
    "S8 no model": (error(404, "no such model", code="model_not_found"), C),
    "S8 no model as 400": (error(400, "no such model", code="model_not_found"), C),
    "S8 a web page": (page(404), C),
    "S9 wrong key as 400": (error(400, "no key", code="no_db_connection"), 20 + C),
    "S9 no key as 500": (whole(b"missing key", 500, ("Content-Type", "text/plain")), 40 + C),
    "S24 redirect": (redirect("http://127.0.0.1:9/v1/chat/completions"), C),
    "S26 everything fails": (error(500, "broken"), 40 + C),
}
"""Answers to every request, and how many calls may be made before the run has stopped: those of 20 rows at most, and
where the answer may pass their retries, too."""


QUICK = {"S6 no quota", "S7 wrong key", "S8 a web page", "S26 everything fails"}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FATAL]
)
async def test_S6_S7_S8_S9_S24_S26_a_fatal_answer_stops_the_run_and_rows_stay_pending(
    program: Program, name: str
) -> None:
    answer, most = FATAL[name]
    program.rows(PLENTY)
    async with FaultServer(answer) as server:
        ran = await program.run(*program.send(server.base_url, "--concurrency", str(C), "--verbose"))
    assert ran.code == 4, ran.err
    assert len(server.calls) <= most
    assert program.account() == {"pending": N}
    assert ran.account.endswith("resume with: batchrun resume out.jsonl")
    assert CANARY not in ran.err
    assert ran.err.count("stopped: ") == 1
    assert ("check the base URL, with" in ran.err) == (name == "S8 a web page")


@pytest.mark.slow
async def test_S2_nobody_comes_back_before_the_stated_time(program: Program) -> None:
    await holds_once(3, lambda number: told_to_wait(program.beside(f"{number}")))


async def told_to_wait(program: Program) -> list[str]:
    program.rows(PLENTY)
    refused = error(429, "slow down", ("Retry-After", "2"))
    times: list[float] = []

    def choose(_: Call, __: int) -> Answer:
        times.append(asyncio.get_running_loop().time())
        return refused if len(times) == 10 else whole()

    async with FaultServer(choose=choose) as server:
        ran = await program.run(*program.send(server.base_url, "--concurrency", "2", "--concurrency-fixed"))
    assert ran.code == 0, ran.err
    waited = max(later - earlier for earlier, later in pairwise(times))
    print(f"Retry-After: 2, measured {waited:.3f} s (promised: 2.0 to 2.4)")
    assert waited >= 1.999
    assert len(times) == N + 1
    return [] if waited <= 2.4 + 1.6 else ["as soon as it may"]


@pytest.mark.slow
async def test_S3_S5_every_way_to_name_a_wait_is_obeyed_or_replaced_by_a_back_off(program: Program) -> None:
    ways: list[tuple[str, str]] = [
        ("retry-after-ms", "700"), ("Retry-After", "0.3"), ("Retry-After", "0"), ("Retry-After", "-5"),
        ("Retry-After", "soon"), ("Retry-After", "NaN"), ("Retry-After", "1" + "0" * 400),
        ("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT"), ("llm_provider-retry-after", "1"),
    ]  # fmt: skip
    texts = [f"{name}={value}" for name, value in ways]
    program.rows(["good", *texts])

    def choose(call: Call, number: int) -> Answer:
        name, _, value = call.prompt.partition("=")
        kind = "internal_server_error" if name.startswith("llm") else "concurrency"
        return (
            error(429, "too many concurrent requests", (name, value), type=kind) if value and number == 1 else whole()
        )

    async with FaultServer(choose=choose) as server:
        ran = await program.run(*program.send(server.base_url, "--concurrency", "1", "--concurrency-fixed"))
        assert ran.code == 0, ran.err
        calls = dict(server.prompts)
        gaps = {
            call.prompt: later - earlier
            for call, (earlier, later) in zip(server.calls, pairwise(server.times), strict=False)
        }
    assert calls == {"good": 1} | dict.fromkeys(texts, 2)
    print({name[:40]: round(gap, 2) for name, gap in gaps.items()})
    assert program.ask("SELECT sum(counted) FROM attempts WHERE throttled") == [(0,)]


@pytest.mark.slow
async def test_S3_a_wait_of_an_hour_is_announced_and_burns_nothing(program: Program) -> None:
    program.rows(PLENTY)
    async with FaultServer(whole(), error(429, "slow down", ("Retry-After", "3600"))) as server:
        with program.going(*program.send(server.base_url, "--concurrency", "2", "--json")) as process:
            assert process.stdout is not None
            told: dict[str, object] = {}
            while told.get("event") != "waiting":
                told = json.loads(await asyncio.to_thread(process.stdout.readline))
            await a_while(0.2)  # what had left by then arrives
            calls = len(server.calls)
            await a_while(0.5)
            process.send_signal(signal.SIGINT)
            await asyncio.to_thread(process.communicate)
        assert "429" in str(told)
        assert len(server.calls) == calls <= 4
    assert process.returncode == 130
    assert program.account() == {"done": 1, "pending": N - 1}


@pytest.mark.slow
async def test_S28_a_server_that_queues_is_not_drowned_for_long(program: Program) -> None:
    """It serves 4 at once, 0.1 s each, and lets the rest wait: 40 rows/s is the best that any concurrency gets."""
    await holds_once(3, lambda number: queued(program.beside(f"{number}")))


async def queued(program: Program) -> list[str]:
    rows, knee, latency = 600, 4, 0.1
    program.rows(f"row {number}" for number in range(rows))
    settings = sim.Settings(concurrency=knee, queue=True, latency=sim.parse_latency(str(latency)))
    async with sim.running(settings) as server:
        ran = await program.run(*program.send(server.base_url))
    assert ran.code == 0, ran.err
    times = program.ask("SELECT began, ended FROM attempts ORDER BY ended")
    first = min(began for began, _ in times)
    half = times[rows // 2 :]
    waits = sorted(ended - began for began, ended in half)
    moments = [half[0][1] + step * 0.05 for step in range(int((half[-1][1] - half[0][1]) / 0.05))]
    flying = sorted(sum(began <= moment < ended for began, ended in times) for moment in moments)
    best, got = knee / latency, len(half) / (half[-1][1] - half[0][1])
    middle, late = flying[len(flying) // 2], waits[int(0.95 * len(waits))]
    print(
        f"second half: {got / best:.0%} of the best (promised 90 %), {middle} in flight (8), p95 {late:.2f} s;"
        f" whole run: {rows / (times[-1][1] - first) / best:.0%}, longest {max(e - b for b, e in times):.1f} s"
    )
    promised = {"in flight": middle <= 2 * knee, "p95": late <= 5 * latency, "rate": got >= 0.9 * best}
    return [name for name, holds in promised.items() if not holds]


@pytest.mark.slow
async def test_S29_an_answer_after_the_deadline_is_lost_and_the_row_has_one_outcome(program: Program) -> None:
    program.rows(["good", "late"])
    again = asyncio.Event()

    async def late(peer: Peer) -> None:
        await again.wait()
        await asyncio.sleep(0.2)
        await whole(chat("first"))(peer)

    def choose(call: Call, number: int) -> Answer:
        if call.prompt == "late" and number == 1:
            return late
        if call.prompt == "late":
            again.set()
        return whole(chat("second"))

    async with FaultServer(choose=choose) as server:
        ran = await program.run(*program.send(server.base_url, "--timeout", "4s"))
        assert server.prompts["late"] == 2
    assert ran.code == 0, ran.err
    assert program.done() == {"r1": "second", "r2": "second"}
    assert program.ask("SELECT count(*), sum(possibly_billed) FROM attempts") == [(3, 1)]


async def bad_request(peer: Peer) -> None:
    """What a server that speaks plain HTTP says to a TLS hello."""
    await peer.reader.read(1)
    await raw(head(400, [("Content-Length", "0")]), then="finish")(peer)


async def _all(*tries: Awaitable[Ran]) -> list[Ran]:
    return list(await asyncio.gather(*tries))


@pytest.mark.slow
async def test_S22_a_host_that_cannot_be_reached_or_trusted_is_refused_before_the_first_call(program: Program) -> None:
    program.rows(PLENTY)
    async with FaultServer(certificate="self_signed") as untrusted, FaultServer(on_connect=bad_request) as plain:
        addresses = {
            "name": ("https://no-such-host.invalid/v1", "no-such-host.invalid"),
            "refused": ("http://127.0.0.1:9/v1", "refused"),
            "self-signed": (untrusted.base_url, "certificate"),
            "plain": (plain.base_url.replace("http:", "https:"), "TLS"),
        }
        runs = (program.run(*program.send(url, output=f"{name}.jsonl")) for name, (url, _) in addresses.items())
        ended = dict(zip(addresses, await _all(*runs), strict=True))
        assert not untrusted.calls
        assert not plain.calls
    for name, (_, said) in addresses.items():
        assert ended[name].code == 2, (name, ended[name].err)
        assert said in ended[name].err, (name, ended[name].err)
        assert "Traceback" not in ended[name].err


async def test_S25_loopback_never_goes_through_a_proxy(program: Program) -> None:
    program.rows(["one"])
    proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"), "http://u:secret-pw@127.0.0.1:9")
    async with FaultServer() as server:
        ran = await program.run(*program.send(server.base_url), env=proxies)
    assert ran.code == 0, ran.err
    assert "secret-pw" not in ran.err


@pytest.mark.slow
async def test_S25_the_proxy_is_named_without_its_credentials(program: Program) -> None:
    program.rows(["one"])
    ran = await program.run(
        *program.send("https://api.invalid/v1"), env={"HTTPS_PROXY": "http://user:secret-pw@127.0.0.1:9"}
    )
    assert ran.code == 2
    assert "127.0.0.1:9" in ran.err
    assert "secret-pw" not in ran.err


@pytest.mark.slow
async def test_S11_S20_poison_in_the_last_rows_is_not_taken_for_an_outage(program: Program) -> None:
    """The last rows of a run that all fail for their own reasons use up their attempts; nobody waits ten minutes."""
    program.rows([*PLENTY[:20], *(f"poison {number}" for number in range(8))])

    def choose(call: Call, _: int) -> Answer:
        return raw(b"", then="reset") if call.prompt.startswith("poison") else whole()

    async with FaultServer(choose=choose) as server:
        ran = await program.run(*program.send(server.base_url, "--max-attempts", "3"))
        assert all(server.prompts[f"poison {number}"] == 3 for number in range(8))
    assert ran.code == 3, ran.err
    assert program.account() == {"done": 20, "failed": 8}


@pytest.mark.slow
async def test_S1_a_storm_of_429s_without_a_hint_loses_no_row(program: Program) -> None:
    await holds_once(3, lambda number: stormed(program.beside(f"{number}")))


async def stormed(program: Program) -> list[str]:
    rows = 400
    program.rows(f"row {number}" for number in range(rows))
    settings = sim.Settings(rpm=1200, headers=False, retry_after="none", latency=sim.parse_latency("0.1"))
    async with sim.running(settings) as server:
        ran = await program.run(*program.send(server.base_url, "--concurrency", "64"))
        seen = server.stats
    assert ran.code == 0, ran.err
    assert len(program.done()) == rows
    ends = [end for (end,) in program.ask("SELECT ended FROM attempts WHERE reply IS NOT NULL ORDER BY ended")]
    settled = (rows - rows // 2) / (ends[-1] - ends[rows // 2 - 1])
    print(f"{rows} rows at 20/s in {ran.seconds:.1f} s; {seen.calls} calls; second half {settled:.1f}/s (promised 16)")
    assert program.ask("SELECT sum(counted) FROM attempts WHERE throttled") == [(0,)]
    return [] if settled >= 0.8 * 20 else ["rate"]


@pytest.mark.slow
async def test_S4_a_stated_limit_is_used_and_never_overrun(program: Program) -> None:
    await holds_once(3, lambda number: limited(program.beside(f"{number}")))


async def limited(program: Program) -> list[str]:
    rate, seconds = 30, 10
    program.rows(f"row {number}" for number in range(rate * seconds))
    settings = sim.Settings(rpm=rate * 60, latency=sim.parse_latency("0.2"))
    async with sim.running(settings) as server:
        ran = await program.run(*program.send(server.base_url))
        stats = server.stats.view(prompts=False)
    assert ran.code == 0, ran.err
    refused = stats["calls"] - rate * seconds
    took = stats["last"] - stats["first"]
    print(
        f"used {rate * seconds / took / rate:.1%} of the limit from the first call on, 429s {refused / stats['calls']:.2%}"
    )
    assert stats["most_admitted_in_1s"] <= rate * 1.01 + 3
    promised = {"429s": refused / stats["calls"] < 5 * 0.005, "use of the limit": took <= seconds / 0.97 + 5}
    return [name for name, holds in promised.items() if not holds]


@pytest.mark.slow
async def test_S18_large_replies_are_stored_and_memory_is_bounded(program: Program) -> None:
    size, concurrency = 32 * 1024 * 1024, 2
    program.rows(f"row {number}" for number in range(6))
    body = chat("x" * size)
    async with FaultServer(whole(body)) as server:
        args = program.send(server.base_url, "--concurrency", str(concurrency), "--concurrency-fixed")
        most = 0
        with program.going(*args) as process:
            while process.poll() is None:
                most = max(most, _resident(process.pid))
                await asyncio.sleep(0.02)
            _, err = process.communicate()
    assert process.returncode == 0, err
    print(f"6 replies of 32 MB, 2 at once: at most {most / 1e6:.0f} MB resident")
    assert {len(text) for text in program.done().values()} == {size}
    assert most < 120e6 + 5 * concurrency * size


def _resident(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [4])
async def test_S21_S23_an_outage_in_the_middle_is_waited_out(program: Program, seconds: float) -> None:
    rows = 600
    program.rows(f"row {number}" for number in range(rows))
    async with sim.running(sim.Settings(latency=sim.parse_latency("0.1"))) as server:
        with program.going(*program.send(server.base_url, "--concurrency", "16", "--json")) as process:
            # Read from the start: a pipe that is full holds the run up.
            read = asyncio.create_task(asyncio.to_thread(process.communicate, timeout=PATIENCE))
            await until(lambda: server.stats.calls >= 100)
            server.down(seconds)
            out, err = await read
        most = max(server.stats.prompts.values())
    assert process.returncode == 0, err
    assert len(program.done()) == rows
    notices = [event["message"] for line in out.splitlines() if (event := json.loads(line))["event"] == "notice"]
    assert any("down" in notice for notice in notices)
    print(f"down for {seconds} s: all {rows} rows done, at most {most} calls of a row; {notices}")


@pytest.mark.slow
async def test_S27_a_tenth_of_503s_costs_little(program: Program) -> None:
    rows = 1000
    program.rows(f"row {number}" for number in range(rows))
    async with sim.running(sim.Settings(faults=(sim.parse_fault("503=0.1"),))) as server:
        ran = await program.run(*program.send(server.base_url))
        calls = server.stats.calls
    assert ran.code == 0, ran.err
    assert len(program.done()) == rows
    print(f"amplification {calls / rows:.3f} (promised: at most 1.15)")
    assert calls <= 1.15 * rows


@pytest.mark.slow
async def test_S23_a_program_that_is_stopped_while_the_provider_is_down_leaves_rows_pending(program: Program) -> None:
    program.rows(PLENTY)

    first = asyncio.Event()

    async def answer(peer: Peer) -> None:
        assert peer.call is not None
        if peer.call.prompt == "row 0":
            await whole()(peer)
            first.set()
        else:
            await first.wait()
            peer.reset()

    async with FaultServer(answer) as server:
        ran = await program.run(*program.send(server.base_url, "--give-up-after", "1s", "--concurrency", "32"))
    assert ran.code == 4, ran.err
    assert "the provider has been down" in ran.err
    account = program.account()
    assert account["done"] == 1
    assert account.get("failed", 0) == 0


@pytest.mark.slow
async def test_S31_two_runs_share_a_limit_and_both_end_whole(program: Program) -> None:
    await holds_once(3, lambda number: shared(program.beside(f"{number}")))


async def shared(program: Program) -> list[str]:
    rows, ideal = 80, 8.0
    program.rows(f"row {number}" for number in range(rows))
    async with sim.running(sim.Settings(rpm=1200)) as server:
        began = asyncio.get_running_loop().time()
        runs = (program.run(*program.send(server.base_url, output=f"{name}.jsonl")) for name in "ab")
        ended = await _all(*runs)
        took = asyncio.get_running_loop().time() - began
        calls, answered = server.stats.calls, server.stats.answered
    assert [ran.code for ran in ended] == [0, 0], [ran.err for ran in ended]
    assert len(program.done("a.jsonl")) == len(program.done("b.jsonl")) == rows
    times = ", ".join(f"{ran.seconds:.1f} s" for ran in ended)
    print(f"two runs of {rows} rows over 20/s (ideal {ideal:.0f} s): {times}; {calls - 2 * rows} × 429")
    assert answered == 2 * rows
    return [] if took <= 5 * ideal else ["use of the limit"]
