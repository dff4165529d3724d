"""`batchrun report`: one page that loads nothing, with everything from outside escaped."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE

from batchrun.report.html import chart, excerpt, series

EVIL = '<script>alert(1)</script>"><img src=x onerror=alert(2)>\u202e\x1b[31m{{ 7*7 }}'
LOADS = {"src", "href", "srcset", "data", "action", "poster", "background"}


class Page(HTMLParser):
    """The elements and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def batchrun(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "batchrun", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose rows, ids and failures are hostile."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "batchrun.toml").write_text(
        "[profiles.sim]\ninput_price = 1\noutput_price = 10\n[sim]\nfaults = ['400=text:POISON']\n"
    )
    rows = [{"id": f"{n} {EVIL}", "text": f"{EVIL} {'POISON' if n == 3 else ''} row {n}."} for n in range(40)]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = batchrun(folder, "-i", "in.jsonl", "-p", "summarize", "-P", "sim", "-o", "out.jsonl")
    assert done.returncode == 3, done.stderr
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    done = batchrun(folder, "report", "out.jsonl", "-o", "report.html")
    assert done.returncode == 0, done.stderr
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_page_has_the_account_the_cost_the_failures_and_some_rows(page: Page) -> None:
    assert "39 done + 1 failed + 0 skipped + 0 unknown + 0 pending = 40 input rows" in page.text
    assert "SIMULATED" in page.text
    assert "$0.0" in page.text
    assert "row 0." in page.text
    assert "[simulated]" in page.text
    assert "Failures by cause" in page.text


def test_nothing_from_outside_becomes_an_element_or_acts(page: Page) -> None:
    tags = {tag for tag, _ in page.elements}
    assert tags <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "table", "tr", "th", "td"),
        *("span", "svg", "line", "text", "path", "rect"),
    }
    assert not {name for _, given in page.elements for name in given if name in LOADS or name.startswith("on")}
    assert "<script>alert(1)</script>" in page.text
    assert "\x1b" not in page.text
    assert "\u202e" not in page.text
    assert "{{ 7*7 }}" in page.text


def test_nothing_is_loaded(folder: Path, page: Page) -> None:
    source = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|https?://", source)
    policies = [given["content"] for tag, given in page.elements if tag == "meta" and "http-equiv" in given]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_money_is_told_by_kind_of_token(folder: Path, page: Page) -> None:
    told = re.compile(r"\$0\.\d+ input, \$0\.\d+ output")
    assert told.search(page.text)
    assert told.search(batchrun(folder, "show", "last").stdout)


def test_the_same_as_json(folder: Path) -> None:
    found: dict[str, Any] = json.loads(batchrun(folder, "report", "last", "--json").stdout)
    assert (found["done"], found["failed"], len(found["sample"])) == (39, 1, 20)
    assert found["cost"] == pytest.approx(sum(found["cost_by_kind"].values())) != 0
    assert found["errors"][0]["rows"] == 1
    assert found["charts"]["Cost so far, USD"]["cost"]


def test_a_text_keeps_its_lines_and_loses_what_acts() -> None:
    assert excerpt("one\r\n\ttwo \x1b[31m") == "one\n    two ␛[31m"
    assert excerpt("x" * 700) == "x" * 600 + "…"


def test_rows_are_shown_as_columns_and_attempts_that_failed_by_cause(folder: Path, page: Page) -> None:
    found: dict[str, Any] = json.loads(batchrun(folder, "report", "last", "--json").stdout)
    assert found["sample"][0]["text"].startswith("id: 0 <script>")
    assert found["failed_attempts"] == [{"cause": "400 invalid_value", "attempts": 1, "possibly_billed": 0}]
    assert "Failed attempts" in page.text


def test_a_run_that_is_not_there_is_refused(folder: Path) -> None:
    assert batchrun(folder, "report", "nothing").returncode == 2


def test_a_chart_goes_from_the_first_to_the_last_moment_and_fits_its_frame() -> None:
    found = chart("t", {"a": [(0.0, 1.0), (50.0, None), (60.0, 3.0), (100.0, 4.0)], "b": [(0.0, 0.0), (100.0, 2.0)]})
    assert found is not None
    assert found.lines[0].path.count("M") == 2
    numbers = [float(number) for line in found.lines for number in re.findall(r"[\d.]+", line.path)]
    assert min(numbers) >= 0
    assert max(numbers) <= 720
    assert [tick.label for tick in found.rows] == ["0", "2.5", "5"]
    assert found.lines[0].last == "4"


@pytest.mark.parametrize("points", [[], [(1.0, 2.0)], [(1.0, None), (2.0, None)]])
def test_a_chart_with_nothing_to_show_is_left_out(points: list[tuple[float, float | None]]) -> None:
    assert chart("t", {"a": points}) is None


def test_a_pause_between_sessions_breaks_the_line() -> None:
    samples: list[tuple[float, dict[str, Any]]] = [(at, {"done": done}) for at, done in ((0, 0), (5, 50), (1000, 60))]
    assert series(samples, [])["Rows done a minute"]["rows"] == [(5, 600.0), (1000, None)]
