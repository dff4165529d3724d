"""What is said of a run's batches before, while and after they are at work: plan, show, runs, report, batches."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from batchrun.cli import main

PRICES = '[profiles.{name}]\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "m"\ndialect = "{dialect}"\n'
COSTS = "input_price = 2\noutput_price = 4\ncached_price = 1\n"


@dataclass
class Said:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> dict[str, str]:
        """The lines of a page by their first word."""
        return dict(line.split(maxsplit=1) for line in reversed(self.out.splitlines()) if len(line.split()) > 1)


@pytest.fixture(autouse=True)
def _alone(alone: None) -> None:
    Path("say.md").write_text("Say {{ text }}")
    Path("in.jsonl").write_text("".join(json.dumps({"id": f"r{n}", "text": f"t{n}"}) + "\n" for n in range(1, 251)))


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def run(*args: str) -> Said:
        capsys.readouterr()
        return Said(main([*args]), *capsys.readouterr())

    return run


def plan(here: Callable[..., Said], dialect: str, *more: str) -> Said:
    Path("batchrun.toml").write_text(PRICES.format(name="own", dialect=dialect) + COSTS + "\n".join(more))
    return here("plan", "-i", "in.jsonl", "-p", "say.md", "-P", "own", "--batch", "--max-output-tokens", "10")


def test_a_plan_with_batches_has_their_prices_limits_and_windows(here: Callable[..., Said]) -> None:
    said = plan(here, "openai").lines
    assert "$1 in, $0.5 cached, $2 out per million tokens by batch (the profile's prices)" in said["cost"]
    assert said["batches"].startswith(
        "about 2, at most 50,000 rows, 200 MB each; the first has 100 rows; each within 24h"
    )
    assert "up to 24h per batch" in said["time"]


def test_where_a_vendor_has_no_cheaper_cached_tokens_in_batches_the_plan_has_none(here: Callable[..., Said]) -> None:
    assert "$1 in, $2 out per million tokens by batch" in plan(here, "groq").lines["cost"]


def test_a_batch_price_that_is_not_known_is_at_most_the_live_one(here: Callable[..., Said]) -> None:
    said = plan(here, "together").lines
    assert "$2 in, $1 cached, $4 out per million tokens" in said["cost"]
    assert "the price of batch is unknown" in said["cost"]


def test_limits_of_enqueued_tokens_make_more_batches(here: Callable[..., Said]) -> None:
    said = plan(here, "openai", "[batches.openai]", "tokens = 1000").lines
    count = re.match(r"about (\d+), .* 1,000 tokens each", said["batches"])
    assert count is not None
    assert int(count[1]) > 3


def test_pages_of_a_run_with_open_batches_name_each(here: Callable[..., Said]) -> None:
    """State, counts and since when; the account says how many rows are in batches."""
    words = ["-i", "in.jsonl", "-p", "say.md", "-P", "sim", "-o", "out.jsonl", "--batch", "--batch-detach"]
    begun = here(*words, "--json")
    assert (begun.code, "250 in batches = 250 input rows" in begun.err) == (7, True)
    events = [json.loads(line) for line in begun.out.splitlines()]
    told = [event for event in events if event["event"] == "batch" and event["state"] == "submitted"]
    assert {(event["chunk"], event["rows"], event["since"] is not None) for event in told} == {
        (1, 100, True),
        (2, 150, True),
    }
    shown = here("show", "last").out
    assert re.search(r"batches\n  chunk +rows +state .*\n  1 +100 +submitted .*\n  2 +150 +submitted", shown), shown
    assert "250 in batches" in here("runs").out
    found = json.loads(here("show", "last", "--json").out)
    assert [(each["chunk"], each["state"]) for each in found["batches"]] == [(1, "submitted"), (2, "submitted")]
    assert [json.loads(line) for line in here("batches", "last", "--json").out.splitlines()] == found["batches"]
    document = (Path(__file__).parents[1] / "docs" / "events.md").read_text(encoding="utf-8")
    (members,) = re.findall(r"^\| `batchrun batches --json` \| (.*) \|$", document, re.MULTILINE)
    assert found["batches"][0].keys() == set(re.findall(r"`(\w+)`", re.sub(r" \(.*?\)", "", members)))
    assert here("report", "last", "-o", "page.html").code == 0
    page = Path("page.html").read_text()
    assert (page.count("<td>submitted"), 'class="in_batches"' in page) == (2, True)
    Path("in.jsonl").write_text('{"id": "r1", "text": "other"}\n')
    for refused in (here(*words, "--update"), here(*words, "--fresh"), here("rm", "last", "--yes")):
        assert (refused.code, "batches" in refused.err, "cancel" in refused.err) == (2, True, True), refused.err


def test_rows_of_two_models_in_turn_fill_two_batches(here: Callable[..., Said]) -> None:
    """One endpoint and one model a batch, however they stand in the input."""

    def line(number: int) -> str:
        body = {"model": f"m{number % 2}", "messages": [{"role": "user", "content": f"row {number}"}]}
        return json.dumps({"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body})

    Path("in.jsonl").write_text("".join(line(number) + "\n" for number in range(1, 21)))
    assert here("-i", "in.jsonl", "-P", "sim", "-o", "out.jsonl", "--batch", "--batch-detach").code == 7
    found = [json.loads(each) for each in here("batches", "last", "--json").out.splitlines()]
    assert sorted((each["model"], each["rows"]) for each in found) == [("m0", 10), ("m1", 10)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("cancle",), "did you mean cancel?"),
        (("adopt",), "adopt needs the id of a batch"),
        (("forget",), "forget needs the number of a chunk"),
        (("cancel", "7"), "unexpected argument: '7'"),
    ],
)
def test_an_action_on_batches_that_cannot_be_meant_is_refused(
    here: Callable[..., Said], words: tuple[str, ...], said: str
) -> None:
    refused = here("batches", "last", *words)
    assert (refused.code, said in refused.err) == (2, True), refused.err
