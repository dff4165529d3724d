"""The rate learned from refusals alone, and the estimate of a request's tokens."""

import math
from collections import deque
from itertools import repeat

from batchrun.limits.random_429s import Random429Detector
from batchrun.limits.records import Permit

_FIRST_PACE = 16.0  # requests per second
_DOUBLES_IN = 0.25  # seconds at most
_DOUBLES_SOONEST = 0.01  # seconds at least
_EXCHANGES = 8  # In whose time the rate doubles, between these: requests at the old rate are answered by then
_DOUBLINGS = 12  # After which nothing spaces requests
_SEARCH_FROM = 0.8  # Share of what was admitted at the first 429s
_SEARCH_GROWTH = 0.10  # Growth of the rate's logarithm per second
_SEARCH_HASTE = 0.03  # The same per second squared
_FALL = 0.93  # Share of the level that a 429 leaves
_MISLED = 0.6  # Share of the refused pace below which the admitted rate becomes the level
_LEAST_LEFT = 0.5  # The least share of that pace that becomes the level
_FALL_AGAIN = 0.92  # Factor of each 429 soon after a fall, to the power of their number
_PLATEAU = 15.0  # Seconds until the rate is back at the level
_PLATEAU_REQUESTS = 150.0  # Requests until then, at least
_MOST_FALLS = 4
_SOON = 0.4  # Share of the plateau within which a 429 is soon after a fall
_MUCH_LOWER = 0.5  # Share of the level at which 429s in spite of falls are judged
_HALVINGS = 3  # Falls while only 429s come back
_STALLED = 3  # 429s in succession, of single requests with pauses, that are not random.
_LONGEST_STEP = 2.0  # Seconds between two refreshes that count as growth
_ROOMY = 5.0  # Seconds of room in every answer until the first new search
_SLOWEST = 1 / 60  # requests per second
_REMEMBERED = 4096  # Answers
_REMEMBERED_SECONDS = 10.0  # Before a 429, over which answers give the rate
_COUNTED_FROM = 2  # The fall from which on the share of 429s is counted
_FREQUENT = 0.4  # Share of bursts in recent outcomes that is frequent
_RECENT = 1 / 8  # Weight of one outcome
# Answers, times that share, without a 429 that have a probability of 5 % (Hanley and Lippman-Hand, JAMA 1983).
_RULE_OF_THREE = 3.0
_CHANCE_AT_MOST = 0.3  # A larger share of 429s that falls do not cure is a limit
_CLEARLY = 0.98  # Share of a proven rate below which no limit explains a 429
_STRAYS_AT_MOST = 0.1  # Share of requests that may be refused at random
_DEPTH = (2.0, 0.05)  # Requests, or seconds of the rate, that a provider's bucket is assumed to hold
_SETTLED = 8  # Replies after which the average tokens are used
_WEIGHED = 50  # Replies over which they are averaged
_LARGEST_RATIO = 100.0  # Of tokens to bytes, times `Estimate.BYTES_PER_TOKEN`


