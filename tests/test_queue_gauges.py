"""What an inference server says of its own queue, and how many requests are in flight for it; time is simulated."""

import asyncio
import json
from collections.abc import Mapping

import pytest
from gates import OK, Scene, now
from multidict import CIMultiDict
from wire import FaultServer, Peer, head
from yarl import URL

from batchrun.client import Client
from batchrun.client.trust import is_private
from batchrun.engine.monitors import QueueWatch
from batchrun.limits import Limits, Queue, read_queue
from batchrun.models import Exchange

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="Qwen/Qwen3 \\"8B\\" {x}"} 12.0
vllm:num_requests_running{engine="1",model_name="Qwen/Qwen3 \\"8B\\" {x}"} 11.0
vllm:num_requests_waiting{engine="0",model_name="Qwen/Qwen3 \\"8B\\" {x}"} 3.0
vllm:num_requests_waiting{engine="1",model_name="Qwen/Qwen3 \\"8B\\" {x}"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 3.0
"""
SGLANG = 'sglang:num_running_reqs{tp_rank="0"} 8\nsglang:num_queue_reqs{tp_rank="0"} 4\n'
LLAMA = "# TYPE llamacpp:requests_deferred gauge\nllamacpp:requests_deferred 46\nllamacpp:requests_processing 4\n"
READINGS = {
    "several engines": (VLLM, Queue("vLLM", 23, 3)),
    "CRLF": (VLLM.replace("\n", "\r\n"), Queue("vLLM", 23, 3)),
    "SGLang": (SGLANG, Queue("SGLang", 8, 4)),
    "llama.cpp": (LLAMA, Queue("llama.cpp", 4, 46)),
    "as a JSON string": (json.dumps(LLAMA), Queue("llama.cpp", 4, 46)),
    "TGI": ("tgi_batch_current_size 8\ntgi_queue_size 7 1700000000000\n", Queue("TGI", 8, 7)),
    "nothing that waits is said": ("vllm:num_requests_running 2\n", Queue("vLLM", 2, 0)),
    "other metrics": ("http_requests_total 12\npython_info 1\n", None),
    "NaN": ("vllm:num_requests_running NaN\n", None),
    "no number": ("vllm:num_requests_running many\n", None),
    "half a string": ('"vllm:num_req', None),
    "a page": ("<html>Not Found</html>", None),
    "nothing": ("", None),
}


@pytest.mark.parametrize("text", READINGS)
def test_the_gauges_of_servers_are_read(text: str) -> None:
    assert read_queue(READINGS[text][0]) == READINGS[text][1]


PRIVATE = {
    "http://gpu.example.com/v1": True,
    "https://127.0.0.1:8000/v1": True,
    "https://[::1]:8000/v1": True,
    "https://10.1.2.3/v1": True,
    "https://[fd00::1]/v1": True,
    "https://vllm:8000/v1": True,
    "https://gpu-1.local/v1": True,
    "https://llm.corp.internal/v1": True,
    "https://api.openai.com/v1": False,
    "https://8.8.8.8/v1": False,
    "https://[2606:4700::1]/v1": False,
}


@pytest.mark.parametrize("url", PRIVATE)
def test_servers_of_ones_own_are_told_from_hosted_ones(url: str) -> None:
    assert is_private(URL(url)) is PRIVATE[url]


class Server:
    """Works on `slots` requests at a time, `seconds` each, and queues the rest. `others` wait and are worked on for somebody
    else. It stands in the place of the client as well: `answer` is the status of its metrics, None for no connection."""

    def __init__(self, slots: int, seconds: float = 0.5, *, others: tuple[int, int] = (0, 0)) -> None:
        self._free = asyncio.Semaphore(slots - others[0])
        self._slots, self._seconds, self._others = slots - others[0], seconds, others
        self.here = self.most = self.looks = 0
        self.answer: int | None = 200

    def open_calls(self) -> "Server":
        return self

    async def call(self, method: str, path: str) -> Exchange:
        assert (method, path) == ("GET", "metrics")
        self.looks += 1
        running = min(self.here, self._slots)
        text = f"vllm:num_requests_running {running + self._others[0]}\n"
        text += f"vllm:num_requests_waiting {self.here - running + self._others[1]}\n"
        return Exchange(self.answer or 0, CIMultiDict(), text.encode(), now(), now(), None, "", True)

    async def row(self, scene: Scene) -> None:
        permit = await scene.send()
        self.here += 1
        self.most = max(self.most, self.here)
        async with self._free:
            await asyncio.sleep(self._seconds)
        self.here -= 1
        scene.gate.settle(permit, OK)


async def play(server: Server, rows: int, limits: Limits, *, settled: float = 5.0) -> Scene:
    """All rows go to the server; from `settled` seconds on `server.most` counts anew."""
    scene = Scene(limits)
    watch = asyncio.create_task(QueueWatch(scene.gate, server).watch())  # type: ignore[arg-type]
    asyncio.get_running_loop().call_later(settled, lambda: setattr(server, "most", 0))
    await asyncio.gather(*(server.row(scene) for _ in range(rows)))
    watch.cancel()
    return scene


@pytest.mark.looptime(noop_cycles=0)
@pytest.mark.parametrize("slots", [1, 4, 16, 64])
async def test_in_flight_stays_at_what_the_server_works_on(slots: int) -> None:
    server = Server(slots)
    await play(server, 40 * slots, Limits())
    assert slots < server.most <= slots + max(3, slots / 4)
    assert now() <= 1.1 * 20.0


@pytest.mark.looptime(noop_cycles=0)
async def test_the_cap_grows_where_nothing_waits_and_the_user_has_chosen_none() -> None:
    server = Server(700)
    scene = await play(server, 14_000, Limits(most=1024))
    assert scene.gate.cap == 1024
    assert server.most > 600
    assert now() < 14_000 / 256 * 0.5  # what the cap of 256 would take


@pytest.mark.looptime(noop_cycles=0)
async def test_the_cap_of_the_user_stays() -> None:
    server = Server(700)
    scene = await play(server, 5_000, Limits(cap=100))
    assert scene.gate.cap == 100
    assert server.most == 100


@pytest.mark.looptime(noop_cycles=0)
async def test_a_server_that_others_use_as_well_is_shared() -> None:
    """Of its 32 slots they hold 16, and 16 of theirs wait: as many of ours are with it as it has slots."""
    server = Server(32, others=(16, 16))
    await play(server, 640, Limits())
    assert 32 <= server.most <= 40


@pytest.mark.looptime(noop_cycles=0)
async def test_one_look_at_which_requests_wait_changes_nothing() -> None:
    scene = Scene(Limits())
    for queue in (Queue("vLLM", 2, 14), Queue("vLLM", 16, 0), Queue("vLLM", 3, 13), None, Queue("vLLM", 2, 14)):
        scene.gate.apply_queue(queue)
        assert scene.gate.view().allowed == 16


@pytest.mark.looptime(noop_cycles=0)
@pytest.mark.parametrize(("status", "looks"), [(404, 1), (401, 1), (501, 1), (200, 1), (503, 3), (None, 3)])
async def test_what_is_not_offered_is_not_asked_for_again(status: int | None, looks: int) -> None:
    class Silent(Server):
        async def call(self, method: str, path: str) -> Exchange:
            return (await super().call(method, path))._replace(body=b"requests_total 3\n")

    server = Silent(16)
    server.answer = status
    await play(server, 640, Limits())
    assert server.looks == looks


@pytest.mark.looptime(noop_cycles=0)
async def test_a_server_whose_figures_end_is_tried_like_any_other() -> None:
    server = Server(16)
    asyncio.get_running_loop().call_later(6.0, lambda: setattr(server, "answer", None))
    scene = await play(server, 3_000, Limits(), settled=10.0)
    assert server.looks > 60
    assert server.most > 20  # which nobody tries while the server says that requests wait
    assert scene.gate.view().allowed < 64


async def test_metrics_are_asked_for_without_the_key_beside_the_rows() -> None:
    asked: list[Mapping[str, str]] = []

    async def connection(peer: Peer) -> None:
        first = await peer.reader.readuntil(b"\r\n\r\n")
        asked.append(dict(line.split(": ", 1) for line in first.decode().split("\r\n")[1:-2]))
        assert first.startswith(b"GET /metrics HTTP/1.1\r\n")
        await peer.send(head(200, [("Content-Length", str(len(LLAMA)))]) + LLAMA.encode())

    async with FaultServer(on_connect=connection) as server:
        client = Client(base_url=server.base_url, api_key="sk-secret-of-a-test", headers={"X-Team": "a"})
        exchange = await client.open_calls().call("GET", "metrics")
    assert read_queue(exchange.body.decode()) == Queue("llama.cpp", 4, 46)
    assert [sorted(name.lower() for name in headers) for headers in asked] == [
        ["accept", "accept-encoding", "connection", "host", "user-agent"]
    ]
