"""What a function of `--post` is given, and the record that carries it to a worker."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from batchrun.models import Usage


class Item(NamedTuple):
    """A reply on its way to a worker, all text so that it costs little to send.

    `row` is the input row as a JSON object, `value` the JSON of a value that the reply has beside its text, None for
    none. `line` and `key` name the row as messages do.
    """

    text: str
    row: str = "{}"
    value: str | None = None
    usage: Usage | None = None
    finish: str | None = None
    line: int = 0
    key: str = ""


Task = tuple[Any, Item]
"""A row on its way through the queue: a token, which comes back with its result, and its reply."""


class Reply:
    """One reply, as a function of `--post` sees it.

    `text` is the model's text, or what an earlier function of the chain made of it. `value` is what the last function
    before returned; for the first it is the parsed value where the prompt has an output schema, the embedding or the
    tool calls where the reply is one, and else None. `usage` has the tokens (`input`, `output`, `cached`,
    `reasoning`), None where the provider stated none; `finish` is the provider's finish reason, such as `stop` or
    `length`. `line` and `key` name the input row, `fields` are its columns.
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
        """The columns of the input row by name."""
        if self._fields is None:
            self._fields = json.loads(self._row)
        return self._fields

    def __repr__(self) -> str:
        return f"Reply({self.text!r}, line={self.line})"

    @classmethod
    def of(cls, item: Item) -> "Reply":
        """The reply that an item carries; its row is parsed when it is asked for."""
        reply = cls.__new__(cls)
        reply.text, reply._row, value, reply.usage, reply.finish, reply.line, reply.key = item
        reply.value = None if value is None else json.loads(value)
        reply._fields = None
        return reply


class Value(NamedTuple):
    """What post-processing made of a reply, as JSON texts.

    `output` takes the place of the reply in the output, None keeps it. `added` are members that are merged into the
    output row, one JSON object, None for none.
    """

    output: str | None
    added: str | None


KEPT = Value(None, None)


class Failure(NamedTuple):
    """Why post-processing failed: a short stable phrase, one line with the place, and the traceback if there is one."""

    cause: str
    message: str
    trace: str | None = None


Result = Value | Failure


def internal_error(error: Exception) -> Failure:
    """The failure of rows that are not at fault."""
    return Failure("post: internal error", f"{type(error).__name__}: {error}")


class Shard(NamedTuple):
    """Rows that are handed to a worker together.

    With `stop_after` only the first of them may come back, after so many seconds of work beside the longest row. Where
    rows stay in flight on the worker, they are numbered one after another from `first`, and `held` is how many that it
    was given before have not come back.
    """

    items: list[Item]
    stop_after: float | None = None
    first: int = 0
    held: int = 0


class Done(NamedTuple):
    """What a worker gives back for a shard: the results of its items or of the first of them; where rows stay in
    flight, those that have ended, by their `numbers`.

    `seconds` of work in all. Where each row was timed, `processor` is the processor's part in that, and `longest` its
    part in one row, else 0. `blocked` has, by function, the longest time that a coroutine function kept its event loop
    from turning, where that is too long.
    """

    results: list[Result]
    seconds: float
    longest: float
    blocked: dict[str, float]
    numbers: Sequence[int] = ()
    processor: float = 0.0
