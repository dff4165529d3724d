"""The input, checked and rendered once, on its way into the journal; nothing is sent while a row is in doubt."""

from collections.abc import Iterable, Iterator, Sequence

from batchrun.errors import InputError
from batchrun.journal import IntakeRow
from batchrun.models import Invalid, Row
from batchrun.prompts import Renderer, RenderError, request_digest
from batchrun.rows import Mixed, line_text

NAMED = 20
"""Bad lines that are named one by one; the rest are counted."""


class Problems:
    """What is wrong with the input: each bad line up to a number, and how many there are."""

    def __init__(self) -> None:
        self.count = 0
        self.mixed = 0
        self._named: list[str] = []

    def add(self, line: int, reason: str, *, mixed: bool = False) -> None:
        """Note that a line cannot be taken."""
        self.count += 1
        self.mixed += mixed
        if len(self._named) < NAMED:
            self._named.append(f"line {line}: {reason}")

    def refuse(self, name: str, *, skip_invalid: bool) -> None:
        """Raises InputError naming the lines, unless they may be skipped. Mixed kinds are never skipped."""
        if not self.count or (skip_invalid and not self.mixed):
            return
        rows = "row" if self.count == 1 else "rows"
        more = [f"… and {self.count - NAMED:,} more"] if self.count > NAMED else []
        hint = "mend these lines" if self.mixed else "mend these lines, or take the rest with --skip-invalid"
        raise InputError(
            "\n  ".join([f"{name}: {self.count:,} {rows} cannot be sent:", *self._named, *more]),
            f"{hint}; nothing was sent",
        )


def checked(
    rows: Iterable[Row | Invalid], renderer: Renderer, problems: Problems, added: Sequence[str]
) -> Iterator[IntakeRow]:
    """Each row with the hash of its request; a row that cannot be sent is skipped and noted in `problems`.

    `added` are the columns of the output that no row may have already.
    """
    taken, render = frozenset(added), renderer.render
    for item in rows:
        if isinstance(item, Row):
            line, key, text, fields = item
            try:
                if taken and not taken.isdisjoint(fields):
                    raise _clash(item, added)
                digest = request_digest(render(item))
            except RenderError as error:
                problems.add(line, error.message)
                yield IntakeRow(line, None, "", text, error.message)
            else:
                yield IntakeRow(line, key, digest, text)
        else:
            problems.add(item.line, item.reason, mixed=isinstance(item, Mixed))
            yield IntakeRow(item.line, None, "", line_text(item.text), item.reason)


def _clash(row: Row, added: Sequence[str]) -> RenderError:
    names = ", ".join(name for name in added if name in row.fields)
    return RenderError(f"has a column {names} already; name another for the reply with --output-column NAME")
