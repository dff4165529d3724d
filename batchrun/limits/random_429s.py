"""Distinguishes random 429s from those of a limit."""

# Proven is the size of a block of answered requests, less a bucket's depth; of those beside a refused one, times the
# share answered; or as many as were let through together.

import math
from collections import deque

_USUAL = 0.04  # Share of 429s assumed random before any is known; 0.1 to 5 % occur in practice.
_MORE = 0.05  # Share added to twice the usual one, for the likelihood ratio
_ALARM = 7.0
_LEAST, _MOST = 0.001, 0.3  # Bounds of the known share. At the least, two 429s close together alarm.
_STRAYS = 3
_WEIGHT = 1 / 400  # of one request in the known share
_BLOCK = 64  # Requests per block; of rates it lasts at least a second, and as long as the longest stall
_LONGEST_WINDOW = 60.0  # Seconds; most windows last a minute at most, and longer stalls may be outages
_SPOILT = 0.05  # A block with a larger share of 429s (or than the known share) proves nothing
_ALIKE = 0.95
_BESIDE = 8  # Answers beside a refused request, of at least 0.95 of its size, that prove something
_REMEMBERED = 16


class Random429Detector:
    __slots__ = (
        "_adds", "_alarmed", "_before", "_believed", "_beside", "_block", "_certain", "_clear", "_depth", "_lasts", "_met", "_most",
        "_proven", "_refused", "_refused_beside", "_refused_of_block", "_score", "_since", "_sizes", "_strays",
        "_strays_at_most", "_subtracts", "_watched", "admitted", "share",
    )  # fmt: skip

    def __init__(self, *, certain: float, clear: float, depth: tuple[float, float], strays_at_most: float) -> None:
        # `certain`: every limit admits it. `clear`: below that share of the proven size is clearly smaller. `depth`:
        # what a bucket may admit beyond its limit, as number and share.
        self._certain = certain
        self._clear = clear
        self._depth = depth
        self._strays_at_most = strays_at_most
        self._most = _MOST
        self.share = 0.0  # known share of random 429s; 0 while none is known
        self._alarmed = 0.0
        self._lasts = 1.0
        self._met = False  # whether there was a 429: until then an answer only adds to its block
        self._block = self._before = 0  # answered ones of the block; all others since the count began
        self.admitted = 1.0  # share answered, of those not refused at random, before the last alarm
        self.believe()
        self._weigh(_USUAL)

    @property
    def calm(self) -> bool:
        return self._score == 0.0

    def explains(self, size: float) -> bool:
        """Whether a limit may have refused that size."""
        return size >= self._clear * self._proven

    def answered(self, size: float, left: float, count: int = 1) -> None:
        if self._met:
            self._score = max(0.0, self._score - count * self._subtracts)
            if self.share:
                for _ in range(count):
                    self._correct(size, 0)
            if left > self._since and size >= _ALIKE * self._watched:
                self._prove_beside(count)
        self._block += count
        self._sizes += size * count
        if self._block >= _BLOCK and self._block >= self._sizes / self._block * self._lasts:
            self._prove_block()

    def refused(self, size: float, left: float, *, again: bool = False) -> bool:
        """Whether it is random; `again`: nothing was answered since."""
        self._met = True
        self._score += self._adds
        self._before += 1
        self._refused += 1
        self._refused_of_block += 1
        explained = self.explains(size)
        if self._score >= _ALARM:
            self._alarm(size, self._refused / (self._before + self._block))
            return False
        self._correct(size, 1)
        if explained:
            self._explained(size, left)
        elif not again:
            self._stray()
        return self.share > 0 or not explained

    def proves(self, size: float) -> None:
        """Every limit admits this size."""
        if size <= self._proven:
            return
        self._proven = size
        if not self.share:
            explained = [refused for refused in self._believed if self.explains(refused)]
            self._strays += len(self._believed) - len(explained)
            self._believed = deque(explained, _REMEMBERED)

    def known(self, share: float, *, sure: bool) -> None:
        """Unless `sure`, an alarm with many more revokes the share."""
        self.share = min(_MOST, max(_LEAST, share))
        self._most = _MOST if sure else self.share
        self._met, self._score = True, 0.0
        self._count_from(0)
        self._weigh(self.share)

    def believe(self, stalled: float = 0.0) -> None:
        """What was proven may no longer hold."""
        # After a stall a whole window may be free, so blocks last as long.
        self._lasts = max(self._lasts, min(stalled, _LONGEST_WINDOW))
        self._score = 0.0
        self._proven = self._certain
        self._strays = 0
        self._believed: deque[float] = deque(maxlen=_REMEMBERED)
        self._begin_block()
        self._count_from(0)
        self._watch(math.inf, math.inf)

    def _correct(self, size: float, refused: int) -> None:
        # Only by requests that no limit explains, or well below the last alarm.
        if self.share and (size < _ALIKE * self._alarmed or not self.explains(size)):
            self.share = min(self._most, max(_LEAST, self.share + _WEIGHT * (refused - self.share)))
            self._weigh(self.share)

    def _alarm(self, size: float, refused: float) -> None:
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
            self._count_from(1)
        self._strays += 1
        share = self._refused / (self._before + self._block)
        if self._strays >= _STRAYS and share <= self._strays_at_most:
            self.known(share, sure=True)

    def _watch(self, size: float, left: float) -> None:
        self._watched, self._since = size, left
        self._beside = self._refused_beside = 0

    def _prove_beside(self, count: int) -> None:
        self._beside += count
        if self._beside >= _BESIDE:
            share = self._beside / (self._beside + self._refused_beside + 1)
            self.proves(_ALIKE * self._watched * share)

    def _prove_block(self) -> None:
        if self._refused_of_block <= (self.share or _SPOILT) * self._block:
            mean = self._sizes / self._block
            depth = max(self._depth[0], self._depth[1] * mean)
            self.proves(mean * (1 - depth / self._block))
        self._begin_block()

    def _begin_block(self) -> None:
        self._before += self._block
        self._block = self._refused_of_block = 0
        self._sizes = 0.0  # the sum of the block's

    def _count_from(self, refused: int) -> None:
        self._refused, self._before = refused, refused - self._block

    def _weigh(self, share: float) -> None:
        more = 2 * share + _MORE
        self._adds = math.log(more / share)
        self._subtracts = math.log((1 - share) / (1 - more))
