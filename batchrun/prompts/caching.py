"""How a request uses a provider's prompt cache (`providers/caching.toml`) for everything before a variable.

This is added when a request is sent, never hashed.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from hashlib import blake2b
from itertools import pairwise
from typing import Any, NamedTuple

from batchrun.models import Endpoint
from batchrun.prompts.request import to_json
from batchrun.providers import table

BYTES_PER_TOKEN = 4
_MINIMUM, _SECONDS = 1024, 300.0  # tokens and seconds of an unknown cache
_OPENING = b'"content":"'
_ASSISTANT = b'"role":"assistant","content":"'
_NEXT_MESSAGE = b'"},{"role":"'
_QUOTE, _ESCAPE = b'"', ord("\\")
_NAMES = re.compile(r'"(\w*cache\w*)":')
# the type of a text block, where messages may have blocks
_PARTS: Mapping[Endpoint, bytes] = {Endpoint.CHAT: b"text", Endpoint.RESPONSES: b"input_text"}


class Caching(NamedTuple):
    key: str | None = None  # the name of a member
    mark: str = ""  # JSON members without braces
    options: str = ""  # the same
    minimum: int = _MINIMUM  # tokens of a beginning that is cached
    seconds: float = _SECONDS  # since its last use

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.key, *_NAMES.findall(f"{self.mark},{self.options}"))))

    def is_kept(self, size: int) -> bool:
        """At four bytes a token."""
        return size >= self.minimum * BYTES_PER_TOKEN


def caching_of(
    dialect: str, model: str | None, endpoint: Endpoint, params: Collection[str], *, batch: bool = False
) -> Caching:
    """Without members that the user has typed (`params`)."""
    without = "never" if batch else "only"
    lines = (
        one
        for one in table("caching")["cache"]
        if one.get("batches") != without and dialect in one["dialects"] and endpoint in one["endpoints"]
    )
    line = next((one for one in lines if any(fnmatchcase(model or "", pattern) for pattern in one["models"])), None)
    if line is None:
        return Caching()
    options: dict[str, Any] = line.get("options", {})
    typed = options.keys() & params
    return Caching(
        None if line.get("key") in params else line.get("key"),
        "" if typed or "mark" not in line else to_json(line["mark"])[1:-1],
        "" if typed or not options else to_json(options)[1:-1],
        line["minimum"],
        float(line["seconds"]),
    )


def key_member(name: str, beginning: bytes) -> str:
    """With a hash of the beginning, as JSON without braces."""
    return f'"{name}":"batchrun-{blake2b(beginning, digest_size=12).hexdigest()}"'


def with_members(body: bytes, members: str) -> bytes:
    """At the end of a non-empty object."""
    return b"%b,%b}" % (body.rstrip()[:-1], members.encode())


def _end_of_text(body: bytes, start: int) -> int:
    end = body.find(_QUOTE, start)
    while end >= 0:
        before = end
        while body[before - 1] == _ESCAPE:
            before -= 1
        if (end - before) % 2 == 0:
            return end
        end = body.find(_QUOTE, end + 1)
    return len(body)


def marked(body: bytes, ends: Sequence[int], mark: str, endpoint: Endpoint) -> bytes:
    """Marks the block before each place (ascending) where a variable begins, else the message before it."""
    kind = _PARTS.get(endpoint)
    if kind is None:
        return body
    cuts: dict[int, list[int]] = {}
    for place in ends:
        end = place
        start = body.rfind(_OPENING, 0, end) + len(_OPENING)
        if start >= len(_OPENING) and not body[start:end].strip():
            end = body.rfind(_NEXT_MESSAGE, 0, start)
            start = body.rfind(_OPENING, 0, max(end, 0)) + len(_OPENING)
        if start >= len(_OPENING):
            end = min(end, _end_of_text(body, start))  # the place is in a message of parts behind that text
        if len(_OPENING) <= start < end and not (
            endpoint is Endpoint.RESPONSES and body.endswith(_ASSISTANT, 0, start)  # whose blocks cannot be marked
        ):
            places = cuts.setdefault(start, [])
            places += [end] if end not in places else []
    pieces: list[bytes] = []
    after = 0
    for start, places in cuts.items():
        stop = _end_of_text(body, places[-1])
        blocks = [
            b'{"type":"%b","text":"%b",%b}' % (kind, body[one:other], mark.encode())
            for one, other in pairwise([start, *places])
        ]
        if stop > places[-1]:
            blocks.append(b'{"type":"%b","text":"%b"}' % (kind, body[places[-1] : stop]))
        pieces += [body[after : start - 1], b"[", b",".join(blocks), b"]"]
        after = stop + 1
    return b"".join([*pieces, body[after:]])
