"""Texts longer than a request, for prompts whose answer stands for the whole text (`--reduce`).

Each piece of the text is a map row; the replies of consecutive rows are the text of a reduce row, level by level, up to
the row itself. All are created on ingest, so that the budget has every stage; a reduce row is handed out when its parts
are done. Its hash is that of its request with its parts' hashes, padded to the expected length, in place of their
replies, so a change below changes every row above.
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
DEFAULT_FAN_IN = 8
_UNKNOWN = "is a placeholder for a reply that does not exist yet "
_BETWEEN = "\n\n"


class Node(NamedTuple):
    """The rows whose replies a row combines, and how many rows later its own is used."""

    parts: range
    ahead: int


def tree(pieces: int, fan_in: int) -> list[Node]:
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
    """Raises RefusedError if rows have no text to split."""
    column = plan.columns.get("text", "text")
    if plan.reduce is None:
        return
    if plan.kind is not Kind.ROWS:
        raise RefusedError(
            "--reduce is for rows with a prompt; ready-made requests are sent unchanged", "omit --reduce"
        )
    if column not in columns:
        raise RefusedError(
            f"--reduce splits the column {column}, which the input does not have",
            "state its column: --column text=NAME",
        )


class Reduction:
    def __init__(self, plan: Plan) -> None:
        self.tokens = plan.reduce
        self.column = plan.columns.get("text", "text")
        self._plan = plan

    @classmethod
    def of(cls, plan: Plan) -> Self | None:
        return None if plan.reduce is None else cls(plan)

    @property
    def notice(self) -> str:
        return (
            f"the text has more than {self.tokens or 0:,} tokens: it is processed in parts, whose replies are combined"
        )

    def pieces(self, row: Row) -> list[str]:
        """Empty if it fits into one request."""
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
        self, row: Row, pieces: list[str], renderer: Renderer, report: Callable[[int, str], None], kind: str
    ) -> Iterator[IntakeRow]:
        """Yields each row right after rendering. Raises RenderError before the first; a later failure is reported once,
        and the rows after it are skipped.
        """
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
            text = self.placeholders(below, expected)
            item = self.reduced(row, text, len(parts))
            digest, failed = ("", failed) if failed else _rendered(renderer, item, kind)
            digests.append(digest)
            if ahead:
                rest = {name: value for name, value in row.fields.items() if name != self.column}
                yield IntakeRow(row.line, None, digest, _json(rest | {"reduces": below}), failed or None, ahead)
            else:
                yield IntakeRow(row.line, row.key, digest, row.text, failed or None)
        if failed:
            report(row.line, failed)

    def _expected(self, limit: int | None) -> int:
        tokens = self.tokens or 0
        return max(1, min(limit or tokens // DEFAULT_FAN_IN, tokens // 2))

    @staticmethod
    def placeholders(digests: list[str], tokens: int) -> str:
        return _BETWEEN.join(f"{digest} {_UNKNOWN}".ljust(tokens * BYTES_PER_TOKEN, ".") for digest in digests)

    def expected(self, row: Row, count: int, renderer: Renderer) -> Request:
        limit = renderer.render(self.reduced(row, "", count)).output_limit
        return renderer.render(self.reduced(row, self.placeholders([""] * count, self._expected(limit)), count))

    def reduced(self, row: Row, text: str, count: int) -> Row:
        return row._replace(fields=row.fields | {self.column: text, REDUCED: count})

    def filled(self, row: Row, parts: Parts | None) -> Row:
        if parts is None:
            return row
        texts = self.texts(parts)
        return self.reduced(row, _BETWEEN.join(texts), len(texts))

    def texts(self, parts: Parts) -> list[str]:
        values: Iterator[Any] = (
            replies.value_of(self._plan.endpoint, body or "") if value is None else orjson.loads(value)
            for value, body in parts.replies
        )
        return [value if isinstance(value, str) else orjson.dumps(value).decode() for value in values]


def _json(fields: dict[str, Any]) -> str:
    try:
        return orjson.dumps(fields).decode()
    except TypeError:  # numbers of more than 64 bits, lone surrogates
        return json.dumps(fields)


def _rendered(renderer: Renderer, row: Row, kind: str) -> tuple[str, str]:
    try:
        return request_digest(renderer.render(row), kind), ""
    except RenderError as error:
        return "", error.message
