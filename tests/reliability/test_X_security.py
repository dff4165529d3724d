"""What must not leak, act or run, tried on the real program."""

import asyncio
import base64
import json
import os
from html.parser import HTMLParser
from pathlib import Path

import pytest
from program import CANARY, Program
from waiting import PATIENCE
from wire import Call, FaultServer, Peer, chat, whole

NASTY = (
    "\x1b]0;owned\x07\x1b[2J\x1b]52;c;aGk=\x07\x9b31m\rover\b\b\u202eevil\u2028"
    + "e"
    + "\u0301" * 1000
    + " [/x] [@click=app.quit]"
)
ACTS = ("\x1b", "\x9b", "\x07", "\b", "\u202e", "\u2028", "\u0301" * 9)
TEMPLATE = "{{ 7*7 }} {% for x in y %}"


async def echo(peer: Peer) -> None:
    """Every answer repeats all headers, the key among them."""
    assert peer.call is not None
    said = json.dumps({"error": {"message": f"no: {peer.call.headers} {base64.b64encode(CANARY.encode()).decode()}"}})
    cut = json.dumps({"error": {"message": f"{'no, ' * 45}{CANARY}, not that one"}})
    kinds = {
        "ok": (200, chat("fine")),
        "bad": (400, said.encode()),
        "down": (500, said.encode()),
        "late": (200, said.encode()),
        "cut": (200, cut.encode()),
    }
    status, body = kinds.get(peer.call.prompt, (401, said.encode()))
    await whole(body, status)(peer)


def processes() -> str:
    """The command lines of every process, as `ps` shows them."""
    found: list[bytes] = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(entry.read_bytes())
        except OSError:
            continue  # it has ended
    return b"\n".join(found).decode(errors="replace")


@pytest.mark.parametrize("last", ["ok", pytest.param("unauthorised", marks=pytest.mark.slow)])
async def test_X1_X2_the_key_is_nowhere_but_on_the_wire(program: Program, last: str) -> None:
    program.rows(["ok", "bad", "down", "late", "cut", last])
    args = ["--verbose", "--log-file", "run.log", "--json", "--max-attempts", "2", "--concurrency", "1"]
    async with FaultServer(echo) as server:
        with program.going(*program.send(server.base_url, *args)) as process:
            running = await asyncio.to_thread(processes)
            out, err = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
        assert process.returncode == (3 if last == "ok" else 4), err
        assert all(CANARY in call.headers["authorization"] for call in server.calls)
    shown = await program.run("show", "last", "--failed", "--json")
    told = [out, err, running, shown.out, shown.err]
    files = [path for path in program.directory.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".db", ".log", ".jsonl"}
    told += [path.read_bytes().decode("latin-1") for path in files]
    for spelling in (CANARY, CANARY[:12], base64.b64encode(CANARY.encode()).decode().rstrip("=")):
        assert [text[:200] for text in told if spelling in text] == []


def test_X2_no_option_takes_a_key_and_the_simulator_gets_none(program: Program) -> None:
    program.rows(["one"])
    refused = program("--input", "in.jsonl", "--prompt", "say.txt", "--api-key", CANARY)
    assert refused.code == 2
    assert CANARY not in refused.err
    assert "--api-key" in refused.err


