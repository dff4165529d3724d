"""Who is told of a run beside its output: a command or an address at its end, a metrics file while it goes on."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE, wait_until

from batchrun import progress
from batchrun.events import Waiting, WaitReason
from batchrun.report import observers

SAMPLE = re.compile(r'([a-z_]+)\{((?:[a-z_]+="(?:[^"\\]|\\.)*",?)+)\} (-?[0-9.e+]+)')
moment = threading.Event().wait


@pytest.fixture(autouse=True)
def _alone(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    Path("batchrun.toml").write_text('profile = "sim"\n[sim]\nlatency = "0.02"\n')
    Path("say.md").write_text("Say {{ text }}")
    Path("in.jsonl").write_text("".join(json.dumps({"id": f"r{n}", "text": f"row {n}"}) + "\n" for n in range(20)))


ARGUMENTS = ("-i", "in.jsonl", "-p", "say.md", "-o", "out.jsonl")


def began(*args: str, **environ: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "batchrun", *args]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env={**os.environ, **environ}, **streams)


def ran(*args: str, **environ: str) -> tuple[int, str, str]:
    process = began(*args, **environ)
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def script(text: str) -> str:
    """A command of one word after the interpreter."""
    Path("told.py").write_text(text)
    return f"'{sys.executable}' told.py"


KEEP = "import os, sys; open('account.json', 'w').write(sys.stdin.read()); open('environ', 'w').write(repr(dict(os.environ)))"


def test_a_command_gets_the_account_and_no_key():
    code, out, err = ran(*ARGUMENTS, "--notify", script(KEEP + "; print('noise')"), "--json")
    assert code == 0, err
    told = json.loads(Path("account.json").read_text())
    assert told == json.loads(out.splitlines()[-1])
    assert (told["event"], told["exit_code"], told["totals"]["done"]) == ("ended", 0, 20)
    assert "noise" not in out + err


def test_no_shell_looks_at_the_command():
    code, _, err = ran(
        *ARGUMENTS, "--notify", script("import sys; open('words', 'w').write(repr(sys.argv[1:]))") + " '$HOME; x' | y"
    )
    assert code == 0, err
    assert Path("words").read_text() == "['$HOME; x', '|', 'y']"


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("/no/such/command", "--notify failed: No such file or directory"),
        ("PYTHON -c 'import sys; sys.exit(\"no \\x1b[31mmail\")'", "--notify failed: exit 1: no "),
    ],
)
def test_a_command_that_fails_is_said_and_changes_no_exit_code(command: str, why: str):
    code, _, err = ran(*ARGUMENTS, "--notify", command.replace("PYTHON", sys.executable))
    assert (code, why in err, "\x1b" in err) == (0, True, False), err
    assert "20 done" in err.splitlines()[-1]


def test_a_command_without_an_end_is_killed_with_its_children(monkeypatch: pytest.MonkeyPatch):
    """A first Ctrl-C ends the wait for it; so would its time limit."""
    text = (
        "import subprocess, sys; p = subprocess.Popen(['sleep', '600']); open('pid', 'w').write(str(p.pid)); p.wait()"
    )
    process = began(*ARGUMENTS, "--notify", script(text))
    child = int(wait_until(lambda: Path("pid").exists() and Path("pid").read_text()))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, "--notify failed: interrupted" in err) == (0, True), err
    wait_until(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2])


@pytest.mark.looptime
async def test_a_notification_has_a_time_limit():
    async def endless() -> str | None:
        await observers.asyncio.sleep(10_000)
        return None

    assert await observers._within(30.0, endless(), lambda: False) == "did not end within 30 s"


class Hook(BaseHTTPRequestHandler):
    """Takes what is posted; the path says how it answers."""

    taken: list[tuple[str, str | None, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.taken.append((self.path, self.headers["content-type"], body))
        self.send_response(int(self.path.rsplit("/", 1)[1].split("?")[0]))
        self.send_header("location", "/moved/200")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Not into the test's output."""


