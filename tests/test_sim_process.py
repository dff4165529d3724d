"""The simulated provider as a process: it starts fast, holds no key, and never outlives its parent."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
from waiting import PATIENCE

from batchrun import sim
from batchrun.errors import RefusedError


def ask(base_url: str, text: str = "Hello.") -> str:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()
    with urlopen(Request(f"{base_url}/chat/completions", body)) as answer:
        return json.loads(answer.read())["choices"][0]["message"]["content"]


def listens(base_url: str) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", urlsplit(base_url).port or 0)) == 0


def gone_within(base_url: str, seconds: float) -> bool:
    with socket.socket() as sock:
        sock.settimeout(seconds)
        if sock.connect_ex(("127.0.0.1", urlsplit(base_url).port or 0)):
            return True
        try:
            return sock.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False


BEFORE: set[int] = set()
"""Children that this process has from elsewhere: the provider that other tests share."""


@pytest.fixture(autouse=True)
def _children_before() -> None:
    BEFORE.clear()
    BEFORE.update(children())


def children() -> list[int]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if parent_of(pid) == os.getpid() and pid not in BEFORE]


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def processor_time() -> float:
    """Seconds that the children of this process took in all, once they have ended."""
    used = os.times()
    return used.children_user + used.children_system


def test_it_serves_for_the_length_of_the_context() -> None:
    before = processor_time()
    with sim.spawn(sim.Settings()) as base_url:
        assert ask(base_url) == "[simulated] Hello."
        assert sim.stats(base_url)["calls"] == 1
    assert not listens(base_url)
    assert children() == []
    took = processor_time() - before
    print(f"it took {took:.3f} s of the processor")
    assert took < 5 * 0.4


def test_it_is_steered_from_outside() -> None:
    with sim.spawn(sim.Settings(faults=(sim.parse_fault("quota=1"),))) as base_url:
        with pytest.raises(HTTPError, match="429") as refused:
            ask(base_url)
        refused.value.close()
        sim.change(base_url, faults=[], record=True)
        assert ask(base_url, "Fixed.") == "[simulated] Fixed."
        assert [entry["text"] for entry in sim.log(base_url)] == ["Fixed."]
        assert sim.stats(base_url, prompts=False)["by_status"] == {"200": 1, "429": 1}
        with pytest.raises(ValueError, match="Unknown setting: 'rpn'"):
            sim.change(base_url, rpn=5)
        sim.down(base_url, 60)
        assert gone_within(base_url, 50)


def test_it_gets_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    with sim.spawn(sim.Settings()):
        (pid,) = children()
        assert b"canary" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert b"canary" not in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_port_that_is_taken_is_refused_with_a_hint() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(RefusedError, match=f"cannot listen on port {port}") as refused,
            sim.spawn(sim.Settings(port=port)),
        ):
            pass
    assert refused.value.hint == "omit the port to use a free one"


PARENT = """
import sys
from batchrun import sim
with sim.spawn(sim.Settings()) as base_url:
    {then}
    print(base_url, flush=True)
    sys.stdin.read()
"""
HOLDING = "import os, subprocess; [os.set_inheritable(fd, True) for fd in range(3, 20) if os.path.exists(f'/proc/self/fd/{fd}')]; subprocess.Popen(['sleep', '30'], close_fds=False)"


@pytest.mark.parametrize("then", ["pass", HOLDING], ids=["alone", "with a child that inherits everything"])
def test_a_parent_killed_leaves_no_server(then: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(then=then)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout
        base_url = parent.stdout.readline().strip()
        assert listens(base_url)
        parent.kill()
        assert gone_within(base_url, 20)  # promised 0.5; and the child holds on for longer


def test_ctrl_c_reaches_only_the_parent() -> None:
    with sim.spawn(sim.Settings()) as base_url:
        (pid,) = children()
        assert os.getpgid(pid) != os.getpgid(0)
        assert listens(base_url)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_as_a_command_it_says_where_it_listens_and_ends_by_a_signal(number: int) -> None:
    code = "from batchrun import sim; sim.run(sim.Settings())"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout
        assert run.stderr
        line = run.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:")
        assert ask(line.split()[-1]) == "[simulated] Hello."
        run.send_signal(number)
        assert run.wait(PATIENCE) == 0
        assert run.stderr.read() == ""
