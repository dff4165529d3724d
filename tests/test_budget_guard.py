"""Charged and reserved together stay within the cap, whatever replies say, and whenever the process is killed."""

import asyncio
import contextlib
import itertools
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from engine import PLAN, reply_body
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from batchrun.engine.attempt import NEVER_LEFT
from batchrun.engine.budget_guard import BudgetGuard, BudgetReached, Reservation, served
from batchrun.engine.judge import judge_body
from batchrun.journal import End, IntakeRow, Journal, Meta
from batchrun.models import Endpoint, Request, Totals
from batchrun.plan import plan_to_json
from batchrun.pricing import picodollars

LIMIT = 100
CAP = picodollars(0.02)
PLAN_CAPPED = replace(
    PLAN,
    max_cost=0.02,
    max_output_tokens=LIMIT,
    input_price=1.0,
    output_price=10.0,
    tier_factors={"flex": 0.5, "priority": 3.0},
)
KNOWN = {"flex": 0.5, "default": 1.0, "priority": 3.0}
tiers = st.sampled_from([None, None, None, "default", "flex", "priority", "scale"])
places = st.integers(0, 31)
replies = st.tuples(st.just("reply"), places, tiers, st.sampled_from([0.01, 0.3, 1.0]))
others = st.one_of(
    st.tuples(st.just("costs"), places, st.integers(0, CAP // 3)),
    st.tuples(st.sampled_from(["silent", "lost", "never"]), places),
    st.tuples(st.just("kill")),
)
asks = st.tuples(st.just("ask"), st.integers(100, 900))
actions = st.integers(0, 9).flatmap(lambda kind: asks if kind < 6 else replies if kind < 9 else others)


def request_of(size: int) -> Request:
    head = b'{"model":"m","messages":[{"role":"user","content":"'
    return Request(Endpoint.CHAT, head + b"x" * (size - len(head) - 4) + b'"}]}', LIMIT)


@dataclass
class Sessions:
    """A run over one journal in one process after another, `asked` the tier of its requests; `bill` is what the provider
    charges, in picodollars, as far as it has a price for that."""

    folder: Path
    asked: str | None
    rows: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    flying: list[tuple[int, Request, Reservation]] = field(default_factory=list[tuple[int, Request, Reservation]])
    bill: int = 0
    allowed: int = CAP
    seen: set[str] = field(default_factory=set[str])
    surprise: bool = False
    excess: int = 0

    def open(self) -> None:
        self.journal = Journal.open(self.folder / ".batchrun" / "r.db")
        self.journal.start()
        self.guard = BudgetGuard(PLAN_CAPPED, self.journal, expected=lambda: 0, clock=lambda: 0.0)

    @property
    def is_confirmed(self) -> bool:
        return any(self.asked in served.kept for served in self.guard._served.values())  # type: ignore[attr-defined]

    @property
    def total(self) -> int:
        return self.guard._budget.charged.cost + self.guard._budget.reserved.cost  # type: ignore[attr-defined]

    async def ask(self, size: int) -> None:
        row, request = next(self.rows), request_of(size)
        task = asyncio.ensure_future(self.guard.reserve(request, (row, 1), self.asked))
        await asyncio.sleep(0)
        if not task.done():
            assert self.flying
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        elif task.exception() is None:
            reservation = task.result()
            assert self.total <= CAP
            await self.journal.begin(row, 1, reservation.cost, reservation.tokens)
            self.flying.append((row, request, reservation))
        else:
            assert isinstance(task.exception(), BudgetReached)
            assert not self.flying

    async def end(self, kind: str, place: int, *said: object) -> None:
        if not self.flying:
            return
        row, request, reservation = self.flying.pop(place % len(self.flying))
        if kind == "never":
            self.guard.cancel(reservation)
            await self.journal.end(row, 1, NEVER_LEFT)
            return
        judged = judge_body(request, reply_body("x"), None)
        if kind == "lost":
            judged = judged._replace(usage=None, reply=None, answer=judged.answer._replace(status=0))
            self.bill += self.price(reservation, 1.0, 1.0)
        elif kind == "silent":
            judged = judged._replace(usage=None)
            self.bill += self.price(reservation, 1.0, 1.0)
        elif kind == "costs":
            (stated,) = said
            assert judged.usage is not None
            judged = judged._replace(usage=judged.usage._replace(charged=stated))  # type: ignore[arg-type]
            self.bill += stated  # type: ignore[operator]
            beyond = stated - reservation.held.cost  # type: ignore[operator]
            self.surprise, self.excess = beyond > 0, max(self.excess, beyond)
            self.seen.add("default")
        else:
            tier, share = said
            assert judged.usage is not None
            usage = judged.usage._replace(input=int(reservation.size * share), output=int(LIMIT * share), tier=tier)  # type: ignore[operator, arg-type]
            judged = served(judged._replace(usage=usage), self.asked)
            named = judged.usage.tier or "default" if judged.usage else "default"
            self.bill += self.price(reservation, KNOWN.get(named, 0.0), share)  # type: ignore[arg-type]
            self.surprise = named not in self.seen and self.is_confirmed
            self.seen.add(named)
        charge = self.guard.settle(reservation, judged)
        end = End(judged.answer.status, 0.1, possibly_billed=judged.answer.possibly_billed, usage=judged.usage)
        end = end._replace(cost=charge.cost, charged_tokens=charge.tokens, bill=charge.bill)
        await self.journal.end(row, 1, end, "{}" if judged.reply else None)

    @staticmethod
    def price(reservation: Reservation, factor: float, share: float) -> int:
        return int(factor * (int(reservation.size * share) * 10**6 + int(LIMIT * share) * 10**7))

    async def kill(self) -> None:
        """What is in flight stays open; the provider charges it at the dearest tier that it was seen to serve."""
        dearest = max([1.0, *(KNOWN.get(tier, 0.0) for tier in self.seen)])
        self.bill += sum(self.price(reservation, dearest, 1.0) for _, _, reservation in self.flying)
        before = self.total
        self.flying.clear()
        await self.journal.sample("{}")
        self.journal.stop()
        self.journal.close()
        self.open()
        assert self.total == before

    async def play(self, story: list[tuple[object, ...]]) -> None:
        self.open()
        for kind, *said in story:
            flying, before = sum(reservation.held.cost for _, _, reservation in self.flying), self.total
            if kind == "ask":
                await self.ask(*said)  # type: ignore[arg-type]
            elif kind == "kill":
                await self.kill()
            else:
                await self.end(str(kind), *said)  # type: ignore[arg-type]
            if self.total > self.allowed:  # nobody could know: what was in flight costs up to six times as much
                assert self.surprise, kind
                beyond = int(said[1]) if kind == "costs" else 0  # type: ignore[call-overload]
                assert self.total <= before + 5 * flying + beyond * (1 + len(self.flying))
                self.allowed = self.total
            self.surprise = False
            dearest = max([1.0, *(KNOWN.get(tier, 0.0) for tier in self.seen)])
            for _, _, reservation in self.flying:
                assert reservation.cost == reservation.held.cost >= self.price(reservation, dearest, 1.0) + self.excess
            assert self.bill <= self.guard._budget.charged.cost  # type: ignore[attr-defined]
        self.journal.stop()
        self.journal.close()


def prepared(folder: Path, count: int) -> None:
    meta = Meta(run="r", created=1.0, plan=plan_to_json(PLAN_CAPPED), prompt=None, simulated=False, output="../o.jsonl")
    journal = Journal.create(folder / ".batchrun" / "r.db", meta)
    journal.ingest(IntakeRow(line, None, "r", f'{{"n": {line}}}') for line in range(1, count + 1))
    journal.close()


@pytest.mark.parametrize("asked", [None, "default", "flex"])
def test_charged_and_reserved_stay_within_the_cap_over_replies_and_kills(asked: str | None, in_memory: Path) -> None:
    @settings(max_examples=20, phases=[Phase.explicit, Phase.generate])
    @given(story=st.lists(actions, min_size=40, max_size=80))
    def check(story: list[tuple[object, ...]]) -> None:
        with tempfile.TemporaryDirectory(dir=in_memory) as folder:
            prepared(Path(folder), len(story))
            asyncio.run(Sessions(Path(folder), asked).play(story))

    check()


async def test_the_cap_that_is_advised_admits_the_request_that_reached_it(tmp_path: Path) -> None:
    plan = replace(PLAN_CAPPED, max_cost=None, max_total_tokens=3000)
    meta = Meta(run="r", created=1.0, plan=plan_to_json(plan), prompt=None, simulated=False, output="o")
    with contextlib.closing(Journal.create(tmp_path / ".batchrun" / "r.db", meta)) as journal:
        guard = BudgetGuard(plan, journal, expected=lambda: 0)
        short = request_of(100)
        guard.settle(await guard.reserve(short, (1, 1)), judge_body(short, reply_body("x"), None))
        with pytest.raises(BudgetReached):
            await guard.reserve(request_of(9000), (2, 1))
        guard.cancel(await guard.reserve(short, (3, 1)))  # a worker that has not heard of it
        _, hint = guard.final_message(Totals(rows=3, done=1))
    assert int(hint.rpartition(" ")[2]) >= 9000 + LIMIT
