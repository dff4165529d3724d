"""Runs whose requests are made by child processes, in real ones: the command line, and what becomes of a child that dies."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from engine import PLAN
from wire import CA_FILE, FaultServer, Peer, chat, whole

from batchrun import sim
from batchrun.client.senders.children import Child, Children
from batchrun.client.senders.frames import Receiver
from batchrun.client.senders.hub import Hub
from batchrun.client.senders.remote import RemoteClient
from batchrun.client.senders.states import Beat
from batchrun.engine.connect import connected
from batchrun.journal import LONG_TEXT
from batchrun.models import Endpoint, Exchange, Fault, Request
from batchrun.plan.keys import Key
from batchrun.plan.resolve import Access
from batchrun.secrecy import Mask

KEY = "sk-a-key-that-nobody-may-see"
REQUEST = Request(Endpoint.CHAT, b'{"messages": []}', None)


class Started:
    """Starts children and remembers them."""

    def __init__(self) -> None:
        self.children: list[Child] = []
        self._start = Children({"PATH": os.environ["PATH"]}).start

    async def __call__(self, receiver: Receiver) -> Child:
        self.children.append(await self._start(receiver))
        return self.children[-1]


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  what is waited for happens in another process
        await asyncio.sleep(0.01)


async def test_exchanges_of_a_child_are_those_of_a_client_in_this_process() -> None:
    async with FaultServer(whole(chat(), 200, ("X-Limit", "7")), whole(b"{}", 429), certificate="trusted") as server:
        start = Started()
        async with (
            Hub(start, 1) as hub,
            RemoteClient(
                hub, base_url=server.base_url, api_key=KEY, headers={"X-Team": "a"}, ca_file=CA_FILE
            ) as client,
        ):
            await hub.ready()
            first = await client.send(REQUEST, timeout=60)
            second = await client.send(REQUEST, timeout=60)
    assert (first.status, first.body, first.headers["x-limit"], first.sent) == (200, chat(), "7", True)
    assert 0 <= first.ended - first.left < 60
    assert (second.status, second.body) == (429, b"{}")
    assert [call.headers["authorization"] for call in server.calls] == [f"Bearer {KEY}"] * 2
    assert server.calls[0].headers["x-team"] == "a"
    assert start.children[0].ended


async def test_a_large_body_and_a_large_reply_come_through_whole() -> None:
    large = chat("x" * 3_000_000)
    body = b'{"messages": "' + b"y" * 3_000_000 + b'"}'
    async with (
        FaultServer(whole(large)) as server,
        Hub(Started(), 1) as hub,
        RemoteClient(hub, base_url=server.base_url) as client,
    ):
        await hub.ready()
        exchange = await client.send(REQUEST._replace(body=body), timeout=60)
    assert server.calls[0].body == body
    assert exchange.body == large


async def test_a_deadline_is_the_childs_and_a_refused_connection_never_left() -> None:
    async def never(peer: Peer) -> None:
        await peer.reader.read()

    async with (
        FaultServer(whole(), never) as server,
        Hub(Started(), 1) as hub,
        RemoteClient(hub, base_url=server.base_url) as client,
        RemoteClient(hub, base_url="http://127.0.0.1:1/v1") as nobody,
    ):
        await hub.ready()
        await client.send(REQUEST, timeout=60)  # the connection is there
        late = await client.send(REQUEST, timeout=0.2)
        refused = await nobody.send(REQUEST, timeout=60)
    assert (late.fault, late.sent) == (Fault.DEADLINE, True)
    assert (refused.fault, refused.sent) == (Fault.REFUSED, False)


@pytest.mark.parametrize("fault", ["SIGKILL", "SIGSTOP"])
async def test_what_a_dead_or_frozen_child_had_is_lost_and_others_go_on(fault: str) -> None:
    release = asyncio.Event()

    async def held(peer: Peer) -> None:
        await release.wait()
        await whole()(peer)

    start = Started()
    beat = Beat(0.05, 0.3, 60.0 if fault == "SIGKILL" else 1.0, 60.0)
    async with (
        FaultServer(held) as server,
        Hub(start, 2, beat=beat) as hub,
        RemoteClient(hub, base_url=server.base_url) as client,
    ):
        await until(lambda: hub.view.ready == 2)
        tasks = [asyncio.create_task(client.send(REQUEST, timeout=60)) for _ in range(6)]
        await until(lambda: len(server.calls) == 6)
        os.kill(start.children[0].pid, getattr(signal, fault))
        lost = set[asyncio.Task[Exchange]]()
        while len(lost) < 3:
            lost |= (await asyncio.wait(set(tasks) - lost, return_when=asyncio.FIRST_COMPLETED))[0]
        assert {task.result().fault for task in lost} == {Fault.LOST}
        release.set()
        others = await asyncio.gather(*(set(tasks) - lost))
        while (again := await client.send(REQUEST, timeout=60)).fault is Fault.LOST:
            pass  # a busy machine may keep any child silent for longer than this test's second
    assert again.status == 200
    assert {exchange.fault for exchange in others} <= {None, Fault.LOST}
    assert all(child.ended for child in start.children)


def test_a_run_with_two_processes_writes_every_row_in_order(tmp_path: Path) -> None:
    rows = [{"id": f"r{number}", "text": f"row {number}"} for number in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with sim.spawn(sim.from_json({"latency": "0.01", "require_key": True, "reply": "echo"})) as url:
        words = ["-i", "rows.jsonl", "-p", "{{ text }}", "-m", "m", "--base-url", url, "-o", "out.jsonl", "--json"]
        ran = subprocess.run(
            [sys.executable, "-m", "batchrun", "run", *words, "--processes", "2"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
            env={**os.environ, "OPENAI_API_KEY": KEY, "XDG_CONFIG_HOME": str(tmp_path / "none")},
        )  # fmt: skip
        calls = sim.stats(url, prompts=False)["calls"]
    assert ran.returncode == 0, ran.stderr
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert written == [{**row, "output": written[n]["output"]} for n, row in enumerate(rows)]
    assert all(row["text"] in row["output"] for row in written)
    assert calls == 60
    senders = [event for event in map(json.loads, ran.stdout.splitlines()) if event["event"] == "senders"]
    assert senders[-1]["ready"] >= 1
    assert KEY not in ran.stdout + ran.stderr


async def test_no_secret_is_in_the_arguments_or_the_environment_of_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    started = subprocess.Popen

    def watched(words: list[str], **options: object) -> object:
        seen.extend([*words, *map(str, options["env"].items())])  # type: ignore[attr-defined]
        return started(words, **options)  # type: ignore[call-overload]

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("HTTPS_PROXY", f"http://u:{KEY}@127.0.0.1:1")
    monkeypatch.setattr(subprocess, "Popen", watched)
    async with FaultServer() as server:
        plan = replace(PLAN, base_url=server.base_url, processes=2)
        access = Access(Key(KEY, "OPENAI_API_KEY"), {}, Mask([KEY]))
        async with connected(plan, access, None) as (member,):
            assert member.client is not None
            await member.client.send(REQUEST, timeout=60)
        assert server.calls[0].headers["authorization"] == f"Bearer {KEY}"
    assert seen
    assert KEY not in " ".join(seen)


async def test_children_send_long_requests_of_the_input_to_the_byte(tmp_path: Path) -> None:
    texts = [
        "short",
        *(f"{number} {'ä€' * LONG_TEXT}" for number in range(12)),
        f"data:image/png;base64,{'A' * 50_000}",
    ]
    bodies = [json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}) for text in texts]
    lines = [
        f'{{"custom_id": "{number}", "method": "POST", "url": "/v1/chat/completions", "body": {body} }}\n'
        for number, body in enumerate(bodies)
    ]
    (tmp_path / "in.jsonl").write_text("".join(lines))
    async with FaultServer(whole(chat())) as server:
        words = ["-i", "in.jsonl", "--base-url", server.base_url, "-o", "out.jsonl", "--processes", "2"]
        ran = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "batchrun", "run", *words),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OPENAI_API_KEY": KEY, "XDG_CONFIG_HOME": str(tmp_path / "none")},
        )
        said, _ = await ran.communicate()
        assert ran.returncode == 0, said
        assert sorted(call.body for call in server.calls) == sorted(body.encode() for body in bodies)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == len(bodies)