class LearnedRate:
    """Requests per second."""

    __slots__ = (
        "_admitted", "_anchor", "_answered", "_answered_at", "_answered_before", "_at", "_clean", "_cut_at", "_falls",
        "_first", "_first_pace", "_frequent", "_in_a_row", "_level", "_onset", "_onset_left", "_plateau", "_random_429s",
        "_refused", "_refused_at", "_roomy", "_roomy_since", "_stage", "_stalled", "_stalled_since", "_time", "rate",
    )  # fmt: skip

    def __init__(self, *, start: bool) -> None:
        self.rate = _FIRST_PACE if start else math.inf
        self._random_429s = Random429Detector(certain=0.0, clear=_CLEARLY, depth=_DEPTH, strays_at_most=_STRAYS_AT_MOST)
        self._stage = "start"
        self._first_pace = _FIRST_PACE
        self._admitted: deque[float] = deque(maxlen=_REMEMBERED)
        self._answered_at: deque[float] = deque(maxlen=_REMEMBERED)
        self._first = -1.0
        self._at = 0.0
        self._time = 0.0  # in the stage: seconds, or doublings in the first one
        self._onset = self._onset_left = self._anchor = math.inf
        self._level = math.inf
        self._plateau = _PLATEAU
        self._falls = self._in_a_row = 0
        self._stalled, self._stalled_since = False, 0.0
        self._answered_before = 0
        self._frequent, self._clean = 0.0, _RULE_OF_THREE
        self._count_anew()
        self._cut_at = self._roomy_since = -math.inf
        self._roomy = _ROOMY

    @property
    def learnt(self) -> bool:
        return self._stage != "start"

    @property
    def noisy(self) -> bool:
        return self._random_429s.share > 0

    def refresh(self, now: float, binding: bool, took: float = math.inf) -> float:
        """`binding`: it held requests back since; `took` seconds: an exchange."""
        if self._first < 0:
            self._first = self._at = now
        elapsed, self._at = max(0.0, now - self._at), now
        if self._stage == "start" and self.rate == math.inf:
            return self.rate
        if self._stage == "start":
            if binding or not self.noisy:
                self._time += elapsed / min(_DOUBLES_IN, max(_DOUBLES_SOONEST, _EXCHANGES * took))
            self.rate = self._first_pace * 2**self._time if self._time < _DOUBLINGS else math.inf
        elif binding:
            self._time += min(elapsed, _LONGEST_STEP)
            self.rate = max(_SLOWEST, self._search() if self._stage == "search" else self._cubic())
        return self.rate

    def answered(self, permit: Permit, count: int = 1) -> None:
        self._in_a_row = 0
        left, spaced, leaving = permit.left, permit.spaced, permit.leaving
        self._random_429s.answered(spaced if spaced < leaving else leaving, left, count)
        if self._stage == "start" or left <= self._cut_at:
            # Also of a burst that has begun the search: its later 429s reckon anew
            self._admitted.extend(repeat(left, count))
        else:
            self._answered += count
            self._answered_at.extend(repeat(spaced, count))
            if self._stage == "hold" and self._frequent >= _FREQUENT:
                if (self._answered - self._answered_before) * self._frequent >= self._clean:
                    self._clean *= 2
                    self._frequent = 0.0
                    self.search_from(self.rate, self._at)
            else:
                self._frequent -= _RECENT * self._frequent

    def restore(self, rate: float, now: float, *, learnt: bool) -> None:
        self._first = self._at = now
        if learnt:
            self._new_level(rate, now)
            self._time = self._plateau
        else:
            self._first_pace = max(self._first_pace, rate)
        self.refresh(now, binding=False)

    def search_from(self, rate: float, now: float) -> None:
        """For want of other information."""
        self._stage = "search"
        self._anchor = self.rate = max(_SLOWEST, rate)
        self._time = 0.0
        self._cut_at = now

    def note_room(self, room: bool, now: float) -> None:
        # For one more request, by headers.
        if not room:
            self._roomy_since = now
        elif self._stage == "hold" and now - max(self._roomy_since, self._cut_at) > self._roomy:
            self._roomy *= 2
            self._stage = "search"
            self._anchor = self.rate
            self._time = 0.0

    def at_random(self, left: float, pace: float, rate: float, now: float, *, again: bool) -> bool:
        known = self._random_429s.share
        if self._random_429s.calm or not known:
            self._onset, self._onset_left = pace, left
        random = self._random_429s.refused(rate, left, again=again)
        if self._random_429s.share and not known:
            self._start_again(now)
        return random

    def refused(self, left: float, pace: float, spaced: float, now: float, most: float = math.inf) -> bool:
        """Whether it begins a burst; `spaced` is what was used of `pace`."""
        if self._stage == "start" and (self.rate != math.inf or pace == math.inf):
            self._begin_search(min(left, self._onset_left), now)
            return True
        if left <= self._cut_at:
            if self._stage == "search" and self._time == 0.0:
                self._begin_search(left, self._cut_at)
            return False
        self._frequent += _RECENT * (1 - self._frequent)
        self._refused += 1
        self._refused_at = min(self._refused_at, spaced)
        admitted = self._random_429s.admitted if self.noisy else 1.0
        refused_at = min(pace, self._onset, self.rate) * admitted
        if most < min(_MISLED * refused_at, self._level):
            if not self.noisy:
                self._random_429s.believe()  # a burst that the limit held proves no rate
            self._new_level(max(most, _LEAST_LEFT * refused_at), now)
        else:
            self._fall(refused_at, now)
        return True

    def slow_down(self, now: float) -> None:
        """Refused again before any answer."""
        if not self._in_a_row:
            self._stalled_since = now
        self._cut_at = now
        self._refused += 1
        self._in_a_row += 1
        if self._in_a_row >= _STALLED and not self.noisy:
            self._random_429s.believe(now - self._stalled_since)
            self._stalled = True
        if self._stage != "start" and self._in_a_row <= _HALVINGS:
            if self._stage != "hold":
                self._level = self._anchor = self.rate
            self._fall_deeper(now)

    def _start_again(self, now: float) -> None:
        self._stage = "start"
        self._first, self._time = now, 0.0
        self._first_pace = max(self.rate, self._level if self._level < math.inf else 0.0)
        self._admitted.clear()
        self._falls = 0
        self._count_anew()

    def _search(self) -> float:
        t = min(self._time, 60.0)
        return self._anchor * math.exp(_SEARCH_GROWTH * t + _SEARCH_HASTE * t * t)

    def _cubic(self) -> float:
        turns = self._time / self._plateau - 1
        back = min(1.0, max(0.0, 2 * turns + 1))
        return self._anchor ** (1 - back) * self._level**back * (1 + (1 - _FALL) * turns**3)

    def _begin_search(self, left: float, now: float) -> None:
        # From what was admitted just before the refused request; a bucket's depth is not rate.
        oldest = self._admitted[0] if len(self._admitted) == _REMEMBERED else self._first
        span = min(max((left - self._first) / 4, 0.25), _REMEMBERED_SECONDS, max(left - oldest, 0.05))
        known = sum(left - span <= at <= left for at in self._admitted)
        admitted = max(1.0, known - 1.0) / span
        self._stage = "search"
        self._anchor = self.rate = max(_SLOWEST, _SEARCH_FROM * admitted)
        self._time = 0.0
        self._cut_at = now

    def _fall(self, refused_at: float, now: float) -> None:
        if self._stage != "hold" or not self._soon():
            self._new_level(refused_at, now)
        elif self._falls < _MOST_FALLS or refused_at > _MUCH_LOWER * self._level:
            self._fall_deeper(now)
        else:
            self._judge(now)

    def _fall_deeper(self, now: float) -> None:
        self._falls = min(self._falls + 1, _MOST_FALLS)
        if self._falls == _COUNTED_FROM:
            self._count_anew()
        self._hold(self._anchor * _FALL_AGAIN**self._falls, now)

    def _soon(self) -> bool:
        # Few requests as well: concurrency may have held them back.
        soon = _SOON * self._plateau
        return self._time < soon and self._answered - self._answered_before < soon * self._anchor

    def _new_level(self, level: float, now: float) -> None:
        self._level = max(_SLOWEST, level)
        self._stalled = False
        self._falls = 0
        self._count_anew()
        self._hold(self._level, now)

    def _judge(self, now: float) -> None:
        as_fast = sum(spaced >= self._refused_at for spaced in self._answered_at)
        if self._stalled or self._share > _CHANCE_AT_MOST or as_fast <= self._refused:
            self._new_level(self.rate * max(0.5, 1 - self._share), now)
            return
        self._random_429s.known(self._share, sure=False)
        self._start_again(now)

    @property
    def _share(self) -> float:
        # One more than there were, since few are weak evidence.
        return (self._refused + 1) / (self._answered + self._refused + 1)

    def _count_anew(self) -> None:
        self._answered = self._refused = 0
        self._answered_at.clear()
        self._refused_at = math.inf

    def _hold(self, anchor: float, now: float) -> None:
        self._stage = "hold"
        self._anchor = max(_SLOWEST, anchor)
        self._plateau = max(_PLATEAU, _PLATEAU_REQUESTS / self._anchor)
        self._time = 0.0
        self._answered_before = self._answered
        self.rate = self._cubic()
        self._cut_at = now


