"""The page of `batchrun report` in a real browser: nothing from a run acts in it, and nothing is loaded."""

import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM
from waiting import PATIENCE

pytestmark = pytest.mark.slow  # a run of the whole program, and a browser

CALLED: list[str] = []
SAID = re.compile(r"CONSOLE|Refused to|Content Security Policy")


class Trap(http.server.BaseHTTPRequestHandler):
    """Notes whoever calls."""

    def do_GET(self) -> None:
        CALLED.append(self.path)
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def trap() -> Iterator[str]:
    """An address that hostile rows point to."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Trap) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def hostile(trap: str) -> list[str]:
    return [
        f"<script>document.title='owned';fetch('{trap}/script')</script>",
        f'</td></table></style></title>"><img src="{trap}/img" onerror="document.title=1"><svg onload="document.title=2">',
        f"<link rel=stylesheet href='{trap}/css'><iframe src='{trap}/frame'></iframe><style>@import '{trap}/import';</style>",
        "\u202eturned around\u202c \x1b[31mred \x07 {{ 7*7 }} {% raw %}",
        "שלום עולם. مرحبا بالعالم. " * 20,
        "A reply of a megabyte. " * 45_000,
    ]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, trap: str) -> Path:
    """The report of a run whose rows, names, replies and failures are hostile."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "batchrun.toml").write_text(
        "[profiles.sim]\ninput_price = 1\noutput_price = 10\n"
        "[sim]\nreply_tokens = 400000\nfaults = ['400=text:turned', '503=first']\n"
    )
    rows = [{"id": f"{n} {text[:200]}", "text": f"{text} {n}."} for n, text in enumerate(hostile(trap) * 3)]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    same = ("-i", "in.jsonl", "-p", "summarize", "-P", "sim", "-o", "out.jsonl", "--quiet")
    for args in (same, ("report", "out.jsonl", "-o", "report.html")):
        command = [sys.executable, "-m", "batchrun", *args]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode in (0, 3), done.stderr
    return folder / "report.html"


def browse(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [f"--user-data-dir={page.parent / 'profile'}", "--enable-logging=stderr", "--hide-scrollbars", *options]
    return subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_no_script_runs_nothing_is_loaded_and_the_console_is_silent(page: Path) -> None:
    found = browse(page, "--dump-dom", "--virtual-time-budget=2000")
    assert found.returncode == 0, found.stderr
    assert "<title>batchrun " in found.stdout
    assert "<script" not in found.stdout
    assert "&lt;script&gt;" in found.stdout
    assert "\u202e" not in found.stdout
    assert [line for line in found.stderr.splitlines() if SAID.search(line)] == []
    assert CALLED == []


def test_the_trap_would_be_sprung_by_a_page_that_escapes_nothing(page: Path, trap: str) -> None:
    naive = page.with_name("naive.html")
    naive.write_text(f"<title>naive</title>{hostile(trap)[1]}<script>console.log('heard')</script>")
    found = browse(naive, "--dump-dom", "--virtual-time-budget=2000")
    assert "/img" in CALLED
    assert [line for line in found.stderr.splitlines() if SAID.search(line)]
    CALLED.clear()


@pytest.mark.parametrize("size", ["1200,1600", "400,1600"])
@pytest.mark.parametrize("scheme", ["0", "1"], ids=["dark", "light"])
def test_the_page_is_drawn_wide_and_narrow_light_and_dark(page: Path, size: str, scheme: str) -> None:
    picture = page.with_name(f"{size}-{scheme}.png")
    options = (f"--window-size={size}", f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={picture}")
    assert browse(page, *options).returncode == 0
    assert picture.stat().st_size > 20_000
