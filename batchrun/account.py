"""The account of a run: the counters of `models.Totals`, and the rules by which they are counted.

A new counter is a field, a line here, a migration with its column, its line in `recount` of queries.sql (a property
test compares the two), and its words in docs/events.md. The journal's writer counts what it commits, the fold what
events report.
"""

from dataclasses import fields
from typing import TYPE_CHECKING

from batchrun.models import JUST_DONE, Bill, Outcome, State, Totals, Usage

NAMES = tuple(field.name for field in fields(Totals))
TOKENS = tuple(name for name in NAMES if name.endswith("_tokens") and name != "saved_tokens")
# in picodollars
MONEY = (*(name for name in NAMES if name.startswith("cost") or name == "saved"), "cost_input", "projected")
# in events and pages; the others are the journal's
SHOWN = tuple(name for name in NAMES if name not in ("replies", "without_usage", "cost_reserved"))
# a snapshot has them of its session only
OF_ATTEMPTS = ("attempts", "replies", "possibly_billed", *TOKENS, "without_usage")


class Account:
    """A mutable `models.Totals`."""

    if TYPE_CHECKING:  # a member for each counter

        def __getattr__(self, name: str) -> int: ...

        def __setattr__(self, name: str, value: int) -> None: ...

    else:
        __slots__ = NAMES

    def __init__(self, totals: Totals | None = None) -> None:
        for name in NAMES:
            setattr(self, name, 0 if totals is None else getattr(totals, name))

    def totals(self) -> Totals:
        return Totals(**{name: getattr(self, name) for name in NAMES})


def count_attempt(  # noqa: PLR0913  what counts of an attempt
    account: Account,
    status: int,
    usage: Usage | None,
    cost: int | None,
    bill: Bill | None,
    *,
    paid: bool,
    invalid: bool,
    possibly_billed: bool,
) -> None:
    """`paid`: with a reply, requested again if `invalid`; `possibly_billed`: without an answer; `cost` is in
    picodollars.
    """
    if possibly_billed:
        account.possibly_billed += 1
    account.replies += paid
    if usage is None:
        account.without_usage += paid
    else:
        count_usage(account, usage)
    if cost is None:
        account.unpriced += paid or possibly_billed or status == 200
        return
    count_cost(account, cost, bill or (0, 0, 0, 0, cost))
    account.cost_retries += cost if invalid else 0
    account.cost_possibly_billed += cost if possibly_billed else 0


def count_answered(  # noqa: PLR0913  what counts of replies
    account: Account, rows: int, usage: Usage, cost: int, bill: Bill, *, without_usage: int, unpriced: int
) -> None:
    account.done += rows
    account.replies += rows
    account.without_usage += without_usage
    account.unpriced += unpriced
    count_usage(account, usage)
    count_cost(account, cost, bill)


def count_usage(account: Account, usage: Usage) -> None:
    given, made, cached, reasoning, written = usage[:5]
    account.input_tokens += given
    account.output_tokens += made
    if cached or reasoning or written:
        account.cached_tokens += cached
        account.cache_write_tokens += written
        account.reasoning_tokens += reasoning


def count_cost(account: Account, cost: int, bill: Bill | tuple[int, int, int, int, int]) -> None:
    _, cached, written, output, other = bill
    account.cost += cost
    account.cost_cached += cached
    account.cost_cache_write += written
    account.cost_output += output
    account.cost_other += other


def count_outcome(account: Account, outcome: Outcome, shared: tuple[int, int | None] | None) -> None:
    """`shared`: tokens and cost that an equal request's reply saved."""
    if outcome is JUST_DONE or outcome.state is State.DONE:
        account.done += 1
        if shared is not None:
            account.deduplicated += 1
            account.saved_tokens += shared[0]
            account.saved += shared[1] or 0
        for name in outcome.flags:
            setattr(account, name, getattr(account, name) + 1)
    elif outcome.state is State.FAILED:
        account.failed += 1
        account.retryable += not outcome.permanent
        account.failed_post += outcome.post
    else:
        account.skipped += 1
