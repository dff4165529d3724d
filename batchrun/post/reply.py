"""The argument of a function of `--post`, and records to and from a worker."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from batchrun.models import Usage


class Item(NamedTuple):
    text: str
    row: str = "{}"  # a JSON object
    value: str | None = None  # the JSON of a value beside the text
    usage: Usage | None = None
    finish: str | None = None
    line: int = 0
    key: str = ""


Task = tuple[Any, Item]  # a token, which comes back with its result, and a row's reply


class Reply:
    """One reply, the argument of a function of `--post`.

    `text` is the model's text, or what an earlier function made of it. `value` is what the previous function returned;
    for the first the parsed value with an output schema, the embedding or the tool calls, else None. `usage` has the
    tokens (`input`, `output`, `cached`, `reasoning`), None if not stated; `finish` is the provider's finish reason,
    such as `stop` or `length`. `line` and `key` name the input row, `fields` are its columns.
    """

    __slots__ = ("_fields", "_row", "finish", "key", "line", "text", "usage", "value")

    text: str
    value: Any
    usage: Usage | None
    finish: str | None
    line: int
    key: str

    def __init__(  # noqa: PLR0913  what a reply has; users make one to test their functions
        self,
        text: str,
        fields: dict[str, Any] | None = None,
        *,
        value: Any = None,
        usage: Usage | None = None,
        finish: str | None = "stop",
        line: int = 1,
        key: str = "",
    ) -> None:
        self.text = text
        self.value = value
        self.usage = usage
        self.finish = finish
        self.line = line
        self.key = key
        self._row = "{}"
        self._fields = {} if fields is None else fields

    @property
    def fields(self) -> dict[str, Any]:
        if self._fields is None:
            self._fields = json.loads(self._row)
        return self._fields

    def __repr__(self) -> str:
        return f"Reply({self.text!r}, line={self.line})"

    @classmethod
    def of(cls, item: Item) -> "Reply":
        # its row is parsed on first use
        reply = cls.__new__(cls)
        reply.text, reply._row, value, reply.usage, reply.finish, reply.line, reply.key = item
        reply.value = None if value is None else json.loads(value)
        reply._fields = None
        return reply


class Value(NamedTuple):
    output: str | None  # JSON that replaces the reply, None keeps it
    added: str | None  # a JSON object that is merged into the output row


KEPT = Value(None, None)


class Failure(NamedTuple):
    cause: str  # a short stable phrase
    message: str  # one line with the place
    trace: str | None = None  # a traceback


Result = Value | Failure


def internal_error(error: Exception) -> Failure:
    return Failure("post: internal error", f"{type(error).__name__}: {error}")


class Shard(NamedTuple):
    items: list[Item]
    stop_after: float | None = None  # return only the first rows, after so many seconds beside the longest one
    first: int = 0  # the number of the first item, if rows stay in flight
    held: int = 0  # earlier rows that have not come back


class Done(NamedTuple):
    results: list[Result]  # of the shard or its beginning, or of rows in flight that ended
    seconds: float  # of work
    longest: float  # of one row, if timed
    blocked: dict[str, float]  # the longest time that a function blocked its event loop, if too long
    numbers: Sequence[int] = ()  # of rows in flight
    processor: float = 0.0  # CPU time of `seconds`
