"""Checks and renders the input once on its way into the journal."""

import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from batchrun import media, rows
from batchrun.display import counted
from batchrun.errors import InputError
from batchrun.events import Emit, Notice
from batchrun.journal import LONG_TEXT, IntakeRow, duplicate_id
from batchrun.models import Blank, Ready, Row, made
from batchrun.plan.blanks import Blanks
from batchrun.plan.reducing import Reduction
from batchrun.prompts import Renderer, RenderError, request_digest
from batchrun.rows import Input, Mixed, line_text

_SLOTS = 1024  # Initial slots, a power of two; doubled when two thirds are used


class Digests:
    """A multiset of 64-bit digests (Knuth, TAOCP 6.4, algorithm L), in 25 bytes each; a dict has 130."""

    def __init__(self) -> None:
        self._used = 0
        self._make(_SLOTS)

    def add(self, digest: int) -> int:
        """Returns the count before."""
        place = self._place(digest)
        before = self._counts[place]
        if not self._keys[place]:
            self._keys[place] = digest or 1
            self._used += 1
        self._counts[place] = before + 1
        if 3 * self._used > 2 * len(self._keys):
            self._grow()
        return before

    def take(self, digest: int) -> bool:
        """Count one less; whether there was one."""
        place = self._place(digest)
        present = self._counts[place] > 0
        self._counts[place] -= present
        return present

    # 0 marks a free slot, so digest 0 counts as 1
    def _place(self, digest: int) -> int:
        keys, mask, wanted = self._keys, self._mask, digest or 1
        place = wanted & mask
        while keys[place] not in (0, wanted):
            place = (place + 1) & mask
        return place

    def _grow(self) -> None:
        keys, counts = self._keys, self._counts
        self._make(2 * len(keys))
        for key, count in zip(keys, counts, strict=True):
            if key:
                place = self._place(key)
                self._keys[place], self._counts[place] = key, count

    def _make(self, slots: int) -> None:
        self._mask = slots - 1
        self._keys, self._counts = array("Q", bytes(8 * slots)), array("I", bytes(4 * slots))


_HERE = Path()
_64_BITS = (1 << 64) - 1
NAMED = 20  # Bad lines that are listed; the rest are counted

GUESSED_BY = 20_000  # Characters from which an encoding is guessed
BLANK_ROW = "the text is blank"  # Why a row is skipped under `--blank skip`


class Ids:
    def __init__(self) -> None:
        self._seen = Digests()
        self._repeated: tuple[str, int] | None = None

    def add(self, row: IntakeRow) -> None:
        if row.key is None or not row.request:
            return
        if self._seen.add(hash(row.key) & _64_BITS) and (self._repeated is None or row.key < self._repeated[0]):
            self._repeated = row.key, row.line

    def refuse(self, rows: Iterable[IntakeRow]) -> None:
        """Raises InputError with both lines; reads `rows` again."""
        if self._repeated is not None:
            key, line = self._repeated
            first = next((row.line for row in rows if row.key == key and row.request), line)
            if first != line:
                raise duplicate_id(key, first, line)


