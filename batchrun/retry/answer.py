"""One attempt's answer, in the terms that verdicts ask for."""

import re
from typing import NamedTuple

from batchrun.models import Fault, Flag, made
from batchrun.retry.meaning import OF_THE_ROW, OF_WHAT_WAS_ADDED, STOPS, WAITS, Meaning

_UNNAMED = frozenset({Meaning.KEY, Meaning.PARAMETER, Meaning.PASSES, Meaning.OVERLOADED, *WAITS}) - {Meaning.QUOTA}
"""Meanings of several causes, which their own words name better."""
_NOT_IMPLEMENTED = 501
"""RFC 9110, 15.6.2: no failure that passes, but a server without this endpoint (llama.cpp with embeddings off)."""
_FIGURES = re.compile(r"\d[\d.,]*")
_SHORT = 60
"""Characters of a sentence that make a cause."""


_CAME = frozenset({Fault.TOO_LARGE, Fault.ENCODING, Fault.OUTAGE, Fault.LOST})
"""Faults that do not say that the provider is not there."""


class Answer(NamedTuple):
    """One attempt's answer, as far as verdicts ask.

    `status` is 0 without a whole answer, then `fault` says why; `type`, `code` and `message` are the error body's. Of an
    error inside a 200 it is the status that the error's own code is.
    `defect` is why a 200 body is no reply, `unreadable` that it is of no known format; `complaint` why a reply
    does not fit the schema or, with its name in `check`, a check, or what was paid for one without an answer; `html`
    marks an HTML body.
    `meaning` is what the table of answers says of a refusal, `param` the parameter that it names, `endpoint` is where
    the request went.
    `checked` is whether a schema holds for the reply, `limited` whether the request states a limit of output tokens.
    `waited` is for how many seconds there has been no capacity in the only service tier that is left.
    `left` is when the request left, in the engine's monotonic seconds. `disguised` marks a refusal in
    another status than 429: of a busy server, or one that a gateway passes on as its own failure.
    """

    status: int
    fault: Fault | None = None
    sent: bool = True
    type: str = ""
    code: str = ""
    message: str = ""
    meaning: Meaning | None = None
    param: str = ""
    endpoint: str = ""
    html: bool = False
    defect: str | None = None
    complaint: str | None = None
    check: str | None = None
    flags: frozenset[Flag] = frozenset()
    retry_after: float | None = None
    left: float = 0.0
    disguised: bool = False
    unreadable: bool = False
    checked: bool = False
    limited: bool = False
    waited: float = 0.0

    @property
    def accepted(self) -> bool:
        """A 200 that carries a reply, whatever is thought of the reply."""
        return self.status == 200 and self.defect is None

    @property
    def throttled(self) -> bool:
        """A refusal for want of a rate, a slot or a quota: a wait helps, and the row is not to blame."""
        if self.meaning in STOPS or self.meaning is Meaning.NEVER_FITS or self.meaning in OF_WHAT_WAS_ADDED:
            return False
        return self.status == 429 or self.disguised or self.meaning in WAITS

    @property
    def _turned_away(self) -> bool:
        """The provider answered that it does not take the request now, or not with what was added to it."""
        if self.disguised or self.meaning in WAITS or self.meaning is Meaning.LOADING:
            return True
        return self.meaning in OF_WHAT_WAS_ADDED

    @property
    def down(self) -> bool:
        """The provider did not answer, or answered for its own failure."""
        failed = self.status >= 500 and self.status != _NOT_IMPLEMENTED
        lost = self.fault is not None and self.fault not in _CAME
        return (failed or lost) and not self._turned_away

    @property
    def possibly_billed(self) -> bool:
        """The request was sent, no reply came, and nothing says that it was turned away."""
        if not self.sent or self.status == _NOT_IMPLEMENTED or self._turned_away:
            return False
        return self.status in (0, 408, 409, 424, 499) or self.status >= 500

    @property
    def misfit(self) -> bool:
        """The provider itself refused the model's JSON."""
        return self.meaning is Meaning.MISFIT

    @property
    def of_the_row(self) -> bool:
        """The cause is in the row itself."""
        return self.meaning in OF_THE_ROW or self.fault is Fault.TOO_LARGE

    @property
    def kind(self) -> str:
        """What failures that are alike have in common: that the provider fails, sends no reply, or their cause."""
        if self.down:
            return "down"
        return "no reply" if self.defect is not None else self.cause

    @property
    def cause(self) -> str:
        """A short stable phrase to group failures by."""
        if self.defect is not None:
            return self.defect
        if self.accepted:
            misfit = self.complaint is not None and Flag.EMPTY not in self.flags
            if misfit:
                return "does not fit the schema" if self.check is None else f"fails the check {self.check}"
            return ", ".join(sorted(self.flags - {Flag.ODD} or self.flags))
        if self.fault is not None:
            return str(self.fault)
        return _named(self)


_PLAIN = Answer(200)
_LEFT = Answer._fields.index("left")
_BEFORE, _BEHIND = _PLAIN[:_LEFT], _PLAIN[_LEFT + 1 :]


def plain(left: float) -> Answer:
    """The answer that is a reply and no more, to a request that left then: nearly every one."""
    return made(Answer, (*_BEFORE, left, *_BEHIND))


def _named(answer: Answer) -> str:
    """What a refusal means, else the status with the code or the type of the error, or without either the sentence.

    A code that only repeats the status is none; figures of the sentence become N, since they differ from row to row.
    """
    if answer.meaning is Meaning.PARAMETER and answer.param:
        return f"{answer.meaning}: {answer.param[:_SHORT]}"
    if answer.meaning is not None and answer.meaning not in _UNNAMED:
        return answer.meaning
    status = str(answer.status)
    name = next((word for word in (answer.code, answer.type) if word and word != status), "")
    if name or answer.status >= 500:
        return f"{status} {name}".strip()
    said = " ".join(_FIGURES.sub("N", answer.message).split())
    return f"{status}: {said[:_SHORT]}" if said and not said.startswith("HTTP N") else status
