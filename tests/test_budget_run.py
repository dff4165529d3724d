"""A run under a cap: the provider's own account never exceeds it, whatever it answers and however many are in flight."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest
from waiting import PATIENCE

from batchrun.engine.lane import Member
from batchrun.engine.output_cap import with_known_worst_case
from batchrun.engine.run import Run
from batchrun.engine.run_result import RunResult
from batchrun.errors import ExitCode
from batchrun.events import AttemptEnded, Event, single
from batchrun.journal import IntakeRow, Journal, Meta
from batchrun.models import Endpoint, Exchange, Fault, Kind, Request, Usage
from batchrun.plan import Plan, plan_to_json
from batchrun.pricing import picodollars
from batchrun.prompts import Renderer, body_renderer

pytestmark = pytest.mark.slow  # each test waits for runs of the whole program

INPUT, OUTPUT, LIMIT = 2.0, 10.0, 100
REPLY = {"object": "chat.completion", "choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}


def plan_of(**terms: object) -> Plan:
    given: dict[str, object] = {
        "kind": Kind.BODIES,
        "input": "in.jsonl",
        "input_format": "jsonl",
        "id_column": None,
        "prompt_name": None,
        "prompt_path": None,
        "prompt_source": None,
        "endpoint": Endpoint.CHAT,
        "model": "m",
        "output": "out.jsonl",
        "output_format": "jsonl",
        "output_column": "output",
        "profile": "mine",
        "base_url": "http://127.0.0.1:1/v1",
        "api_key_env": None,
        "input_price": INPUT,
        "output_price": OUTPUT,
        "concurrency": 32,
        "concurrency_fixed": True,
        "max_output_tokens": LIMIT,
        **terms,
    }
    return Plan(**given)  # type: ignore[arg-type]


def renderer_for(plan: Plan) -> Renderer:
    plain = body_renderer(endpoint=plan.endpoint, model=plan.model, params=plan.params, id_column=None)
    return with_known_worst_case(plain, plan)


def rows(count: int) -> Iterable[IntakeRow]:
    for line in range(1, count + 1):
        text = json.dumps({"messages": [{"role": "user", "content": "x" * (line * 7 % 90)}]})
        yield IntakeRow(line, f"id-{line}", f"r{line}", text)


class Provider:
    """Bills what it is sent at once, and answers later: well, not at all, with an error, or with another bill."""

    mask = staticmethod(str)

    def __init__(self, seed: int, *, faults: float = 0.0) -> None:
        self.random = Random(seed)
        self.faults = faults
        self.requests = self.tokens = self.picodollars = 0
        self.most_in_flight = self.in_flight = 0

    async def send(self, request: Request, *, timeout: float) -> Exchange:  # noqa: ASYNC109  as the client has it
        usage = Usage(self.random.randint(1, len(request.body)), self.random.randint(0, LIMIT), 0, 0)
        fault = self.random.random() < self.faults
        if fault and self.random.random() < 0.5:
            usage = Usage(len(request.body), LIMIT, 0, 0)
        self.requests += 1
        self.tokens += usage.input + usage.output
        self.picodollars += usage.input * 2 * 10**6 + usage.output * 10 * 10**6
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(self.random.random() * 0.01)
        self.in_flight -= 1
        return self._answer(usage, fault=fault)

    def _answer(self, usage: Usage, *, fault: bool) -> Exchange:
        if fault:
            return Exchange(0, {}, b"", 0.0, 0.01, Fault.RESET, "gone", True)
        stated = {"prompt_tokens": usage.input, "completion_tokens": usage.output}
        return Exchange(200, {}, json.dumps(REPLY | {"usage": stated}).encode(), 0.0, 0.01, None, "", True)


async def session(journal: Journal, plan: Plan, provider: Provider, heard: list[Event] | None = None) -> RunResult:
    events = [] if heard is None else heard
    journal.start()
    members = [Member(plan, provider)]  # type: ignore[arg-type]

    def emit(event: Event) -> None:
        events.extend(single(event))

    run = Run(plan, journal, members, renderer_for(plan), checker=None, emit=emit)
    ending = await run.run()
    journal.stop(ending.exit_code)
    return ending


def journal_at(path: Path, plan: Plan, count: int) -> Journal:
    meta = Meta(run="r", created=1.0, plan=plan_to_json(plan), prompt=None, simulated=False, output="../out.jsonl")
    journal = Journal.create(path / ".batchrun" / "r.db", meta)
    journal.ingest(rows(count))
    return journal


@pytest.mark.parametrize("concurrency", [1, 7, 64])
@pytest.mark.parametrize("faults", [0.0, 0.2])
async def test_the_providers_bill_stays_under_the_cap(tmp_path: Path, concurrency: int, faults: float) -> None:
    plan = plan_of(max_cost=0.05, concurrency=concurrency)
    provider = Provider(concurrency, faults=faults)
    journal = journal_at(tmp_path, plan, 300)
    ending = await session(journal, plan, provider)
    assert ending.exit_code is ExitCode.BUDGET
    assert "--max-cost $0.0500 is reached" in (ending.message or "")
    assert provider.picodollars <= picodollars(0.05)
    assert journal.totals.cost <= picodollars(0.05)
    assert journal.totals.cost >= provider.picodollars
    assert journal.totals.pending == 300 - journal.totals.done - journal.totals.failed > 0
    assert provider.most_in_flight > min(1, concurrency - 1)
    if not faults:
        worst = picodollars((200 * INPUT + LIMIT * OUTPUT) / 1e6)
        assert provider.picodollars > picodollars(0.05) - 2 * worst
    journal.close()


async def test_going_on_with_a_higher_cap_counts_what_was_charged(tmp_path: Path) -> None:
    plan = plan_of(max_cost=0.02)
    provider = Provider(3)
    journal = journal_at(tmp_path, plan, 200)
    await session(journal, plan, provider)
    before = provider.requests
    assert (await session(journal, plan, provider)).exit_code is ExitCode.BUDGET
    assert provider.requests - before <= 2
    higher = plan_of(max_cost=0.04)
    assert (await session(journal, higher, provider)).exit_code is ExitCode.BUDGET
    assert picodollars(0.035) < provider.picodollars <= picodollars(0.04)
    assert (await session(journal, plan_of(), provider)).exit_code is ExitCode.OK
    assert journal.totals.done == 200
    assert provider.requests == 200
    journal.close()


@pytest.mark.parametrize("faults", [0.0, 0.3])
async def test_no_more_requests_and_tokens_than_allowed(tmp_path: Path, faults: float) -> None:
    plan = plan_of(max_requests=41)
    provider = Provider(5, faults=faults)
    journal = journal_at(tmp_path, plan, 90)
    ending = await session(journal, plan, provider)
    assert (ending.exit_code, provider.requests) == (ExitCode.BUDGET, 41)
    capped = plan_of(max_total_tokens=20_000)
    ending = await session(journal, capped, provider)
    assert ending.exit_code is (ExitCode.BUDGET if provider.tokens > 15_000 else ExitCode.OK)
    assert provider.tokens <= 20_000
    journal.close()


async def test_attempts_without_an_answer_are_charged_in_full_and_shown_apart(tmp_path: Path) -> None:
    plan = plan_of(max_cost=1.0, max_attempts=1)
    provider = Provider(1, faults=0.3)
    journal = journal_at(tmp_path, plan, 60)
    heard: list[Event] = []
    await session(journal, plan, provider, heard)
    ended = [event for event in heard if isinstance(event, AttemptEnded)]
    maybe = [event.cost or 0 for event in ended if event.possibly_billed]
    assert maybe
    assert journal.totals.cost_possibly_billed == sum(maybe)
    assert journal.totals.cost == sum(event.cost or 0 for event in ended)
    assert all(cost >= picodollars(LIMIT * OUTPUT / 1e6) for cost in maybe)
    journal.close()


async def test_a_reply_without_usage_is_charged_in_full(tmp_path: Path) -> None:
    plan = plan_of(max_cost=1.0)

    class Silent(Provider):
        def _answer(self, usage: Usage, *, fault: bool) -> Exchange:
            return Exchange(200, {}, json.dumps(REPLY).encode(), 0.0, 0.01, None, "", True)

    journal = journal_at(tmp_path, plan, 3)
    await session(journal, plan, Silent(1))
    assert journal.totals.without_usage == 3
    assert journal.totals.cost > 3 * picodollars(LIMIT * OUTPUT / 1e6)
    journal.close()


SETTINGS = """
[profiles.sim]
input_price = 1.0
output_price = 10.0
"""


def batchrun(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "batchrun", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "batchrun.toml").write_text(SETTINGS)
    text = "".join(json.dumps({"text": f"Sentence {n}. And one more of it."}) + "\n" for n in range(60))
    (tmp_path / "in.jsonl").write_text(text)
    return tmp_path


def test_a_budget_ends_the_run_with_its_own_code_and_says_what_going_on_would_cost(folder: Path) -> None:
    options = ("-i", "in.jsonl", "-p", "summarize", "-P", "sim", "-o", "out.jsonl", "--max-output-tokens", "40")
    found = batchrun(folder, *options, "--max-cost", "0.01")
    assert found.returncode == 6, found.stderr
    assert "the rows left" not in found.stderr
    assert "rows left would take about $0.0" in found.stderr
    assert "--max-cost 0." in found.stderr
    assert "resume with: batchrun resume out.jsonl" in found.stderr
    assert batchrun(folder, "resume", "out.jsonl", "--max-cost", "0.01").returncode == 6
    found = batchrun(folder, "resume", "out.jsonl", "--max-cost", "1")
    assert found.returncode == 0, found.stderr
    assert "cost: $0.0" in found.stderr
    shown = json.loads(batchrun(folder, "show", "out.jsonl", "--json").stdout)
    assert 0.01 < shown["cost"] < 0.1
    assert shown["history"][-1]["cost"] > 0


def test_a_cap_below_one_request_says_what_the_request_may_take(folder: Path) -> None:
    options = ("-i", "in.jsonl", "-p", "summarize", "-P", "sim", "-o", "out.jsonl", "--max-output-tokens", "40")
    found = batchrun(folder, *options, "--max-cost", "0.0001")
    assert found.returncode == 6, found.stderr
    assert re.search(r"next: the next request may take up to \$0\.00\d+; resume with a higher --max-cost", found.stderr)
    assert "60 pending" in found.stderr


@pytest.mark.parametrize(
    ("options", "settings", "said"),
    [
        (("--max-cost", "1", "--max-output-tokens", "9"), "", "the price of model simulated is unknown"),
        (("--max-cost", "1"), SETTINGS, "add --max-output-tokens N"),
        (("--max-total-tokens", "1"), SETTINGS, "add --max-output-tokens N"),
        (("--max-cost", "1", "--max-output-tokens", "9", "--param", "tools=[1]"), SETTINGS, "add --reserve USD"),
        (("--max-cost", "much"), SETTINGS, "must be an amount of US dollars"),
    ],
)
def test_a_cap_that_could_not_hold_is_refused_before_any_call(
    folder: Path, options: tuple[str, ...], settings: str, said: str
) -> None:
    (folder / "batchrun.toml").write_text(settings)
    found = batchrun(folder, "-i", "in.jsonl", "-p", "summarize", "-P", "sim", "-o", "out.jsonl", *options)
    assert (found.returncode, said in found.stderr) == (2, True), found.stderr
    assert not list((folder / ".batchrun").glob("*.db"))