class Problems:
    def __init__(self, where: Callable[[int], str]) -> None:
        self.count = 0
        self.mixed = 0
        self._where = where
        self.undecoded = 0
        self._missing = 0
        self._undecoded = ""
        self._named: list[str] = []
        self._hints = set[str]()

    def add(  # noqa: PLR0913  what is known of a line
        self,
        line: int,
        reason: str,
        text: str = "",
        *,
        hint: str | None = None,
        mixed: bool = False,
        missing: bool = False,
    ) -> None:
        self.count += 1
        self._hints.add(hint or "")
        self._missing += missing
        if reason.startswith(rows.NOT_UTF8):
            self.undecoded += 1
            self._undecoded += text[: GUESSED_BY - len(self._undecoded)]
        self.mixed += mixed
        if len(self._named) < NAMED:
            self._named.append(f"{self._where(line)}: {reason}")

    def refuse(self, name: str, *, skip_invalid: bool) -> None:
        """Raises InputError, unless lines are skipped."""
        if not self.count or (skip_invalid and not self.mixed):
            return
        more = [f"… and {self.count - NAMED:,} more"] if self.count > NAMED else []
        hint = "fix these lines" if self.mixed else "fix these lines, or skip them with --skip-invalid"
        (common, *others) = self._hints
        if common and not others:
            hint = f"{common.rstrip('.')}, or skip these lines with --skip-invalid"
        if self._missing == self.count:
            hint = "fix these lines, or leave rows without text out with --blank skip"
        elif self.undecoded and not self.mixed:
            hint = f"name the text's encoding (try --encoding {self.guess}), or save it as UTF-8"
        raise InputError(
            "\n  ".join([f"{name}: {counted(self.count)} cannot be sent:", *self._named, *more]),
            f"{hint}; nothing was sent",
        )

    @property
    def guess(self) -> str:
        return rows.encoding_hint(self._undecoded.encode("latin-1", "ignore"))


def report_rows(source: Input, problems: Problems, emit: Emit) -> None:
    if problems.undecoded:
        message = f"{counted(problems.undecoded)} skipped, not UTF-8: try --encoding {problems.guess}"
        emit(Notice(message, time.monotonic()))
    for what, count, first in source.remarks.all():
        if first is not None:
            place = source.where(first)
            emit(Notice(f"{counted(count)} ({place}{' …' if count > 1 else ''}): {what}", time.monotonic()))


def report_input(source: Input, emit: Emit) -> None:
    for what, _, first in source.remarks.all():
        if first is None:
            emit(Notice(what, time.monotonic()))


def checked(  # noqa: PLR0913  what becomes of each row, by name
    source: Input,
    renderer: Renderer,
    problems: Problems,
    added: Sequence[str],
    *,
    digest: str,
    blanks: Blanks,
    reduction: Reduction | None = None,
    folder: Path = _HERE,
) -> Iterator[IntakeRow]:
    """Rows must not have the columns `added`."""
    taken, may_be_blank, render = frozenset(added), bool(blanks.columns), renderer.render
    for item in source:
        if isinstance(item, Row):
            line, key, text, fields, _, encoded = item
            try:
                if taken and not taken.isdisjoint(fields):
                    names = ", ".join(name for name in added if name in fields)
                    raise RenderError(f"already has a column {names}; choose another name with --output-column NAME")
                if may_be_blank and blanks.is_blank(fields):
                    if blanks.policy is not Blank.SEND:
                        source.remarks.add(blanks.notice, line - source.remarks.offset)
                    if blanks.policy is Blank.SKIP:
                        yield IntakeRow(line, None, "", text, BLANK_ROW)
                        continue
                    if blanks.policy is Blank.COPY:
                        yield IntakeRow(line, key, "", text)
                        continue
                if reduction is not None and (pieces := reduction.pieces(item)):
                    source.remarks.add(reduction.notice, line - source.remarks.offset)
                    yield from reduction.rows(item, pieces, renderer, problems.add, digest)
                    continue
                request = render(item)
                hashed = request_digest(request, digest)
            except RenderError as error:
                problems.add(line, error.message, hint=error.hint, missing=bool(error.missing))
                yield IntakeRow(line, None, "", text, error.message)
            else:
                files = media.to_json(request.files, folder) if request.files else ""
                ready = Ready.of(request) if request.start is not None and len(text) >= LONG_TEXT else None
                del item, fields, request  # may be as large as the next ones
                yield made(IntakeRow, (line, key, hashed, text, None, 0, files, encoded, ready))
        else:
            problems.add(item.line, item.reason, item.text, mixed=isinstance(item, Mixed))
            yield IntakeRow(item.line, None, "", line_text(item.text), item.reason)
