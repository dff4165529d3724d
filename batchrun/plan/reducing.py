"""Texts longer than a request, for prompts whose answer stands for the whole text, such as a summary (`--reduce`).

A row whose text is too long is answered in stages: each piece of the text is a map row, and the replies of consecutive
rows are the text of a reduce row, level by level, until one is left. That one is the row itself: it has its identity,
its text in the journal and its line in the output. All rows are known when the input is taken in, so that plan, budget
and account have every stage; a reduce row is handed out when its parts are done (`journal.reducible`).

The hash of a reduce row is that of its request with the hashes of its parts in the place of their replies. So a change
below changes every row above, and a reply is never paid for twice. These hashes stand there with the length that replies
are expected to have, so that sizes and prices of a plan hold for every stage.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Self

import orjson

from batchrun import documents, replies
from batchrun.errors import RefusedError
from batchrun.journal import IntakeRow
from batchrun.models import Kind, Parts, Request, Row
from batchrun.plan.record import Plan
from batchrun.prompts import Renderer, RenderError, request_digest
from batchrun.prompts.caching import BYTES_PER_TOKEN

REDUCED = "reduced"
"""The prompt variable with the number of replies that a request puts together; a prompt declares it with a default."""
USUAL = 8
"""Replies that are put together where no limit of output tokens tells how long they are."""
_UNKNOWN = "is a placeholder for a reply that does not exist yet "
_BETWEEN = "\n\n"


class Node(NamedTuple):
    """A row of the tree: the numbers of the rows whose replies it puts together, none for a piece of the text; and how
    many rows later the row comes that takes its own reply."""

    parts: range
    ahead: int


def tree(pieces: int, fan_in: int) -> list[Node]:
    """The rows of a text in so many pieces, numbered from 0: the pieces, then level by level what puts `fan_in` of them
    together at most, evenly; the last row is the whole."""
    levels = [pieces]
    while levels[-1] > 1:
        levels.append(-(-levels[-1] // fan_in))
    nodes: list[Node] = []
    below = range(0)
    for count, above in zip(levels, [*levels[1:], 0], strict=True):
        first = len(nodes)
        for number in range(count):
            parts = range(number * len(below) // count, (number + 1) * len(below) // count)
            target = first + count + ((number + 1) * above - 1) // count if above else first + number
            nodes.append(Node(below[parts.start : parts.stop], target - first - number))
        below = range(first, first + count)
    return nodes


def check_reduced(plan: Plan, columns: Sequence[str]) -> None:
    """Raises RefusedError where rows have no text to answer in parts."""
    column = plan.columns.get("text", "text")
    if plan.reduce is None:
        return
    if plan.kind is not Kind.ROWS:
        raise RefusedError("--reduce is for rows with a prompt, and requests are sent unchanged", "leave it out")
    if column not in columns:
        raise RefusedError(
            f"--reduce divides the column {column}, which the input does not have",
            "name its column: --column text=NAME",
        )


class Reduction:
    """How long texts of a plan are answered: `column` is the one that has the text."""

    def __init__(self, plan: Plan) -> None:
        self.tokens = plan.reduce
        self.column = plan.columns.get("text", "text")
        self._plan = plan

    @classmethod
    def of(cls, plan: Plan) -> Self | None:
        """That of a plan, None where its texts are sent whole."""
        return None if plan.reduce is None else cls(plan)

    @property
    def said(self) -> str:
        """What is said of a text that is too long, before the start."""
        return f"the text has more than {self.tokens or 0:,} tokens, and is answered in parts that are put together"

    def pieces(self, row: Row) -> list[str]:
        """The text of a row in pieces; none where it fits into one request."""
        text = row.fields.get(self.column)
        if self.tokens is None or self._plan.kind is not Kind.ROWS or not isinstance(text, str):
            return []
        most = self.tokens * BYTES_PER_TOKEN
        text = text.strip()
        if len(text) * 4 <= most or len(text.encode(errors="surrogatepass")) <= most:
            return []
        found = documents.split(text, most)
        return [piece.text for piece in found] if len(found) > 1 else []

    def rows(
        self, row: Row, pieces: list[str], renderer: Renderer, complain: Callable[[int, str], None], kind: str
    ) -> Iterator[IntakeRow]:
        """The rows of a text in pieces, their digests of that kind. Each is yielded right after its request was rendered. Raises RenderError before
        the first; one that cannot be rendered after that is complained of once, and the rows after it are skipped."""
        digests: list[str] = []
        nodes: list[Node] = []
        expected, failed = 0, ""
        for number, piece in enumerate(pieces):
            fields = row.fields | {self.column: piece} | {"part": number + 1, "parts": len(pieces)}
            item = Row(row.line, None, _json(fields), fields)
            if number == 0:
                request = renderer.render(item)
                expected = self._expected(request.output_limit)
                nodes = tree(len(pieces), max(2, (self.tokens or 0) // expected))
                digest = request_digest(request, kind)
            else:
                digest, failed = ("", failed) if failed else _rendered(renderer, item, kind)
            digests.append(digest)
            yield IntakeRow(row.line, None, digest, item.text, failed or None, nodes[number].ahead)
        for parts, ahead in nodes[len(pieces) :]:
            below = [digests[part] for part in parts]
            text = self.standing_in(below, expected)
            item = self.reduced(row, text, len(parts))
            digest, failed = ("", failed) if failed else _rendered(renderer, item, kind)
            digests.append(digest)
            if ahead:
                rest = {name: value for name, value in row.fields.items() if name != self.column}
                yield IntakeRow(row.line, None, digest, _json(rest | {"reduces": below}), failed or None, ahead)
            else:
                yield IntakeRow(row.line, row.key, digest, row.text, failed or None)
        if failed:
            complain(row.line, failed)

    def _expected(self, limit: int | None) -> int:
        """Tokens that a reply is expected to have: its limit, else an even share of what is put together."""
        tokens = self.tokens or 0
        return max(1, min(limit or tokens // USUAL, tokens // 2))

    @staticmethod
    def standing_in(digests: list[str], tokens: int) -> str:
        """What stands for replies of so many tokens that are not known yet."""
        return _BETWEEN.join(f"{digest} {_UNKNOWN}".ljust(tokens * BYTES_PER_TOKEN, ".") for digest in digests)

    def expected(self, row: Row, count: int, renderer: Renderer) -> Request:
        """The request of a reduce row of so many replies that are not known yet, as long as it is expected to be."""
        limit = renderer.render(self.reduced(row, "", count)).output_limit
        return renderer.render(self.reduced(row, self.standing_in([""] * count, self._expected(limit)), count))

    def reduced(self, row: Row, text: str, count: int) -> Row:
        """A reduce row with the replies of its parts as its text."""
        return row._replace(fields=row.fields | {self.column: text, REDUCED: count})

    def filled(self, row: Row, parts: Parts | None) -> Row:
        """A row of the journal; a reduce row with the replies of its `parts`."""
        if parts is None:
            return row
        texts = self.texts(parts)
        return self.reduced(row, _BETWEEN.join(texts), len(texts))

    def texts(self, parts: Parts) -> list[str]:
        """The texts of the replies, in order."""
        return [self._text(value, body) for value, body in parts.replies]

    def _text(self, value: str | None, body: str | None) -> str:
        found: Any = replies.value_of(self._plan.endpoint, body or "") if value is None else orjson.loads(value)
        return found if isinstance(found, str) else orjson.dumps(found).decode()


def _json(fields: dict[str, Any]) -> str:
    try:
        return orjson.dumps(fields).decode()
    except TypeError:  # numbers of more than 64 bits, lone surrogates
        return json.dumps(fields)


def _rendered(renderer: Renderer, row: Row, kind: str) -> tuple[str, str]:
    """The hash of the row's request, or why it has none."""
    try:
        return request_digest(renderer.render(row), kind), ""
    except RenderError as error:
        return "", error.message
