"""Hard caps on what a run may cost, use and send. Pure: `engine` asks before each request and tells what came of it.

Theory. Before a request leaves, the worst that it can cost is reserved; when its end is known, the reservation is
replaced by what is charged for it. So at any moment

    charged + reserved ≤ cap

for each of the three caps (money, tokens, requests), whatever is in flight and in whatever order it ends, as long as
no charge is larger than its reservation. Where a reply shows that requests in flight may cost more than was reserved for
them, `raised` reserves that too; nothing is granted until the sum is below the cap again. Charges of earlier sessions count: they are where the budget begins. An
attempt without an answer may have been billed, so its whole reservation is charged. A request that never left gives all
of it back; one that left counts against the requests whatever became of it.

When a reservation does not fit, something in flight may still give back a part of what it holds: then the verdict is
`Later`. When nothing is in flight, or the cap of requests is reached, which never gives back, it is `Reached`.
"""

from dataclasses import dataclass
from typing import NamedTuple

from batchrun.models import made


class Sum(NamedTuple):
    """Money in picodollars, tokens, and requests."""

    cost: int = 0
    tokens: int = 0
    requests: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What must not be exceeded; None is no cap. `cost` is in picodollars."""

    cost: int | None = None
    tokens: int | None = None
    requests: int | None = None

    @property
    def any(self) -> bool:
        """Whether anything is capped."""
        return not (self.cost is None and self.tokens is None and self.requests is None)


class Held(NamedTuple):
    """A reservation that was granted."""

    cost: int
    tokens: int


class Later(NamedTuple):
    """It does not fit now; it may when something in flight has ended."""


class Reached(NamedTuple):
    """It does not fit and will not; `cap` names what is in the way: `cost`, `tokens` or `requests`."""

    cap: str


class Budget:
    """One run's budget, beginning at what earlier sessions were charged."""

    def __init__(self, caps: Caps, charged: Sum = Sum()) -> None:  # noqa: B008  an immutable record
        self._caps = caps
        self._cost, self._tokens, self._requests = charged
        self._held_cost = self._held_tokens = self._in_flight = 0

    def ask(self, cost: int, tokens: int, requests: int = 1) -> Held | Later | Reached:
        """Reserve for one request, or so many, that may cost and use so much at worst."""
        caps = self._caps
        if caps.requests is not None and self._requests + requests > caps.requests:
            return Reached("requests")
        if caps.cost is not None and self._cost + self._held_cost + cost > caps.cost:
            return self._no("cost")
        if caps.tokens is not None and self._tokens + self._held_tokens + tokens > caps.tokens:
            return self._no("tokens")
        self._requests += requests
        self._in_flight += requests
        self._held_cost += cost
        self._held_tokens += tokens
        return made(Held, (cost, tokens))

    def raised(self, held: Held, cost: int) -> Held:
        """Reserve another cost for a request in flight, also where that exceeds the cap."""
        self._held_cost += cost - held.cost
        return held._replace(cost=cost)

    def charge(self, held: Held, cost: int, tokens: int, requests: int = 1) -> None:
        """The request has ended, or so many have; this is what they are charged instead of their reservation."""
        self._in_flight -= requests
        self._held_cost -= held[0]
        self._held_tokens -= held[1]
        self._cost += cost
        self._tokens += tokens

    def adopt(self, cost: int, tokens: int) -> None:
        """What was charged for a request becomes its reservation again: its end is not known yet."""
        self._cost -= cost
        self._tokens -= tokens
        self._held_cost += cost
        self._held_tokens += tokens
        self._in_flight += 1

    def settle(self, before: Held, cost: int, tokens: int) -> None:
        """Requests that were charged what is `before` are charged this in the end."""
        self._cost += cost - before.cost
        self._tokens += tokens - before.tokens

    def cancel(self, held: Held, requests: int = 1) -> None:
        """The request never left, or so many."""
        self._in_flight -= requests
        self._held_cost -= held.cost
        self._held_tokens -= held.tokens
        self._requests -= requests

    @property
    def charged(self) -> Sum:
        """What is charged so far; of the requests, all that left."""
        return Sum(self._cost, self._tokens, self._requests)

    @property
    def reserved(self) -> Sum:
        """What is held for requests in flight."""
        return Sum(self._held_cost, self._held_tokens, self._in_flight)

    def _no(self, cap: str) -> Later | Reached:
        return Later() if self._in_flight else Reached(cap)
