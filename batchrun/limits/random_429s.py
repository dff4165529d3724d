"""Telling 429s that come at random from those of a limit.

An overloaded provider or a flaky gateway refuses some requests whatever we do. A limit is different in two ways: it
refuses nothing below it, and the further it is overstepped the larger is the share that it refuses. So two measures are
kept, with the *size* at which each request left (requests a second, or how many were in flight):

* The *score* is Page's CUSUM [1]: every 429 adds, and every answer subtracts, the logarithm of how much likelier it is
  when 429s come at twice their usual share and 5 % more. At the usual share it passes the alarm once in e^7 / share
  requests; a limit that is overstepped by a quarter, 25 % refused, passes it within some dozens.
* What is *proven* is the largest size that every limit admits: that of a block of requests that was answered, less what
  the depth of a bucket lets through; or, where one was refused, that of those beside it, times the share answered, for
  a limit that has just refused holds nothing in reserve; or, in flight, as many as were let through together, which is
  exact. No limit explains a 429 to a clearly smaller request.

Three such *strays*, at most a tenth or so of what was sent meanwhile, are chance, and their share is the usual one from then
on. Until then a 429 that a limit explains is believed, and what was learnt from it is unlearnt then. An alarm is always
believed, and what was proven before it is not any more, for the limit may be lower now.

[1] E. S. Page, Continuous Inspection Schemes, Biometrika 41, 1954.
"""

import math
from collections import deque

_USUAL = 0.04
"""The share of 429s that is taken for possible chance before any is known: 0.1 to 5 % are seen in practice."""
_MORE = 0.05
_ALARM = 7.0
_LEAST, _MOST = 0.001, 0.3
"""Bounds of the known share. At the least two 429s close together alarm, so it need not be forgotten."""
_STRAYS = 3
_WEIGHT = 1 / 400
"""Of one request in the known share."""
_BLOCK = 64
"""Requests of a block at least; where sizes are rates it lasts a second at least, and as long as the longest stall."""
_LONGEST_WINDOW = 60.0
"""Seconds; most windows are of a minute or less, and what lasts longer may have been an outage."""
_SPOILT = 0.05
"""A block with a larger share of 429s proves nothing; where a share is known, one with a larger share than that."""
_ALIKE = 0.95
_BESIDE = 8
"""Answers beside a refused request, as large or down to 0.95 of it, that prove something."""
_REMEMBERED = 16


