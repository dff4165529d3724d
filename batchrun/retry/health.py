"""What the answers so far say about the provider: the part of the theory that looks at more than one row."""

from dataclasses import dataclass, field

from batchrun.retry.answer import Answer

ALIKE = 20
"""Rows that must fail alike before anything succeeded, and failures in a row that open the breaker."""
SUSPECTS = 10_000
"""Rows that are remembered to have failed while others were answered."""
BUDGET_START = 50.0
BUDGET_PER_SUCCESS = 0.5
"""Retries a run may make: a start, and so much for each row that was answered."""


@dataclass(slots=True)
class Health:
    """What the answers so far say about the provider; `observe` each before `decide` judges it."""

    succeeded: bool = False
    streak: int = 0
    streak_rows: set[int] = field(default_factory=set[int])
    suspects: dict[int, None] = field(default_factory=dict[int, None])
    down_since: float | None = None
    throttled_since: float | None = None
    suspect_since: float | None = None
    alike: str | None = None
    alike_rows: set[int] = field(default_factory=set[int])
    budget: float = BUDGET_START

    def observe(self, answer: Answer, seq: int, now: float) -> None:
        """Fold one answer of the row `seq`; `now` in monotonic seconds."""
        if answer.accepted:
            self.suspects.pop(seq, None)
            self._note_success(answer)
        elif answer.down and seq not in self.suspects:
            self._note_down(seq, now)
        elif answer.status and not answer.down:
            self._note_answer()
        if answer.throttled and self.throttled_since is None:
            self.throttled_since = now
        if not self.succeeded and not answer.throttled and not answer.of_the_row:
            self._note_alike(answer, seq)

    @property
    def breaker_open(self) -> bool:
        """The provider was there and is down now."""
        return self.succeeded and self.streak >= ALIKE

    @property
    def ailing(self) -> bool:
        """Failures are the provider's, not the rows'."""
        return self.succeeded and len(self.streak_rows) >= ALIKE

    @property
    def all_alike(self) -> bool:
        """Nothing has succeeded and the first rows all failed in the same way."""
        return not self.succeeded and len(self.alike_rows) >= ALIKE

    def spend(self) -> bool:
        """Take one retry from the run's budget; False when it is spent."""
        if self.budget < 1:
            return False
        self.budget -= 1
        return True

    def _note_success(self, answer: Answer) -> None:
        self.succeeded = True
        self.budget += BUDGET_PER_SUCCESS
        self.throttled_since = None
        self.alike_rows.clear()
        if self.suspect_since is not None and answer.left >= self.suspect_since:
            self.suspect_since = None
        self._note_answer()

    def _note_answer(self) -> None:
        if self.streak_rows:
            self._suspect()
        self.streak = 0
        self.down_since = None

    def _suspect(self) -> None:
        self.suspects |= dict.fromkeys(self.streak_rows)
        self.streak_rows.clear()
        while len(self.suspects) > SUSPECTS:
            del self.suspects[next(iter(self.suspects))]

    def _note_down(self, seq: int, now: float) -> None:
        self.streak += 1
        self.streak_rows.add(seq)
        if self.down_since is None:
            self.down_since = now

    def _note_alike(self, answer: Answer, seq: int) -> None:
        if answer.kind != self.alike:
            self.alike_rows.clear()
            self.alike = answer.kind
        self.alike_rows.add(seq)