@pytest.fixture
def hook() -> Iterator[tuple[str, list[tuple[str, str | None, bytes]]]]:
    handler = type("One", (Hook,), {"taken": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.taken
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


CANARY = "canary-5f2d8c91"


@pytest.mark.parametrize(("status", "said"), [(204, None), (500, "status 500"), (307, "status 307")])
def test_an_address_gets_the_account_and_is_told_to_nobody(hook: tuple[str, list[Any]], status: int, said: str | None):
    base, taken = hook
    address = f"{base}/{CANARY}/{status}?token={CANARY}"
    code, out, err = ran(
        *ARGUMENTS, "--json", "--log-file", "log", "--notify", script(KEEP), BATCHRUN_NOTIFY_URL=address
    )
    assert code == 0, err
    ((path, kind, body),) = taken
    assert (path, kind) == (address.removeprefix(base), "application/json")
    told, ended = json.loads(body), json.loads(out.splitlines()[-1])
    assert told["totals"] == ended["totals"]
    assert ended["notes"] == ([] if said is None else [f"notify_url failed: {said}"])
    (journal,) = Path(".batchrun").glob("2*.db")
    with sqlite3.connect(journal) as connection:
        kept = "\n".join(connection.iterdump())
    connection.close()
    shown = ran("show", "last", "--json")
    for text in (out, err, Path("log").read_text(), kept, Path("environ").read_text(), *shown[1:]):
        assert CANARY not in text


def test_an_address_is_taken_from_the_file_of_the_directory(hook: tuple[str, list[Any]]):
    base, taken = hook
    Path("batchrun.toml").write_text(f'notify_url = "{base}/{CANARY}/200"\n' + Path("batchrun.toml").read_text())
    assert ran(*ARGUMENTS)[0] == 0
    assert len(taken) == 1


def test_nobody_listens_at_the_address():
    code, _, err = ran(*ARGUMENTS, BATCHRUN_NOTIFY_URL=f"http://127.0.0.1:9/{CANARY}")
    assert (code, "notify_url failed: ClientConnectorError" in err, CANARY in err) == (0, True, False), err


@pytest.mark.parametrize(
    ("arguments", "environ", "file", "why"),
    [
        (("--notify", "a 'b"), {}, "", "--notify: No closing quotation"),
        (("--notify-url", "https://h/x"), {}, "", "unknown option"),
        ((), {"BATCHRUN_NOTIFY_URL": f"http://192.0.2.1/{CANARY}"}, "", "notify_url would be sent unencrypted"),
        ((), {"BATCHRUN_NOTIFY_URL": f"ftp://h/{CANARY}"}, "", "BATCHRUN_NOTIFY_URL: must be an https:// address"),
        ((), {}, 'notify = "mail"\n', "a directory may not select which commands run"),
        (("--metrics-file", "no/such/run.prom"), {}, "", "no such directory: no/such"),
    ],
)
def test_what_cannot_be_used_is_refused_before_any_call(
    arguments: tuple[str, ...], environ: dict[str, str], file: str, why: str
):
    Path("batchrun.toml").write_text(file + Path("batchrun.toml").read_text())
    code, _, err = ran(*ARGUMENTS, *arguments, **environ)
    assert (code, why in err, CANARY in err) == (2, True, False), err
    assert not list(Path().glob(".batchrun/2*.db"))


def samples(text: str) -> dict[tuple[str, str], float]:
    """The samples by name and labels but `run`. Every line is a comment or a sample."""
    found: dict[tuple[str, str], float] = {}
    for line in text.splitlines():
        if not line.startswith("# "):
            matched = SAMPLE.fullmatch(line)
            assert matched, line
            labels = re.sub(r'run="[^"]*",?', "", matched[2]).rstrip(",")
            found[matched[1], labels] = float(matched[3])
    return found


def test_metrics_are_written_while_the_run_goes_on_and_at_its_end():
    Path("batchrun.toml").write_text('profile = "sim"\n[sim]\nlatency = "0.5"\nfaults = ["400=text:row 7"]\n')
    process = began(*ARGUMENTS, "--metrics-file", "run.prom", "--concurrency", "4")
    text = wait_until(lambda: Path("run.prom").exists() and Path("run.prom").read_text())
    assert samples(text)["batchrun_running", ""] == 1
    assert ("batchrun_exit_code", "") not in samples(text)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 3, err
    found = samples(Path("run.prom").read_text())
    assert found["batchrun_running", ""] == 0
    assert found["batchrun_exit_code", ""] == 3
    assert found["batchrun_rows_total", 'state="done"'] == 19
    assert found["batchrun_rows_total", 'state="failed"'] == 1
    assert found["batchrun_open_rows", 'state="pending"'] == 0
    assert found["batchrun_attempts_total", ""] == 20
    assert found["batchrun_tokens_total", 'kind="output"'] > 0
    assert not list(Path().glob(".run.prom*"))
    assert Path("run.prom").stat().st_mode & 0o044 == 0o044 & ~_umask()


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_a_metrics_file_that_cannot_be_written_is_said_at_the_end():
    Path("m").mkdir()
    Path("batchrun.toml").write_text('profile = "sim"\n[sim]\nlatency = "0.5"\n')
    process = began(*ARGUMENTS, "--metrics-file", "m/run.prom", "--concurrency", "4")
    wait_until(lambda: Path("m/run.prom").exists())
    Path("m").rename("gone")
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, "--metrics-file failed: No such file" in err) == (0, True), err


def test_text_from_outside_stays_inside_its_label():
    picture = progress.Progress(causes={'status 400: "a\\b"\nc': 2}, waiting=Waiting(WaitReason.THROTTLED, None, 0.0))
    text = observers.metrics_text(picture, "r1", now=1.0)
    assert 'batchrun_failures_total{run="r1",cause="status 400: \\"a\\\\b\\"\\nc"} 2\n' in text
    assert ("batchrun_waiting", 'reason="the provider said 429"') in samples(text)
    assert "batchrun_cost_dollars_total" not in text  # not known is not 0
