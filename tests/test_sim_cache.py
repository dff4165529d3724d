"""The simulated cache of prompt prefixes: what is read, what is written, and when."""

import json
from typing import Any

import pytest

from batchrun.models import Endpoint
from batchrun.sim import Settings
from batchrun.sim.cache import Lookup, PrefixCache
from batchrun.sim.replies import make
from batchrun.sim.requests import Problem, Request, parse_request

FIXED = "word " * 2400  # 3,000 tokens
MARK = {"prompt_cache_breakpoint": {"mode": "explicit"}}


def chat(row: str, *, mark: dict[str, Any] | None = None, fixed: str = FIXED, **body: Any) -> Request:
    block = {"type": "text", "text": fixed, **(mark or {})}
    messages = [{"role": "system", "content": [block]}, {"role": "user", "content": row}]
    text = json.dumps({"model": "m", "messages": messages, **body}).encode()
    request = parse_request(Endpoint.CHAT, text)
    assert isinstance(request, Request)
    return request


class Cache:
    """A cache in a mode, to which requests come one after the other."""

    def __init__(self, mode: str) -> None:
        self.cache = PrefixCache()
        self.mode = mode

    def ask(self, request: Request, now: float = 0.0) -> tuple[int, int]:
        found = self.cache.look(self.mode, 1024, request, now)
        assert isinstance(found, Lookup)
        self.cache.keep(found, now)
        return found.read, found.write


def test_without_a_cache_nothing_is_read_or_written() -> None:
    cache = Cache("none")
    assert [cache.ask(chat("a", mark=MARK)) for _ in range(2)] == [(0, 0)] * 2


def test_a_marked_prefix_is_written_once_and_read_from_then_on() -> None:
    cache = Cache("explicit")
    assert [cache.ask(chat(row, mark=MARK)) for row in "abc"] == [(0, 3000), (3000, 0), (3000, 0)]


def test_explicit_caches_only_what_is_marked() -> None:
    cache = Cache("explicit")
    assert [cache.ask(chat("a")) for _ in range(2)] == [(0, 0)] * 2
    assert cache.ask(chat("a", mark={"cache_control": {"type": "ephemeral"}})) == (0, 3000)


def test_a_prefix_under_the_minimum_is_not_cached() -> None:
    for mode in ("explicit", "automatic", "implicit"):
        cache = Cache(mode)
        mark = None if mode == "automatic" else MARK
        assert [cache.ask(chat("a", mark=mark, fixed="word " * 240)) for _ in range(2)] == [(0, 0)] * 2


def test_a_prefix_ends_five_minutes_after_its_last_use() -> None:
    cache = Cache("explicit")
    asked = [cache.ask(chat("a", mark=MARK), now) for now in (0.0, 299.0, 597.0, 897.5)]
    assert asked == [(0, 3000), (3000, 0), (3000, 0), (0, 3000)]


def test_another_key_or_model_has_a_cache_of_its_own() -> None:
    cache = Cache("explicit")
    cache.ask(chat("a", mark=MARK, prompt_cache_key="one"))
    assert cache.ask(chat("a", mark=MARK, prompt_cache_key="two")) == (0, 3000)
    assert cache.ask(chat("a", mark=MARK, prompt_cache_key="one", model="n")) == (0, 3000)
    assert cache.ask(chat("a", mark=MARK, prompt_cache_key="one")) == (3000, 0)


def test_a_managed_breakpoint_is_written_behind_every_row_unless_it_is_switched_off() -> None:
    cache = Cache("implicit")
    assert [cache.ask(chat(row * 400)) for row in "ab"] == [(0, 3100), (0, 3100)]
    assert [cache.ask(chat(row * 400, mark=MARK)) for row in "cd"] == [(0, 3100), (3000, 100)]
    assert cache.ask(chat("e", mark=MARK, prompt_cache_options={"mode": "explicit"})) == (3000, 0)


def test_an_automatic_cache_reads_the_shared_prefix_in_steps_and_writes_for_nothing() -> None:
    cache = Cache("automatic")
    assert [cache.ask(chat(row * 400)) for row in "ab"] == [(0, 0), (2944, 0)]


@pytest.mark.parametrize("body", [{"mark": MARK}, {"prompt_cache_options": {"mode": "explicit"}}])
def test_an_older_model_refuses_the_fields_by_name(body: dict[str, Any]) -> None:
    problem = PrefixCache().look("automatic", 1024, chat("a", **body), 0.0)
    assert isinstance(problem, Problem)
    assert (problem.status, problem.code) == (400, "unknown_parameter")
    assert problem.param in problem.message
    assert "prompt_cache" in problem.message


@pytest.mark.parametrize(("cache", "details"), [
    ("explicit", {"cached_tokens": 3, "cache_write_tokens": 5}),
    ("automatic", {"cached_tokens": 3}),
    ("none", {"cached_tokens": 0}),
])  # fmt: skip
def test_usage_tells_what_was_read_and_written(cache: str, details: dict[str, int]) -> None:
    value = make(chat("a"), "", Settings(cache=cache), Lookup(3, 5)).value
    assert value["usage"]["prompt_tokens_details"] == details
    text = json.dumps({"model": "m", "input": "Hello."}).encode()
    request = parse_request(Endpoint.RESPONSES, text)
    assert isinstance(request, Request)
    assert make(request, "", Settings(cache=cache), Lookup(3, 5)).value["usage"]["input_tokens_details"] == details


def test_the_tier_that_was_asked_for_is_the_tier_served() -> None:
    tiers = [make(chat("a", service_tier=tier), "", Settings()).value["service_tier"] for tier in ("flex", "auto")]
    assert tiers == ["flex", "default"]
    assert "service_tier" not in make(chat("a"), "", Settings()).value
