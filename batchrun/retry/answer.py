"""One attempt's answer, as verdicts need it."""

import re
from typing import NamedTuple

from batchrun.models import Fault, Flag, made
from batchrun.retry.meaning import OF_ADDITIONS, OF_THE_ROW, STOPS, WAITS, Meaning

_UNNAMED = frozenset({Meaning.KEY, Meaning.PARAMETER, Meaning.PASSES, Meaning.OVERLOADED, *WAITS}) - {Meaning.QUOTA}
# Meanings of several causes, which the error's own words name better.
_NOT_IMPLEMENTED = 501  # RFC 9110, 15.6.2: permanent: a server without this endpoint (llama.cpp with embeddings off).
_FIGURES = re.compile(r"\d[\d.,]*")
_SHORT = 60  # Characters of a message used as a cause


_CAME = frozenset({Fault.TOO_LARGE, Fault.ENCODING, Fault.OUTAGE, Fault.LOST})
# Faults that do not show that the provider is down.


class Answer(NamedTuple):
    status: int  # 0 with a `fault`; for an error inside a 200 its code
    fault: Fault | None = None
    sent: bool = True
    type: str = ""
    code: str = ""
    message: str = ""
    meaning: Meaning | None = None
    param: str = ""  # names a parameter
    endpoint: str = ""
    html: bool = False
    defect: str | None = None  # why a 200 is no reply
    complaint: str | None = None  # why a reply fails the schema or `check`, or what an empty one cost
    check: str | None = None
    flags: frozenset[Flag] = frozenset()
    retry_after: float | None = None
    left: float = 0.0  # monotonic seconds of the departure
    disguised: bool = False  # a refusal under another status than 429
    unreadable: bool = False  # a defect of the format
    checked: bool = False  # a schema applies
    limited: bool = False  # output tokens are
    waited: float = 0.0  # seconds without tier capacity

    @property
    def accepted(self) -> bool:
        return self.status == 200 and self.defect is None

    @property
    def unremarkable(self) -> bool:
        return self.status == 200 and self.defect is None and self.complaint is None and not self.flags

    @property
    def throttled(self) -> bool:
        """For lack of a rate, slot or quota: waiting helps."""
        if self.meaning in STOPS or self.meaning is Meaning.NEVER_FITS or self.meaning in OF_ADDITIONS:
            return False
        return self.status == 429 or self.disguised or self.meaning in WAITS

    @property
    def _turned_away(self) -> bool:
        if self.disguised or self.meaning in WAITS or self.meaning is Meaning.LOADING:
            return True
        return self.meaning in OF_ADDITIONS

    @property
    def down(self) -> bool:
        """No answer, or a failure of the provider itself."""
        failed = self.status >= 500 and self.status != _NOT_IMPLEMENTED
        lost = self.fault is not None and self.fault not in _CAME
        return (failed or lost) and not self._turned_away

    @property
    def possibly_billed(self) -> bool:
        """Sent, without a reply, and not refused."""
        if not self.sent or self.status == _NOT_IMPLEMENTED or self._turned_away:
            return False
        return self.status in (0, 408, 409, 424, 499) or self.status >= 500

    @property
    def misfit(self) -> bool:
        # The provider itself refused the model's JSON.
        return self.meaning is Meaning.MISFIT

    @property
    def of_the_row(self) -> bool:
        return self.meaning in OF_THE_ROW or self.fault is Fault.TOO_LARGE

    @property
    def kind(self) -> str:
        if self.down:
            return "down"
        return "no reply" if self.defect is not None else self.cause

    @property
    def cause(self) -> str:
        """A short stable phrase."""
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
    """For an unremarkable reply to a request sent then."""
    return made(Answer, (*_BEFORE, left, *_BEHIND))


def _named(answer: Answer) -> str:
    # The meaning, else status with code, type or message; figures become N.
    if answer.meaning is Meaning.PARAMETER and answer.param:
        return f"{answer.meaning}: {answer.param[:_SHORT]}"
    if answer.meaning is not None and answer.meaning not in _UNNAMED:
        return answer.meaning
    status = str(answer.status)
    name = next((word for word in (answer.code, answer.type) if word and word != status), "")
    if name or answer.status >= 500:
        return f"{status} {name}".strip()
    message = " ".join(_FIGURES.sub("N", answer.message).split())
    return f"{status}: {message[:_SHORT]}" if message and not message.startswith("HTTP N") else status