@pytest.mark.parametrize(
    "face",
    [(), pytest.param(("--json",), marks=pytest.mark.slow), pytest.param(("--verbose",), marks=pytest.mark.slow)],
)
async def test_X7_X8_nothing_from_outside_acts_on_a_terminal(program: Program, face: tuple[str, ...]) -> None:
    rows = [{"id": f"good{NASTY}", "text": "good"}, {"id": f"bad{NASTY}", "text": "bad"}]
    (program.directory / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = json.dumps({"error": {"message": NASTY, "type": NASTY, "code": NASTY}}, ensure_ascii=False).encode()

    def choose(call: Call, _: int):
        return whole(chat(NASTY)) if call.prompt == "good" else whole(said, 400)

    async with FaultServer(choose=choose) as server:
        args = ["--model", f"m{NASTY}", *face]
        ran = await program.run(
            *program.send(server.base_url)[:4], "--base-url", server.base_url, "-o", "out.jsonl", *args
        )
    assert ran.code == 3, ran.err
    shown = await program.run("show", "last", "--failed")
    listed = await program.run("runs")
    as_json = await program.run("show", "last", "--json")
    for text in (ran.out, ran.err, shown.out, shown.err, listed.out, as_json.out):
        assert [acting for acting in ACTS if acting in text] == []
    if face == ("--json",):
        assert all(json.loads(line) for line in ran.out.splitlines())
    (row,) = program.output()
    assert row["output"] == NASTY
    assert row["id"] == f"good{NASTY}"


async def test_X9_row_data_is_never_a_template(program: Program) -> None:
    program.rows([TEMPLATE])
    async with FaultServer() as server:
        ran = await program.run(*program.send(server.base_url))
        assert list(server.prompts) == [TEMPLATE]
    assert ran.code == 0, ran.err


PROMPTS = [
    "{{ ''.__class__ }}",
    "{{ config }}",
    "{% include '/etc/passwd' %}",
    "{{ 'a' * 10**9 }}",
    "{% for i in range(10**9) %}{% endfor %}",
]


@pytest.mark.slow
async def test_X10_a_prompt_that_reaches_out_or_explodes_is_refused_before_the_first_call(program: Program) -> None:
    program.rows(["one"])
    async with FaultServer() as server:
        for number, source in enumerate(PROMPTS):
            (program.directory / "say.txt").write_text(source)
            ran = await program.run(*program.send(server.base_url, output=f"o{number}.jsonl"))
            assert ran.code == 2, (source, ran.err)
            assert "root:" not in ran.err
        assert not server.calls


@pytest.mark.slow
async def test_X4_a_key_is_not_sent_unencrypted_to_another_host(program: Program) -> None:
    program.rows(["one"])
    ran = await program.run(*program.send("http://203.0.113.7/v1"))
    assert ran.code == 2
    assert "http" in ran.err


@pytest.mark.slow
async def test_X6_the_environment_and_dot_env_do_not_redirect_a_run(program: Program) -> None:
    program.rows(["one"])
    (program.directory / ".env").write_text("OPENAI_BASE_URL=http://203.0.113.7/v1\nOPENAI_API_KEY=sk-other\n")
    async with FaultServer() as server:
        ran = await program.run(*program.send(server.base_url), env={"OPENAI_BASE_URL": "http://203.0.113.8/v1"})
        assert server.calls[0].headers["authorization"] == f"Bearer {CANARY}"
    assert ran.code == 0, ran.err
    assert f"127.0.0.1:{server.port}" in ran.err.splitlines()[0]


@pytest.mark.slow
async def test_X11_ids_never_become_paths(program: Program) -> None:
    ids = ["../../x", "/abs", "CON", "x" * 300, "a\0b", "new\nline"]
    (program.directory / "in.jsonl").write_text("".join(json.dumps({"id": name, "text": "t"}) + "\n" for name in ids))
    before = {path.name for path in program.directory.parent.iterdir()}
    async with FaultServer() as server:
        ran = await program.run(*program.send(server.base_url))
    assert ran.code == 0, ran.err
    assert [row["id"] for row in program.output()] == ids
    names = {path.name for path in program.directory.iterdir()}
    assert names == {"in.jsonl", "say.txt", "out.jsonl", ".batchrun"}
    assert {path.name for path in program.directory.parent.iterdir()} == before


def test_X18_nobody_but_the_provider_is_contacted(program: Program) -> None:
    program.rows(["one", "two"])
    args = ["--input", "in.jsonl", "--prompt", "say.txt", "--profile", "sim", "--output", "out.jsonl"]
    ran = program.altered("hosts", "hosts.txt", *args)
    assert ran.returncode == 0, ran.stderr
    contacted = (program.directory / "hosts.txt").read_text().splitlines()
    assert contacted
    assert [line for line in contacted if "127.0.0.1" not in line] == []


@pytest.mark.slow
async def test_X14_a_copied_journal_holds_only_text_numbers_and_json(program: Program) -> None:
    program.rows(["one"])
    async with FaultServer() as server:
        ran = await program.run(*program.send(server.base_url))
    assert ran.code == 0, ran.err
    for (table,) in program.ask("SELECT name FROM sqlite_schema WHERE type = 'table'"):
        for row in program.ask(f"SELECT * FROM {table}"):
            assert not any(isinstance(value, bytes) for value in row), table
    assert os.listdir(program.directory / ".batchrun")


class Elements(HTMLParser):
    """The elements of a page, and every attribute that could load or run something."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.acting: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.acting += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "action") or name[:2] == "on"]


@pytest.mark.slow
async def test_X13_the_report_of_a_run_shows_foreign_text_and_loads_nothing(program: Program) -> None:
    evil = '"><script src=//203.0.113.7/x></script><img src=x onerror=alert(1)><a href="javascript:1">{{ 7*7 }}</a>'
    rows = [{"id": f"{word}{evil}{NASTY}", "text": word, evil: evil} for word in ("good", "bad")]
    (program.directory / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = json.dumps({"error": {"message": evil + NASTY, "type": evil, "code": evil}}).encode()

    def choose(call: Call, _: int):
        return whole(chat(evil + NASTY)) if call.prompt == "good" else whole(said, 400)

    async with FaultServer(choose=choose) as server:
        options = ("--model", f"m{evil}", "--base-url", server.base_url, "-o", "out.jsonl")
        ran = await program.run("--input", "in.jsonl", "--prompt", "say.txt", *options)
        assert ran.code == 3, ran.err
    written = await program.run("report", "last", "--output", "report.html")
    assert written.code == 0, written.err
    page = (program.directory / "report.html").read_text(encoding="utf-8")
    found = Elements()
    found.feed(page)
    assert not found.names & {"script", "img", "a", "link", "iframe", "object", "embed", "base", "form"}
    assert found.acting == []
    assert "default-src 'none'" in page
    assert "&lt;script" in page
    assert [acting for acting in ACTS if acting in page] == []