class Estimate:
    """A request's tokens, by moving averages."""

    __slots__ = ("_count", "_input", "_output", "_ratio")

    BYTES_PER_TOKEN = 4
    UNKNOWN_OUTPUT = 256.0

    def __init__(self) -> None:
        self._ratio = 1.0
        self._input, self._output = 0.0, self.UNKNOWN_OUTPUT
        self._count = 0

    @property
    def settled(self) -> bool:
        return self._count >= _SETTLED

    @property
    def tokens(self) -> float:
        return self._input + self._output

    def share(self, kind: str) -> float:
        """1 while unknown."""
        part = self._input if kind == "input" else self._output
        return part / self.tokens if self._count and part else 1.0

    def kept(self) -> list[float]:
        return [self._ratio, self._input, self._output]

    def restore(self, ratio: float, input_tokens: float, output_tokens: float) -> None:
        self._ratio, self._input, self._output, self._count = ratio, input_tokens, output_tokens, _SETTLED

    def expected_output(self) -> int:
        return math.ceil(self._output)

    def of(self, body_bytes: int, output_limit: int | None) -> int:
        output = self._output
        if output_limit is not None and (self._count == 0 or output_limit < output):
            output = output_limit
        return math.ceil(body_bytes / self.BYTES_PER_TOKEN * self._ratio + output)

    def learn(self, body_bytes: int, input_tokens: int, output_tokens: int) -> None:
        if self._count < _WEIGHED:
            self._count += 1
        weight = 1 / self._count
        ratio = input_tokens * self.BYTES_PER_TOKEN / body_bytes
        self._ratio += weight * (min(ratio, _LARGEST_RATIO) - self._ratio)
        self._input += weight * (input_tokens - self._input)
        self._output += weight * (output_tokens - self._output)
