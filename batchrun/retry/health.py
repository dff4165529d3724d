"""What the answers so far show about the provider: rules over several rows."""

from dataclasses import dataclass, field

from batchrun.models import Fault, Flag
from batchrun.retry.answer import Answer
from batchrun.retry.meaning import OF_ADDITIONS, Meaning

ALIKE = 20  # Rows in succession that must fail alike, and failures that open the breaker
ONE_ROW_429S = 5  # 429s of one row, with successes between and no other row refused, that fail it
SUSPECTS = 10_000  # Rows remembered to have failed while others were answered
DOUBTED_FOR = 60.0
# Seconds of refusals that may be an empty account or daily quota; limits per minute are over by then
_UNSEEN = frozenset({Fault.OUTAGE, Fault.LOST})  # Faults that show nothing about the provider
_DOUBTFUL = frozenset({Meaning.UNCLEAR, Meaning.QUOTA})
_NO_FIT = frozenset({Flag.EMPTY, Flag.ODD})  # Flags of replies that may be caused by the run
BUDGET_START = 50.0  # Retries of a run
BUDGET_PER_SUCCESS = 0.5  # Retries added per answered row


@dataclass(slots=True)
class Health:
    """`observe` each answer before `decide`. Times are monotonic seconds."""

    succeeded: bool = False
    streak: int = 0
    opened_at: float | None = None  # of the breaker; only requests sent later close it
    streak_rows: set[int] = field(default_factory=set[int])
    suspects: dict[int, None] = field(default_factory=dict[int, None])  # rows that failed while others were answered
    down_since: float | None = None
    throttled_since: float | None = None
    suspect_since: float | None = None
    alike: str | None = None  # the common cause of all failures since a success
    alike_rows: set[int] = field(default_factory=set[int])
    alike_since: float = 0.0
    confirmed: bool = False  # a row from elsewhere in the input failed alike
    fitted: bool = False  # a reply has fitted the schema
    misfits: set[int] = field(default_factory=set[int])  # rows without a fitting reply until then
    loading_since: float | None = None
    doubt: Meaning | None = None  # maybe a permanent refusal
    doubt_since: float = 0.0
    doubt_tries: int = 0  # refusals of that kind since
    passed: set[Meaning] = field(default_factory=set[Meaning])  # refusals that proved temporary
    one_row_429s: tuple[int, int] = (0, 0)
    answered_since: bool = False
    budget: float = BUDGET_START
    well: bool = False  # all of this is as one more good reply would leave it

    def observe(self, answer: Answer, seq: int, now: float, *, elsewhere: bool = False) -> None:
        """`elsewhere`: from far ahead in the input."""
        if answer.accepted:
            self.budget += BUDGET_PER_SUCCESS
            if not self.well or answer.complaint is not None:
                self._note_success(answer, seq)
            return
        self.well = False
        if answer.fault is not None and answer.fault in _UNSEEN:
            return
        if answer.meaning is not None and answer.meaning in OF_ADDITIONS:
            self._note_answer(answer)
            return
        if answer.down and seq not in self.suspects:
            self._note_down(seq, now)
        elif answer.status and not answer.down:
            self._note_answer(answer)
        if answer.meaning is Meaning.LOADING:
            self.loading_since = now if self.loading_since is None else self.loading_since
        elif answer.status:
            self.loading_since = None
        if answer.throttled:
            self._note_throttled(answer, seq, now)
        elif not (answer.of_the_row or answer.meaning is Meaning.LOADING):
            self._note_alike(answer, seq, now, elsewhere)

    @property
    def breaker_open(self) -> bool:
        return self.opened_at is not None

    @property
    def is_failing(self) -> bool:
        return self.succeeded and len(self.streak_rows) >= ALIKE

    @property
    def doubtful(self) -> bool:
        """A row from elsewhere must be tried."""
        return len(self.alike_rows) >= ALIKE and not self.confirmed

    @property
    def all_alike(self) -> bool:
        """Also one from elsewhere."""
        return len(self.alike_rows) >= ALIKE and self.confirmed

    @property
    def none_fits(self) -> bool:
        return len(self.misfits) >= ALIKE

    def in_doubt(self, seq: int) -> bool:
        return not self.succeeded or seq in self.alike_rows or seq in self.misfits

    @property
    def undoubted(self) -> bool:
        return self.succeeded and not self.alike_rows and not self.misfits

    def unreachable(self, now: float) -> None:
        """No connection is accepted."""
        if self.succeeded and self.opened_at is None:
            self.opened_at, self.well = now, False
            self.down_since = now if self.down_since is None else self.down_since

    def doubts(self, answer: Answer) -> bool:
        """It may be permanent and announces no helpful wait."""
        return (
            answer.meaning in _DOUBTFUL
            and answer.meaning not in self.passed
            and (answer.retry_after or 0.0) < DOUBTED_FOR
        )

    def spend(self) -> bool:
        """From the run's budget."""
        if self.budget < 1:
            return False
        self.budget -= 1
        return True

    def _note_success(self, answer: Answer, seq: int) -> None:
        self.suspects.pop(seq, None)
        self.succeeded = self.answered_since = True
        self.throttled_since = self.loading_since = None
        if self.alike_rows and answer.left >= self.alike_since:
            self.alike_rows.clear()
        if self.doubt is not None and answer.left >= self.doubt_since:
            self.passed.add(self.doubt)
            self.doubt = None
        if self.suspect_since is not None and answer.left >= self.suspect_since:
            self.suspect_since = None
        self._note_answer(answer)
        if answer.complaint is None:
            self.fitted = True
            self.misfits.clear()
        elif not self.fitted and answer.flags <= _NO_FIT:
            self.misfits.add(seq)
        since = self.opened_at, self.doubt, self.suspect_since
        self.well = since == (None, None, None) and not (self.suspects or self.alike_rows or self.misfits)

    def _note_answer(self, answer: Answer) -> None:
        if self.opened_at is not None and answer.left < self.opened_at:
            return  # it was on its way
        self.opened_at = None
        if self.streak_rows:
            self.suspects |= dict.fromkeys(self.streak_rows)
            self.streak_rows.clear()
            while len(self.suspects) > SUSPECTS:
                del self.suspects[next(iter(self.suspects))]
        self.streak = 0
        self.down_since = None

    def _note_down(self, seq: int, now: float) -> None:
        self.streak += 1
        self.streak_rows.add(seq)
        if self.down_since is None:
            self.down_since = now
        if self.succeeded and self.streak >= ALIKE and self.opened_at is None:
            self.opened_at = now

    def _note_throttled(self, answer: Answer, seq: int, now: float) -> None:
        if self.throttled_since is None:
            self.throttled_since = now
        if self.doubts(answer):
            if self.doubt is None:
                self.doubt, self.doubt_since, self.doubt_tries = answer.meaning, now, 0
            else:
                self.doubt_tries += answer.left >= self.doubt_since
        row, times = self.one_row_429s
        if row != seq:
            self.one_row_429s = seq, 1
        elif self.answered_since:
            self.one_row_429s = seq, times + 1
        self.answered_since = False

    def _note_alike(self, answer: Answer, seq: int, now: float, elsewhere: bool) -> None:
        if answer.down and self.succeeded:
            return  # the breaker's matter
        if answer.kind != self.alike or not self.alike_rows:
            self.alike_rows.clear()
            self.alike, self.alike_since, self.confirmed = answer.kind, now, False
        self.confirmed = self.confirmed or answer.down or (elsewhere and len(self.alike_rows) >= ALIKE)
        self.alike_rows.add(seq)
