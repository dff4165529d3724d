"""Hard caps on a run's money, tokens and requests. Pure.

Before a request is sent its worst case is reserved; at its end the charge replaces the reservation. So for each cap

    charged + reserved ≤ cap

as long as no charge exceeds its reservation. An attempt without an answer is charged its whole reservation, as it may
have been billed. A reservation that does not fit is `Later` while something in flight may release a part, else
`Reached`.
"""

from typing import NamedTuple

from batchrun.models import made


class Sum(NamedTuple):
    # picodollars, tokens and requests
    cost: int = 0
    tokens: int = 0
    requests: int = 0


class Caps(NamedTuple):
    # `cost` is in picodollars
    cost: int | None = None
    tokens: int | None = None
    requests: int | None = None

    @property
    def any(self) -> bool:
        return not (self.cost is None and self.tokens is None and self.requests is None)


class Held(NamedTuple):
    cost: int
    tokens: int


class Later(NamedTuple):
    pass


class Reached(NamedTuple):
    cap: str  # `cost`, `tokens` or `requests`


class Budget:
    """`charged` is that of earlier sessions."""

    def __init__(self, caps: Caps, charged: Sum = Sum()) -> None:  # noqa: B008  an immutable record
        self._caps = caps
        self._cost, self._tokens, self._requests = charged
        self._held_cost = self._held_tokens = self._in_flight = 0

    def reserve(self, cost: int, tokens: int, requests: int = 1) -> Held | Later | Reached:
        caps = self._caps
        if caps.requests is not None and self._requests + requests > caps.requests:
            return Reached("requests")
        if caps.cost is not None and self._cost + self._held_cost + cost > caps.cost:
            return self._refusal("cost")
        if caps.tokens is not None and self._tokens + self._held_tokens + tokens > caps.tokens:
            return self._refusal("tokens")
        self._requests += requests
        self._in_flight += requests
        self._held_cost += cost
        self._held_tokens += tokens
        return made(Held, (cost, tokens))

    def raised(self, held: Held, cost: int) -> None:
        # even over the cap: nothing is granted then until the sum is below it
        self._held_cost += cost - held.cost

    def charge(self, held: Held, cost: int, tokens: int, requests: int = 1) -> None:
        self._in_flight -= requests
        self._held_cost -= held[0]
        self._held_tokens -= held[1]
        self._cost += cost
        self._tokens += tokens

    def adopt(self, cost: int, tokens: int) -> None:
        """Turn a charge into a reservation: the request is open."""
        self._cost -= cost
        self._tokens -= tokens
        self._held_cost += cost
        self._held_tokens += tokens
        self._in_flight += 1

    def settle(self, before: Held, cost: int, tokens: int) -> None:
        """Correct the charge of ended requests."""
        self._cost += cost - before.cost
        self._tokens += tokens - before.tokens

    def cancel(self, held: Held, requests: int = 1) -> None:
        """Refund requests that were not sent."""
        self._in_flight -= requests
        self._held_cost -= held.cost
        self._held_tokens -= held.tokens
        self._requests -= requests

    @property
    def charged(self) -> Sum:
        return Sum(self._cost, self._tokens, self._requests)

    @property
    def reserved(self) -> Sum:
        return Sum(self._held_cost, self._held_tokens, self._in_flight)

    def _refusal(self, cap: str) -> Later | Reached:
        return Later() if self._in_flight else Reached(cap)
