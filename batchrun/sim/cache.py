"""A provider's cache of prompt prefixes, after OpenAI's guide to prompt caching (2026-09):

    automatic   before GPT-5.6: the longest prefix shared with an earlier request, in steps of 128 tokens from the
                minimum on; writing is free, and a marked breakpoint is an unknown field
    explicit    only prefixes that end at a marked block (`prompt_cache_breakpoint`, or `cache_control`)
    implicit    GPT-5.6 and later: as explicit, with one more breakpoint at the end of the last message, unless
                `prompt_cache_options` has the mode explicit

A prefix is kept for five minutes after its last use, for one `prompt_cache_key` and model, and is readable once the
reply to the request that wrote it is made.
"""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, NamedTuple

from batchrun.sim.requests import Problem, Request, count

READ_FACTOR = 0.1
WRITE_FACTOR = 1.25
_SECONDS = 300.0
_STEP = 128
_BYTES_PER_TOKEN = 4
_MOST_WRITES = 4
_MARKERS = ("prompt_cache_breakpoint", "cache_control")


class Lookup(NamedTuple):
    read: int = 0
    write: int = 0
    prefixes: tuple[bytes, ...] = ()


class PrefixCache:
    def __init__(self) -> None:
        self._ends: dict[bytes, float] = {}

    def look(self, mode: str, minimum: int, request: Request, now: float) -> Lookup | Problem:
        """A Problem if the mode does not take a field of the request."""
        if mode == "none":
            return Lookup()
        blocks = list(_blocks(request.body))
        marked = any(mark for _, _, mark in blocks)
        if mode == "automatic":
            if marked or "prompt_cache_options" in request.body:
                name = _MARKERS[0] if marked else "prompt_cache_options"
                return Problem(400, f"Unknown parameter: '{name}'.", name, "unknown_parameter")
            return self._automatic(request, blocks, minimum, now)
        options: Any = request.body.get("prompt_cache_options")
        managed = mode == "implicit" and not (isinstance(options, dict) and options.get("mode") == "explicit")  # pyright: ignore[reportUnknownMemberType]  # foreign JSON
        digest, tokens = _seeded(request), 0
        ends: list[tuple[bytes, int]] = []
        for place, (role, text, mark) in enumerate(blocks):
            digest.update(f"\0{role}\0{text}".encode("utf-8", "surrogatepass"))
            tokens += count(text)
            if tokens >= minimum and (mark or (managed and place == len(blocks) - 1)):
                ends.append((digest.digest(), tokens))
        read = max((upto for prefix, upto in ends if self._held(prefix, now)), default=0)
        ends = ends[-_MOST_WRITES:]
        written = max((upto for _, upto in ends), default=0) - read
        return Lookup(read, max(0, written), tuple(prefix for prefix, _ in ends))

    def keep(self, found: Lookup, now: float) -> None:
        for prefix in found.prefixes:
            self._ends.pop(prefix, None)
            self._ends[prefix] = now + _SECONDS
        while self._ends and self._ends[first := next(iter(self._ends))] <= now:
            del self._ends[first]

    def _automatic(self, request: Request, blocks: list[tuple[str, str, bool]], minimum: int, now: float) -> Lookup:
        whole = b"".join(f"\0{role}\0{text}".encode("utf-8", "surrogatepass") for role, text, _ in blocks)
        digest, at, prefixes, read = _seeded(request), 0, list[bytes](), 0
        for tokens in range(minimum, len(whole) // _BYTES_PER_TOKEN + 1, _STEP):
            digest.update(whole[at : tokens * _BYTES_PER_TOKEN])
            at = tokens * _BYTES_PER_TOKEN
            prefixes.append(digest.digest())
            read = tokens if self._held(prefixes[-1], now) else read
        return Lookup(min(read, request.input_tokens), 0, tuple(prefixes))

    def _held(self, prefix: bytes, now: float) -> bool:
        return self._ends.get(prefix, 0.0) > now


def _seeded(request: Request) -> Any:
    key = str(request.body.get("prompt_cache_key") or "")
    return blake2b(f"{request.model}\0{key}".encode("utf-8", "surrogatepass"), digest_size=16)


def _blocks(body: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    if instructions := body.get("instructions"):
        yield "system", instructions, False
    given: Any = body.get("messages") or body.get("input") or ()
    for message in [{"role": "user", "content": given}] if isinstance(given, str) else given:
        if not isinstance(message, dict):
            continue
        role, content = str(message.get("role")), message.get("content")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType, reportUnknownArgumentType]  # foreign JSON
        if isinstance(content, str):
            yield role, content, False
        elif isinstance(content, list):
            for part in content:  # pyright: ignore[reportUnknownVariableType]  # foreign JSON
                if isinstance(part, dict):
                    yield role, str(part.get("text") or ""), any(marker in part for marker in _MARKERS)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]  # foreign JSON
