"""The counters of the simulated provider."""

from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any

from batchrun.sim.cache import READ_FACTOR, WRITE_FACTOR, Lookup


class Stats:
    """Times are seconds since the start."""

    def __init__(self, *, record: bool = False) -> None:
        self.calls = 0
        self.answered = 0
        self.by_status: Counter[str] = Counter()
        self.by_fault: Counter[str] = Counter()
        self.batch_calls: Counter[str] = Counter()
        self.input_tokens = 0
        self.output_tokens = 0
        self.batch_input_tokens = 0
        self.batch_output_tokens = 0
        self.batch_cached_tokens = 0
        self.batch_cache_write_tokens = 0
        self.cached_tokens = 0
        self.cache_write_tokens = 0
        self.at_once = 0
        self.peak = 0
        self.refused: Counter[bytes] = Counter()
        self.prompts: dict[bytes, int] = {}
        self.replies: dict[bytes, int] = {}
        self.arrivals = array("d")
        self.admissions = array("d")
        self.log: list[dict[str, Any]] | None = [] if record else None

    def record(self, wanted: bool) -> None:
        if wanted != (self.log is not None):
            self.log = [] if wanted else None

    def arrive(self, digest: bytes, at: float) -> int:
        """The number of the attempts that no limit refused, from 1."""
        self.calls += 1
        self.at_once += 1
        self.peak = max(self.peak, self.at_once)
        self.arrivals.append(at)
        number = self.prompts.get(digest, 0) + 1
        self.prompts[digest] = number
        return number - self.refused[digest] if self.refused else number

    def refuse(self, digest: bytes) -> None:
        self.refused[digest] += 1

    def leave(self, label: str) -> None:
        self.at_once -= 1
        self.by_status[label] += 1

    def pay(self, digest: bytes, input_tokens: int, output_tokens: int, cache: Lookup) -> None:
        self.answered += 1
        self.replies[digest] = self.replies.get(digest, 0) + 1
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens
        self.cached_tokens += cache.read
        self.cache_write_tokens += cache.write

    def pay_batch(self, digest: bytes, input_tokens: int, output_tokens: int, cache: Lookup) -> None:
        self.replies[digest] = self.replies.get(digest, 0) + 1
        self.batch_input_tokens += input_tokens
        self.batch_output_tokens += output_tokens
        self.batch_cached_tokens += cache.read
        self.batch_cache_write_tokens += cache.write

    def view(self, *, prompts: bool = True) -> dict[str, Any]:
        values: dict[str, Any] = {
            "calls": self.calls,
            "answered": self.answered,
            "by_status": dict(self.by_status),
            "by_fault": dict(self.by_fault),
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cached_tokens": self.cached_tokens,
            "cache_write_tokens": self.cache_write_tokens,
            "charged_input_tokens": self.input_tokens
            - (1 - READ_FACTOR) * self.cached_tokens
            + (WRITE_FACTOR - 1) * self.cache_write_tokens,
            "batch_input_tokens": self.batch_input_tokens,
            "batch_output_tokens": self.batch_output_tokens,
            "batch_cached_tokens": self.batch_cached_tokens,
            "batch_cache_write_tokens": self.batch_cache_write_tokens,
            "batch_calls": dict(self.batch_calls),
            "at_once": self.at_once,
            "peak": self.peak,
            "first": self.arrivals[0] if self.arrivals else None,
            "last": self.arrivals[-1] if self.arrivals else None,
            "most_calls_in_1s": most_within(self.arrivals, 1),
            "most_admitted_in_1s": most_within(self.admissions, 1),
            "most_admitted_in_60s": most_within(self.admissions, 60),
            "distinct_prompts": len(self.prompts),
            "most_calls_of_a_prompt": max(self.prompts.values(), default=0),
            "most_replies_to_a_prompt": max(self.replies.values(), default=0),
        }
        if prompts:
            values["prompts"] = {digest.hex(): calls for digest, calls in self.prompts.items()}
            values["replies"] = {digest.hex(): calls for digest, calls in self.replies.items()}
        return values


def most_within(times: Sequence[float], span: float) -> int:
    """The most of the ascending `times` in any half-open span."""
    most = start = 0
    for end, time in enumerate(times):
        while times[start] <= time - span:
            start += 1
        most = max(most, end - start + 1)
    return most
