"""Service tiers: which one a row asks for, what a want of capacity costs, and what is charged."""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from engine import Provider, Stage, exchange, reply_body, status

from batchrun.engine.tiers import may_miss_deadline, tier_of
from batchrun.errors import ExitCode
from batchrun.events import Resumed, Waiting, WaitReason
from batchrun.journal import Reader
from batchrun.models import Exchange, Request

pytestmark = pytest.mark.usefixtures("no_waiting", "short_pauses")
ONE_FLEX = Counter({"flex": 1})
PRICES = {"input_price": 1.0, "output_price": 1.0, "tier_factors": {"flex": 0.5}}
FULL = status(429, "resource_unavailable")
NO_TIER = status(400, "invalid_request_error", param="service_tier")
"""Names the parameter, and says nothing else."""


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tier without capacity is tried again within milliseconds."""
    monkeypatch.setattr("batchrun.engine.tiers.FIRST_PAUSE", 0.002)
    monkeypatch.setattr("batchrun.engine.tiers.LONGEST_PAUSE", 0.01)


class Tiered(Provider):
    """Answers by the tier that a request asks for; `asked` are these tiers in order, None for none."""

    def __init__(self, *, flex: Callable[[int], Exchange], named: bool = True) -> None:
        super().__init__()
        self.flex = flex
        self.named = named
        self.asked: list[str | None] = []
        self.timeouts: list[float] = []
        self.together = self.most = 0

    async def send(self, request: Request, *, timeout: float) -> Exchange:  # noqa: ASYNC109  as the client's
        body: dict[str, Any] = orjson.loads(request.body)
        tier = body.get("service_tier")
        self.asked.append(tier)
        self.timeouts.append(timeout)
        self.together += 1
        self.most = max(self.most, self.together)
        count = self.asked.count(tier)
        await asyncio.sleep(0)
        self.together -= 1
        answer = self.flex(count) if tier == "flex" else served(tier)
        return answer if self.named else answer._replace(body=answer.body.replace(b'"service_tier"', b'"other"'))


def served(tier: str | None) -> Exchange:
    """A reply of 7 tokens in and 3 out that names the tier."""
    body = orjson.loads(reply_body("X")) | {"service_tier": tier or "default"}
    return exchange(200, orjson.dumps(body))


def shares(stage: Stage) -> dict[str, tuple[int, int]]:
    with Reader.open(stage.path) as reader:
        return {share.tier: (share.replies, share.cost) for share in reader.tiers()}


async def test_a_tier_is_asked_for_has_its_own_deadline_and_is_charged(tmp_path: Path) -> None:
    stage, provider = Stage(tmp_path, 8, tier=("flex",), **PRICES), Tiered(flex=lambda _: served("flex"))
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.OK
    assert set(provider.asked) == {"flex"}
    assert set(provider.timeouts) == {900.0}
    assert shares(stage) == {"flex": (8, 8 * 5_000_000)}


async def test_a_deadline_that_was_chosen_holds_in_every_tier(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 2, tier=("flex",), timeout=30.0, timeout_chosen=True)
    provider = Tiered(flex=lambda _: served("flex"))
    await stage.play(provider)
    assert set(provider.timeouts) == {30.0}


@pytest.mark.parametrize(
    ("named", "flex", "cost"), [(False, "flex", 5_000_000), (True, "default", 10_000_000), (True, "flex", 5_000_000)]
)
async def test_the_tier_that_the_reply_names_is_charged_else_the_one_that_was_asked_for(
    named: bool, flex: str, cost: int, tmp_path: Path
) -> None:
    stage = Stage(tmp_path, 2, tier=("flex",), **PRICES)
    await stage.play(Tiered(flex=lambda _: served(flex), named=named))
    assert shares(stage) == {flex: (2, 2 * cost)}
    assert stage.totals.cost == 2 * cost


@pytest.mark.parametrize("refusal", [FULL, status(498, "capacity_exceeded")])
async def test_no_capacity_is_a_wait_that_costs_no_attempt(refusal: Callable[[str], Exchange], tmp_path: Path) -> None:
    stage = Stage(tmp_path, 6, tier=("flex",), max_attempts=1, **PRICES)
    provider = Tiered(flex=lambda count: refusal("") if count <= 9 else served("flex"))
    story = await stage.play(provider)
    assert (story.ending.exit_code, stage.totals.done, stage.totals.failed) == (ExitCode.OK, 6, 0)
    waits = [event.reason for event in story.of(Waiting)]
    assert WaitReason.CAPACITY in waits
    assert WaitReason.THROTTLED not in waits
    assert len(story.of(Resumed)) >= 1


async def test_rows_fall_back_when_their_patience_is_over_and_the_account_says_so(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 40, tier=("flex", "standard"), tier_patience=0.05, **PRICES)
    provider = Tiered(flex=lambda count: served("flex") if count <= 10 else FULL(""))
    story = await stage.play(provider)
    assert (story.ending.exit_code, stage.totals.done) == (ExitCode.OK, 40)
    assert shares(stage) == {"default": (30, 30 * 10_000_000), "flex": (10, 10 * 5_000_000)}
    assert set(provider.asked) == {"flex", "default"}


async def test_a_tier_that_has_capacity_again_is_taken_again(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 60, tier=("flex", "standard"), tier_patience=600.0, **PRICES)
    provider = Tiered(flex=lambda count: FULL("") if 10 < count <= 20 else served("flex"))
    await stage.play(provider)
    assert shares(stage) == {"flex": (60, 60 * 5_000_000)}


async def test_without_capacity_and_fallback_the_run_stops_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchrun.retry.decision.THROTTLED_FOR", 0.1)
    stage = Stage(tmp_path, 5, tier=("flex",), **PRICES)
    provider = Tiered(flex=lambda _: FULL(""))
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.STOPPED
    assert "no capacity in the service tier for" in (story.ending.message or "")
    assert stage.totals.pending == 5


async def test_a_tier_that_the_model_has_not_stops_the_run_after_one_call(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 50, tier=("flex",), **PRICES)
    provider = Tiered(flex=lambda _: NO_TIER(""))
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.STOPPED
    assert Counter(provider.asked) == ONE_FLEX
    assert (stage.totals.pending, stage.totals.failed) == (50, 0)
    assert "--tier" in (story.ending.hint or "")


async def test_a_tier_that_the_model_has_not_is_off_for_the_run_where_there_is_another(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 50, tier=("flex", "standard"), max_attempts=1, **PRICES)
    provider = Tiered(flex=lambda _: NO_TIER(""))
    story = await stage.play(provider)
    assert (story.ending.exit_code, stage.totals.done) == (ExitCode.OK, 50)
    assert Counter(provider.asked) == Counter({"default": 50, "flex": 1})
    assert sum("not offered in service tier flex" in words for words in story.told) == 1


async def test_rows_take_the_dear_tier_where_the_time_is_short(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 5, tier=("flex", "standard"), finish_by=1.0, **PRICES)
    provider = Tiered(flex=lambda _: served("flex"))
    await stage.play(provider)
    assert set(provider.asked) == {"default"}


async def test_refusals_for_want_of_capacity_without_a_chosen_tier_close_the_gate(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 3, params={"service_tier": "flex"})
    provider = Tiered(flex=lambda count: FULL("") if count == 1 else served("flex"))
    story = await stage.play(provider)
    assert (story.ending.exit_code, stage.totals.done) == (ExitCode.OK, 3)


async def test_the_cap_holds_where_replies_name_a_tier_of_unknown_price(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 30, tier=("flex",), max_cost=0.005, max_output_tokens=100, **PRICES)
    provider = Tiered(flex=lambda _: served("turbo"))
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.BUDGET
    assert len(provider.asked) < 30
    assert stage.totals.unpriced == len(provider.asked)


@pytest.mark.parametrize(
    ("seconds", "rows", "took", "concurrency", "rpm", "danger"),
    [
        (3600, 1000, 1.0, 10, None, False),
        (100, 1000, 1.0, 10, None, True),
        (130, 1000, 1.0, 10, None, False),
        (3600, 1000, 1.0, 10, 10, True),
        (-1, 0, 0.0, 10, None, True),
        (10, 0, 0.0, 10, None, False),
    ],
)
def test_the_time_is_short_where_the_rows_left_take_longer(  # noqa: PLR0917  drawn by name
    seconds: float, rows: int, took: float, concurrency: int, rpm: float | None, danger: bool
) -> None:
    assert may_miss_deadline(seconds, rows, took, concurrency, rpm) is danger


@pytest.mark.parametrize(
    ("name", "dialect", "members", "timeout", "priced"),
    [
        ("flex", "openai", '"service_tier":"flex"', 900, "flex"),
        ("flex", "any", '"service_tier":"flex"', 900, "flex"),
        ("standard", "openai", '"service_tier":"default"', 0, "default"),
        ("standard", "groq", '"service_tier":"on_demand"', 0, "default"),
        ("standard", "any", "", 0, None),
        ("priority", "groq", '"service_tier":"performance"', 0, "priority"),
        ("priority", "openai", '"service_tier":"priority"', 0, "priority"),
        ("scale", "any", '"service_tier":"scale"', 0, "scale"),
    ],
)
def test_tiers_are_spelled_as_the_provider_does(
    name: str, dialect: str, members: str, timeout: float, priced: str | None
) -> None:
    assert tier_of(name, dialect) == (members, timeout, priced)


async def test_a_row_has_its_patience_for_every_tier_but_the_last_and_comes_back_to_none(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 1, tier=("flex", "scale", "standard"), tier_patience=0.05, **PRICES)

    class Failing(Tiered):
        async def send(self, request: Request, *, timeout: float) -> Exchange:  # noqa: ASYNC109  as the client's
            found = await super().send(request, timeout=timeout)
            tier = self.asked[-1]
            return FULL("") if tier == "scale" else status(500)("") if self.asked.count("default") == 1 else found

    provider = Failing(flex=lambda _: FULL(""))
    await stage.play(provider)
    order = [tier for at, tier in enumerate(provider.asked) if at == 0 or provider.asked[at - 1] != tier]
    assert order == ["flex", "scale", "default"]
    assert provider.asked[-2:] == ["default", "default"]
    assert stage.totals.done == 1
