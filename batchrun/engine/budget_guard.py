"""Reserves each request's worst-case cost, charges the actual one, and enforces the caps."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from itertools import takewhile
from typing import Any, NamedTuple

from jiter import from_json

from batchrun import replies
from batchrun.budget import Budget, Caps, Held, Reached, Sum
from batchrun.display import counted
from batchrun.engine.judge import Charge, Judged
from batchrun.journal import Answers, Charged, Journal, Lease, Leased
from batchrun.lanes.vendors import vendor
from batchrun.limits import GateClosed
from batchrun.models import Kind, Request, Totals, Usage, made
from batchrun.plan import Plan
from batchrun.pricing import STANDARD, Price, Rates, Served, Tariff, Terms, billed, picodollars, usd


class Reservation:
    """A worst case in picodollars (None: unknown) and tokens."""

    __slots__ = ("attempt", "cost", "price", "prices", "size", "tier", "tokens")

    def __init__(self, cost: int | None, tokens: int, price: Price | None, tier: str | None, size: int = 0) -> None:
        self.cost = cost
        self.tokens = tokens
        self.price = price
        self.tier = tier  # None: standard
        self.size = size  # Of the body
        self.attempt: tuple[int, int] | None = None  # Set if the worst case may rise in flight
        self.prices: Prices | None = None

    @property
    def held(self) -> Held:
        """An unknown price holds no money."""
        return Held(self.cost or 0, self.tokens)


UNCHARGED = Charge(None, 0)
BATCH = "batch"  # The service tier of batches


class BudgetReached(Exception):  # noqa: N818  # a state that the run is told of, not a fault
    def __init__(self, cap: str) -> None:
        super().__init__(f"the budget of --max-{OPTIONS[cap]} is reached")
        self.cap = cap  # A key of OPTIONS


OPTIONS = {"cost": "cost", "tokens": "total-tokens", "requests": "requests"}


def caps_of(plan: Plan) -> Caps:
    cost = None if plan.max_cost is None else picodollars(plan.max_cost)
    return Caps(cost=cost, tokens=plan.max_total_tokens, requests=plan.max_requests)


def tariff_of(plan: Plan) -> Tariff:
    of_vendor = ("tier_factors", "usual_batch_factor", "cached_in_batches")
    names = [name for name in Terms._fields if name not in of_vendor]
    stated = {name: getattr(plan, name) for name in names}
    factors = tuple(plan.tier_factors.items())
    found = vendor(plan.dialect, plan.batches)
    of_batches = {"usual_batch_factor": found.factor, "cached_in_batches": found.cached}
    return _tariff(plan.base_url, Terms(**stated, tier_factors=factors)._replace(**of_batches))


_tariff = cache(Tariff)


class Named(NamedTuple):
    model: str | None
    tier: str | None  # None: standard


def named_in(request: Request) -> Named:
    if request.named is None:
        given: dict[str, Any] = from_json(bytes(request.body))
        model, tier = given.get("model"), given.get("service_tier")
    else:
        model, tier = request.named
    return Named(model if isinstance(model, str) else None, replies.tier_named(tier))


class Prices:
    def __init__(self, plan: Plan, *, expected: Callable[[], int]) -> None:
        self.tariff = tariff_of(plan)
        self._one_model = plan.kind is Kind.ROWS
        self._named: Named | None = None
        self._extra = 0 if plan.reserve is None else picodollars(plan.reserve)
        self._expected = expected  # Output tokens of a request without a limit

    def typical(self, model: str | None) -> float:
        """Picodollars per token in and out; 0 if unknown."""
        price = self.tariff.of(model)
        if price is None:
            return 0.0
        output = price.standard.output
        return price.standard.input.base + (0.0 if output is None else output.base)

    def named(self, request: Request) -> Named:
        if self._named is None or not self._one_model:
            self._named = named_in(request)
        return self._named

    def worst_case(self, request: Request, tier: str | None, served: Served) -> Reservation:
        """`tier` applies where the body names none."""
        named = self._named if self._one_model else None
        model, in_body = named or self.named(request)
        size, price = len(request.body) + request.file_tokens, self.tariff.of(model)
        limit = request.output_limit
        if limit is None:
            limit = self._expected()
        tier = tier if tier == BATCH else in_body or tier
        cost = None if price is None else self.worst(price, size, limit, tier, served)
        return Reservation(cost, size + limit, price, tier, size)

    def worst_cases(
        self, requests: Sequence[Request], served: Served, tier: str | None = BATCH
    ) -> list[tuple[int | None, int]]:
        expected, found, price = self._expected(), list[tuple[int | None, int]](), None
        for place, request in enumerate(requests):
            if not (place and self._one_model):
                price = self.tariff.of(self.named(request).model)
            size = len(request.body) + request.file_tokens
            limit = expected if request.output_limit is None else request.output_limit
            found.append((self.worst(price, size, limit, tier, served), size + limit))
        return found

    def worst(self, price: Price | None, size: int, limit: int, tier: str | None, served: Served) -> int | None:
        """Picodollars of `size` bytes and `limit` output tokens."""
        if price is None:
            return None
        cost = price.worst(size, limit, (BATCH,) if tier == BATCH else price.tiers(tier, served))
        return None if cost is None else cost + self._extra + served.excess


class BudgetGuard:
    def __init__(
        self, plan: Plan, journal: Journal, *, expected: Callable[[], int], clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock  # Unix seconds
        self._journal = journal
        self._caps = caps_of(plan)
        self._capped = self._caps.any
        charged = journal.charged if self._capped else Charged(0, 0, 0)
        self._budget = Budget(self._caps, Sum(charged.cost, charged.tokens, charged.requests))
        self._prices = Prices(plan, expected=expected)
        self._before = Served(other=charged.tiers, excess=charged.excess)
        self._served: dict[Prices, Served] = {}
        self._in_flight = set[Reservation]()
        self._extra = 0 if plan.reserve is None else picodollars(plan.reserve)
        self._queue: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self.reached: str | None = None
        self._requested = Sum(requests=1)

    def at_once(self, request: Request, tier: str | None = None, prices: Prices | None = None) -> Reservation | None:
        """None where a cap is set."""
        return None if self._capped else (prices or self._prices).worst_case(request, tier, self._before)

    def now(self, request: Request, tier: str | None, prices: Prices | None = None) -> Reservation | None:
        """None if it does not fit now."""
        reservation = (prices or self._prices).worst_case(request, tier, self._before)
        return reservation if isinstance(self._budget.reserve(*reservation.held), Held) else None

    def all_now(self, requests: Sequence[Request]) -> list[tuple[int | None, int]]:
        """Reserve (cost, tokens) for as many as fit."""
        asked = self._prices.worst_cases(requests, self._before)
        if isinstance(
            self._budget.reserve(sum(cost or 0 for cost, _ in asked), sum(tokens for _, tokens in asked), len(asked)),
            Held,
        ):
            return asked
        return list(takewhile(lambda each: isinstance(self._budget.reserve(each[0] or 0, each[1]), Held), asked))

    @property
    def capped(self) -> bool:
        return self._capped

    def worst_cases(self, requests: Sequence[Request], prices: Prices) -> list[tuple[int | None, int]]:
        """Without a tier, where no cap is set."""
        return prices.worst_cases(requests, self._before, None)

    def reserved(self, request: Request, cost: int | None, tokens: int, prices: Prices) -> Reservation:
        price = prices.tariff.of(prices.named(request).model)
        return Reservation(cost, tokens, price, None, len(request.body))

    async def reserve(
        self, request: Request, attempt: tuple[int, int], tier: str | None = None, prices: Prices | None = None
    ) -> Reservation:
        """Wait in order for `attempt` (row, number). Raises BudgetReached, GateClosed."""
        prices, waits = prices or self._prices, bool(self._queue)
        while True:
            if waits:
                await self._wait_in_order()
            # Anew each time: replies may have shown other prices while it waited.
            reservation = prices.worst_case(request, tier, self._served.get(prices, self._before))
            if reservation.cost is None and self._caps.cost is not None:
                self._reach("cost", reservation.held)
            verdict = self._budget.reserve(*reservation.held)
            if isinstance(verdict, Reached):
                self._reach(verdict.cap, reservation.held)
            if isinstance(verdict, Held):
                break
            waits = True  # Until a request in flight releases some
        if self._caps.cost is not None:
            reservation.attempt, reservation.prices = attempt, prices
            self._in_flight.add(reservation)
        self._wake()
        return reservation

    def named(self, request: Request) -> Named:
        return self._prices.named(request)

    def hand_over(self, leases: Sequence[Lease]) -> None:
        """A batch is charged in full until results arrive."""
        held = _held(leases)
        self._budget.charge(held, *held, len(leases))

    def release_leases(self, leases: Sequence[Lease]) -> None:
        self._budget.cancel(_held(leases), len(leases))
        self._wake()

    def refuse(self, request: Request) -> None:
        held = self._prices.worst_case(request, BATCH, self._before).held
        caps, charged = self._caps, self._budget.charged
        over = caps.cost is not None and charged.cost + held.cost > caps.cost
        self._refused("cost" if over else "tokens" if caps.tokens is not None else "requests", held)

    def adopt(self, cost: int | None, tokens: int, model: str | None, tier: str) -> Reservation:
        """For an attempt charged by an earlier process."""
        self._budget.adopt(cost or 0, tokens)
        return Reservation(cost, tokens, self._prices.tariff.of(model), tier)

    def refund(self, cost: int | None, tokens: int) -> None:
        """The attempt was never sent."""
        self._budget.adopt(cost or 0, tokens)
        self._budget.cancel(Held(cost or 0, tokens))
        self._wake()

    def settle(self, reservation: Reservation, judged: Judged) -> Charge:
        """Charge what the reply states, or all if possibly billed."""
        usage, price = judged.usage, reservation.price
        if usage is None:
            paid = judged.answer.status == 200 or judged.answer.possibly_billed
            unpaid = Charge(None if reservation.cost is None else 0, 0)
            charge = Charge(reservation.cost, reservation.tokens) if paid else unpaid
        else:
            rates = None
            if price is not None:
                rates = price.at(usage.tier or reservation.tier or STANDARD, self._clock())
            bill = billed(rates, usage, self._extra)
            charge = made(Charge, (None if bill is None else bill.total, usage.input + usage.output, bill))
        self._charge(reservation, charge)
        if usage is not None and reservation.prices is not None:
            self._learn(reservation, reservation.prices, charge, usage.tier or STANDARD)
        return charge

    def batch_rates(self, model: str) -> tuple[Rates | None, int]:
        """Prices now, and picodollars added to each request."""
        price = self._prices.tariff.of(model)
        return None if price is None else price.at(BATCH, self._clock()), self._extra

    def rates(self, model: str | None, prices: Prices) -> tuple[Rates | None, int]:
        price = prices.tariff.of(model)
        return None if price is None else price.at(STANDARD, self._clock()), self._extra

    def settle_all(self, leased: Leased, answers: Answers) -> Answers:
        reserved = [cost or 0 for cost in leased.costs]
        if None in answers.input_tokens:
            stated = [tokens is not None for tokens in answers.input_tokens]
            costs, tokens, other = (
                [own if known else whole for known, own, whole in zip(stated, *pair, strict=True)]
                for pair in (
                    (answers.costs, leased.costs),
                    (answers.charged_tokens, leased.tokens),
                    (answers.costs_other, reserved),
                )
            )
            answers = answers._replace(costs=costs, charged_tokens=tokens, costs_other=other)
        cost = sum(filter(None, answers.costs))
        if None in answers.costs:
            cost += sum(held for known, held in zip(answers.costs, reserved, strict=True) if known is None)
        self._budget.settle(Held(sum(reserved), sum(leased.tokens)), cost, sum(answers.charged_tokens))
        self._wake()
        return answers

    def _learn(self, reservation: Reservation, prices: Prices, charge: Charge, named: str) -> None:
        """Raise worst cases after a dearer reply or tier."""
        before = self._served.get(prices, self._before)
        beyond = max(0, (charge.cost or 0) - reservation.held.cost)
        served = before.with_reply(reservation.tier, named)._replace(excess=before.excess + beyond)
        self._served[prices] = served
        if served.other == before.other and not beyond:
            return
        for other in self._in_flight:
            worst = prices.worst(other.price, other.size, other.tokens - other.size, other.tier, served)
            if other.prices is prices and other.attempt is not None and worst is not None and worst > other.held.cost:
                self._budget.raised(other.held, worst)
                other.cost = worst
                self._journal.reserve(*other.attempt, worst)

    def lose(self, reservation: Reservation) -> None:
        """Keep an abandoned request charged in full."""
        self._charge(reservation, Charge(reservation.cost, reservation.tokens))

    def cancel(self, reservation: Reservation) -> None:
        if self._capped:
            self._in_flight.discard(reservation)
            self._budget.cancel(reservation.held)
            self._wake()

    def close(self) -> None:
        self._closed = True
        for waiter in self._queue:
            if not waiter.done():
                waiter.set_exception(GateClosed())
        self._queue.clear()

    def final_message(self, totals: Totals) -> tuple[str, str]:
        cap = self.reached or "requests"
        charged, capped = self._budget.charged, self._caps
        spent: int = getattr(charged, cap)
        left = totals.pending + totals.unknown
        finished = totals.done + totals.failed
        says = _amount(cap, spent)
        message = (
            f"the budget of --max-{OPTIONS[cap]} {_amount(cap, getattr(capped, cap) or 0)} is reached: {says} charged"
        )
        if not finished:
            worst = _amount(cap, getattr(self._requested, cap))
            return message, f"the next request may take up to {worst}; resume with a higher --max-{OPTIONS[cap]}"
        more = -(-spent * left // finished)
        also = ""
        if cap != "cost" and charged.cost:
            also = f", about {_amount('cost', charged.cost * left // finished)}"
        cap_then = spent + more + more // 10 + getattr(self._requested, cap)
        plain = f"{usd(cap_then):.4f}" if cap == "cost" else str(cap_then)
        return (
            f"{message}; the {counted(left)} left would take about {_amount(cap, more)} more{also}",
            f"resume with a higher cap, such as --max-{OPTIONS[cap]} {plain}",
        )

    def _reach(self, cap: str, held: Held) -> None:
        self._refused(cap, held)
        raise BudgetReached(cap)

    def _refused(self, cap: str, held: Held) -> None:
        """What reached the cap is what a higher one has to admit; smaller requests may be refused after it."""
        if self.reached is None:
            self.reached, self._requested = cap, Sum(*held, 1)

    async def _wait_in_order(self) -> None:
        if self._closed:
            raise GateClosed
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._wake()  # its turn passes to the next
            raise

    def _charge(self, reservation: Reservation, charge: Charge) -> None:
        if not self._capped:
            return
        held, (cost, tokens, _) = reservation.held, charge
        self._in_flight.discard(reservation)
        # A price that is not known is not nothing.
        self._budget.charge(held, held.cost if cost is None else cost, tokens)
        self._wake()

    def _wake(self) -> None:
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


def _held(leases: Sequence[Lease]) -> Held:
    return Held(sum(lease.cost or 0 for lease in leases), sum(lease.tokens for lease in leases))


def served(judged: Judged, tier: str | None) -> Judged:
    """Adds the requested tier if the reply names none."""
    usage = judged.usage
    if usage is None or tier is None or (usage.tier is not None and tier != BATCH):
        return judged
    usage = Usage(*usage[:-2], tier, usage.charged)  # a third of the time of `_replace`
    return Judged(judged.answer, judged.reply, usage, *judged[3:])


def _amount(cap: str, number: int) -> str:
    return f"${usd(number):,.4f}" if cap == "cost" else f"{number:,} {cap}"
