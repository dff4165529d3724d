"""One attempt's answer, in the terms that verdicts ask for."""

from typing import NamedTuple

from batchrun.models import Fault, Flag

BILLING = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "billing_error",
        "credit_balance_exhausted",
        "insufficient_balance",
        "insufficient_funds",
        "payment_required",
    }
)

EMPTY = "credit balance is too low"
"""What Anthropic says of an empty account, with the status, type and code of a bad request."""


class Answer(NamedTuple):
    """One attempt's answer, as far as verdicts ask.

    `status` is 0 without a whole answer, then `fault` says why; `type`, `code` and `message` are the error body's.
    `defect` is why a 200 body is no reply; `complaint` why a reply does not fit the schema; `html` marks an HTML body.
    `left` is when the request left, in the engine's monotonic seconds. `disguised` marks a 429 that a gateway passes on
    as its own failure.
    """

    status: int
    fault: Fault | None = None
    sent: bool = True
    type: str = ""
    code: str = ""
    message: str = ""
    html: bool = False
    defect: str | None = None
    complaint: str | None = None
    flags: frozenset[Flag] = frozenset()
    retry_after: float | None = None
    left: float = 0.0
    disguised: bool = False

    @property
    def accepted(self) -> bool:
        """A 200 that carries a reply, whatever is thought of the reply."""
        return self.status == 200 and self.defect is None

    @property
    def billing(self) -> bool:
        """The account is empty or not in order."""
        if self.status in (403, 429) and not BILLING.isdisjoint((self.code, self.type)):
            return True
        return self.status == 402 or (self.status in (400, 403, 429) and EMPTY in self.message.lower())

    @property
    def throttled(self) -> bool:
        """A 429 that is about a rate."""
        return (self.status == 429 or self.disguised) and not self.billing

    @property
    def down(self) -> bool:
        """The provider did not answer, or answered for its own failure."""
        if self.disguised:
            return False
        return self.status >= 500 or (self.fault is not None and self.fault is not Fault.TOO_LARGE)

    @property
    def maybe_paid(self) -> bool:
        """The request was sent, no reply came, and nothing says that it was turned away."""
        return self.sent and not self.disguised and (self.status in (0, 408, 409) or self.status >= 500)

    @property
    def kind(self) -> str:
        """What failures that are alike have in common: that the provider fails, sends no reply, or their cause."""
        if self.down:
            return "down"
        return "no reply" if self.defect is not None else self.cause

    @property
    def cause(self) -> str:
        """A short stable phrase to group failures by."""
        if self.complaint is not None:
            return "does not fit the schema"
        if self.defect is not None:
            return self.defect
        if self.fault is not None:
            return str(self.fault)
        return f"{self.status} {self.code or self.type}".strip()