class Random429Detector:
    """What is known of random 429s of one kind."""

    __slots__ = (
        "_adds", "_alarmed", "_all", "_believed", "_beside", "_block", "_certain", "_clear", "_depth", "_lasts", "_mean", "_most",
        "_proven", "_refused", "_refused_beside", "_refused_of_block", "_score", "_since", "_strays", "_strays_at_most",
        "_subtracts", "_watched", "admitted", "share",
    )  # fmt: skip

    def __init__(self, *, certain: float, clear: float, depth: tuple[float, float], strays_at_most: float) -> None:
        """Every limit admits the size `certain`; a size under `clear` times the proven one is clearly smaller.

        `depth` is what a bucket may let through beyond its limit: so much, or so much of the size. Strays are chance while
        no larger share than `strays_at_most` of what was sent meanwhile was refused.
        """
        self._certain = certain
        self._clear = clear
        self._depth = depth
        self._strays_at_most = strays_at_most
        self._most = _MOST
        self.share = 0.0
        """The known share of random 429s; 0 while none is known."""
        self._alarmed = 0.0
        self._lasts = 1.0
        self.admitted = 1.0
        """What share of those that chance spared was answered before the last alarm."""
        self.believe()
        self._weigh(_USUAL)

    @property
    def calm(self) -> bool:
        """Whether 429s have been no more frequent than usual of late."""
        return self._score == 0.0

    def explains(self, size: float) -> bool:
        """Whether a limit may be what refuses a request of that size."""
        return size >= self._clear * self._proven

    def answered(self, size: float, left: float) -> None:
        """A request of that size, which left then, was not refused."""
        if self._score:
            self._score = max(0.0, self._score - self._subtracts)
        self._all += 1
        if self.share:
            self._correct(size, 0)
        if left > self._since and size >= _ALIKE * self._watched:
            self._prove_beside()
        self._block += 1
        self._mean += (size - self._mean) / self._block
        if self._block >= _BLOCK and self._block >= self._mean * self._lasts:
            self._prove_block()

    def refused(self, size: float, left: float, *, again: bool = False) -> bool:
        """A request of that size, which left then, was refused; whether that is chance.

        `again` is whether nothing was answered since the last: two in succession are no evidence of chance.
        """
        self._score += self._adds
        self._all += 1
        self._refused += 1
        self._refused_of_block += 1
        explained = self.explains(size)
        if self._score >= _ALARM:
            self._alarm(size, self._refused / self._all)
            return False
        self._correct(size, 1)
        if explained:
            self._explained(size, left)
        elif not again:
            self._stray()
        return self.share > 0 or not explained

    def proves(self, size: float) -> None:
        """Every limit admits this size; what was believed of smaller ones was chance."""
        if size <= self._proven:
            return
        self._proven = size
        if not self.share:
            explained = [refused for refused in self._believed if self.explains(refused)]
            self._strays += len(self._believed) - len(explained)
            self._believed = deque(explained, _REMEMBERED)

    def known(self, share: float, *, sure: bool) -> None:
        """So large a share of 429s has turned out to be chance; an alarm with many more unsays what is not sure."""
        self.share = min(_MOST, max(_LEAST, share))
        self._most = _MOST if sure else self.share
        self._score = 0.0
        self._all = self._refused = 0
        self._weigh(self.share)

    def believe(self, stalled: float = 0.0) -> None:
        """A limit has shown itself: what was proven before may hold no more.

        Where nothing was let through for so many seconds before, a whole window of that length may be free at once: from
        then on a block of rates lasts as long.
        """
        self._lasts = max(self._lasts, min(stalled, _LONGEST_WINDOW))
        self._score = 0.0
        self._proven = self._certain
        self._all = self._refused = self._strays = 0
        self._believed: deque[float] = deque(maxlen=_REMEMBERED)
        self._begin_block()
        self._watch(math.inf, math.inf)

    def _correct(self, size: float, refused: int) -> None:
        """What no limit explains goes on telling how much chance there is, and what left well under the last alarm."""
        if self.share and (size < _ALIKE * self._alarmed or not self.explains(size)):
            self.share = min(self._most, max(_LEAST, self.share + _WEIGHT * (refused - self.share)))
            self._weigh(self.share)

    def _alarm(self, size: float, refused: float) -> None:
        """More 429s than chance has, a share `refused` of what was sent since it last spoke."""
        if refused > _MOST > self._most:  # it never was chance
            self.share, self._most = 0.0, _MOST
            self._weigh(_USUAL)
        answered = max(0.5, 1 - refused)
        self._alarmed = size * answered
        self.admitted = min(1.0, answered / (1 - self.share))
        self.believe()

    def _explained(self, size: float, left: float) -> None:
        self._believed.append(size)
        if _ALIKE * self._watched <= size <= self._watched / _ALIKE:
            self._refused_beside += 1
        else:
            self._watch(size, left)

    def _stray(self) -> None:
        if self.share:
            return
        if not self._strays:
            self._all = self._refused = 1
        self._strays += 1
        share = self._refused / self._all
        if self._strays >= _STRAYS and share <= self._strays_at_most:
            self.known(share, sure=True)

    def _watch(self, size: float, left: float) -> None:
        self._watched, self._since = size, left
        self._beside = self._refused_beside = 0

    def _prove_beside(self) -> None:
        """Beside a refused request nothing is let through beyond the limit: the share that is answered tells it."""
        self._beside += 1
        if self._beside >= _BESIDE:
            share = self._beside / (self._beside + self._refused_beside + 1)
            self.proves(_ALIKE * self._watched * share)

    def _prove_block(self) -> None:
        if self._refused_of_block <= (self.share or _SPOILT) * self._block:
            depth = max(self._depth[0], self._depth[1] * self._mean)
            self.proves(self._mean * (1 - depth / self._block))
        self._begin_block()

    def _begin_block(self) -> None:
        self._block = self._refused_of_block = 0
        self._mean = 0.0

    def _weigh(self, share: float) -> None:
        more = 2 * share + _MORE
        self._adds = math.log(more / share)
        self._subtracts = math.log((1 - share) / (1 - more))
