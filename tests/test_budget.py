"""Hard caps: whatever is in flight and however it ends, charged + reserved never exceeds them."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from batchrun.budget import Budget, Caps, Held, Later, Reached, Sum

amounts = st.integers(0, 50)
caps = st.builds(
    Caps,
    cost=st.none() | st.integers(0, 200),
    tokens=st.none() | st.integers(0, 200),
    requests=st.none() | st.integers(0, 20),
)


class Spending(RuleBasedStateMachine):
    """Requests that come, are held, and end in any order."""

    flying = Bundle("flying")

    def __init__(self) -> None:
        super().__init__()
        self.caps = Caps(cost=120, tokens=150, requests=9)
        self.budget = Budget(self.caps, Sum(5, 7, 1))
        self.charged = [5, 7]
        self.left = 1
        self.in_flight = 0
        self.most = 120

    @rule(target=flying, cost=amounts, tokens=amounts)
    def ask(self, cost: int, tokens: int) -> Held | None:
        before = self.budget.charged, self.budget.reserved
        verdict = self.budget.reserve(cost, tokens)
        if isinstance(verdict, Held):
            self.left += 1
            self.in_flight += 1
            assert self.budget.charged.cost + self.budget.reserved.cost <= 120
            return verdict
        assert (self.budget.charged, self.budget.reserved) == before
        if isinstance(verdict, Later):
            assert self.in_flight
        return None

    @rule(held=consumes(flying), share=st.floats(0, 1))
    def answered(self, held: Held | None, share: float) -> None:
        if held is None:
            return
        cost, tokens = int(held.cost * share), int(held.tokens * share)
        self.budget.charge(held, cost, tokens)
        self.charged = [self.charged[0] + cost, self.charged[1] + tokens]
        self.in_flight -= 1

    @rule(held=consumes(flying))
    def lost(self, held: Held | None) -> None:
        self.answered(held, 1.0)

    @rule(target=flying, held=consumes(flying), more=amounts)
    def may_cost_more(self, held: Held | None, more: int) -> Held | None:
        if held is None:
            return None
        self.budget.raised(held, held.cost + more)
        self.most = max(self.most, self.budget.charged.cost + self.budget.reserved.cost)
        return held._replace(cost=held.cost + more)

    @rule(held=consumes(flying))
    def never_left(self, held: Held | None) -> None:
        if held is not None:
            self.budget.cancel(held)
            self.in_flight -= 1
            self.left -= 1

    @invariant()
    def nothing_is_exceeded(self) -> None:
        charged, reserved = self.budget.charged, self.budget.reserved
        assert charged.cost + reserved.cost <= self.most
        assert charged.tokens + reserved.tokens <= 150
        assert charged.requests == self.left <= 9
        assert [charged.cost, charged.tokens] == self.charged
        assert reserved.requests == self.in_flight
        assert min(reserved) >= 0


TestSpending = Spending.TestCase


@given(caps=caps, asked=st.lists(st.tuples(amounts, amounts), max_size=30))
def test_what_fits_is_granted_and_nothing_else(caps: Caps, asked: list[tuple[int, int]]) -> None:
    budget = Budget(caps)
    cost = tokens = requests = 0
    for more, used in asked:
        fits = (
            (caps.cost is None or cost + more <= caps.cost)
            and (caps.tokens is None or tokens + used <= caps.tokens)
            and (caps.requests is None or requests < caps.requests)
        )
        verdict = budget.reserve(more, used)
        assert isinstance(verdict, Held) == fits
        if isinstance(verdict, Held):
            cost, tokens, requests = cost + more, tokens + used, requests + 1


def test_a_run_that_goes_on_begins_at_what_was_charged() -> None:
    budget = Budget(Caps(cost=100), Sum(cost=90))
    assert isinstance(budget.reserve(11, 0), Reached)
    assert isinstance(budget.reserve(10, 0), Held)


def test_what_may_still_be_given_back_is_waited_for() -> None:
    budget = Budget(Caps(cost=100))
    first = budget.reserve(80, 0)
    assert isinstance(first, Held)
    assert isinstance(budget.reserve(30, 0), Later)
    budget.charge(first, 10, 0)
    assert isinstance(budget.reserve(30, 0), Held)


def test_the_cap_of_requests_gives_nothing_back() -> None:
    budget = Budget(Caps(requests=1))
    assert isinstance(budget.reserve(0, 0), Held)
    assert budget.reserve(0, 0) == Reached("requests")
