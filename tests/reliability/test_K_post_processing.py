"""Post-processing that crashes, hangs, talks, leaks or cannot be loaded, under the real program."""

import asyncio
import json
from pathlib import Path

import pytest
from program import CANARY, Program, until
from wire import FaultServer

pytestmark = pytest.mark.slow  # each test waits for runs of the whole program

SOURCE = """
import os, signal, time

def judge(reply):
    word = reply.fields["text"]
    print("looking at", word)
    if word == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "raises":
        raise ValueError(word)
    if word == "hangs":
        while True:
            pass
    if word == "odd":
        return {"value": lambda: None}
    if word == "exits":
        raise SystemExit(7)
    return {"judged": word}

def mended(reply):
    return {"judged": reply.fields["text"]}

def leak(reply):
    raise ValueError(f"{os.environ.get('OPENAI_API_KEY')} {dict(os.environ)}")

def noted(reply):
    with open("workers.txt", "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(0.1)
    return {"judged": True}
"""
BAD = ("killed", "raises", "hangs", "odd", "exits")


@pytest.fixture
def place(program: Program) -> Program:
    (program.directory / "f.py").write_text(SOURCE, encoding="utf-8")
    return program


async def test_K14_a_function_that_goes_wrong_fails_its_row_alone_and_the_reply_stays(place: Program) -> None:
    texts = [f"good {number}" for number in range(20)]
    for number, word in enumerate(BAD):
        texts.insert(3 * number + 1, word)
    place.rows(texts)
    async with FaultServer() as server:
        options = ("--post", "f.py:judge", "--workers", "2", "--post-timeout", "5s")
        ran = await place.run(*place.send(server.base_url, *options, output="-"))
        assert ran.code == 3, ran.err
        assert "Traceback" not in ran.err
        rows = [json.loads(line) for line in ran.out.splitlines()]  # whatever functions print, stdout has rows alone
        assert [row["judged"] for row in rows] == [text for text in texts if text not in BAD]
        ((replies,),) = place.ask("SELECT count(*) FROM replies")
        assert replies == len(texts) == len(server.calls)
        again = await place.run("post", "last", "--post", "f.py:mended")
        assert again.code == 0, again.err
        assert len(server.calls) == len(texts)
    assert place.account() == {"done": len(texts)}


async def test_K15_a_killed_run_leaves_no_worker_and_no_lock(place: Program) -> None:
    place.rows(f"row {number}" for number in range(200))
    workers = place.directory / "workers.txt"
    async with FaultServer() as server:
        with place.going(*place.send(server.base_url, "--post", "f.py:noted", "--workers", "2")) as process:
            await until(lambda: workers.exists() and len(set(workers.read_text().split())) == 2)
            process.kill()
            await asyncio.to_thread(process.wait)
        pids = [int(pid) for pid in set(workers.read_text().split())]
        assert process.pid not in pids
        began = asyncio.get_running_loop().time()
        await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
        took = asyncio.get_running_loop().time() - began
        ended = await place.run("resume")
    print(f"kill -9 to the last worker's end: {took:.2f} s (promised 5)")
    assert took <= 5 * 5
    assert ended.code == 0, ended.err
    assert place.account() == {"done": 200}
    assert max(server.prompts.values()) <= 2


CANNOT = {
    "no such file": ("nosuch.py:f", ""),
    "no such function": ("g.py:other", "def f(reply): return None"),
    "no syntax": ("g.py:f", "def f(reply:"),
    "a module that is missing": ("g.py:f", "import nosuchmodule\ndef f(reply): return None"),
    "raises when it is imported": ("g.py:f", "1 / 0"),
    "leaves when it is imported": ("g.py:f", "raise SystemExit(0)"),
}


@pytest.mark.parametrize("name", CANNOT)
async def test_K16_a_function_that_cannot_be_loaded_is_refused_before_the_first_call(place: Program, name: str) -> None:
    spec, source = CANNOT[name]
    (place.directory / "g.py").write_text(source, encoding="utf-8")
    place.rows(["one"])
    async with FaultServer() as server:
        ran = await place.run(*place.send(server.base_url, "--post", spec))
        assert ran.code == 2, ran.err
        assert "Traceback" not in ran.err
        assert not server.calls
    assert not (place.directory / ".batchrun").exists()


@pytest.mark.parametrize("workers", ["0", "2"])
async def test_X1_X2_a_function_that_complains_of_its_environment_does_not_tell_the_key(
    place: Program, workers: str
) -> None:
    place.rows(["one", "two"])
    async with FaultServer() as server:
        told = ("--verbose", "--log-file", "run.log", "--json")
        args = place.send(server.base_url, *told, "--post", "f.py:leak", "--workers", workers)
        ran = await place.run(*args)
    assert ran.code == 3, ran.err
    shown = await place.run("show", "last", "--failed")
    files = [path for path in place.directory.rglob("*") if path.is_file()]
    texts = [ran.out, ran.err, shown.out, *(path.read_bytes().decode("latin-1") for path in files)]
    assert any("ValueError" in text for text in texts)
    assert [text[:200] for text in texts if CANARY in text] == []


async def test_K14_a_worker_that_dies_again_and_again_costs_its_rows_and_not_the_run(place: Program) -> None:
    place.rows(["killed"] * 8 + ["good"] * 8)
    async with FaultServer() as server:
        ran = await place.run(*place.send(server.base_url, "--post", "f.py:judge", "--workers", "2"))
        assert len(server.calls) == 16
    assert ran.code == 3, ran.err
    assert place.account() == {"done": 8, "failed": 8}
