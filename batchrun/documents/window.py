"""A document's content as a sliding window, in which places are relative to `text`.

A reader that needs more states what it still needs; the rest is written (`on_discard`) and discarded.
"""

from collections.abc import Callable, Iterable, Iterator

from batchrun.documents.segment import Edit, line_of, newline_of

CHUNK = 1 << 18
"""Bytes per read."""


class Window:
    """The part in memory, and the document's line end; `chunks` returns all bytes each time."""

    def __init__(self, parts: Iterable[str], chunks: Callable[[], Iterable[bytes]]) -> None:
        self._parts = filter(None, parts)
        self._lines = 0
        self.text = next(self._parts, "")
        self.newline = newline_of(self.text)
        self.chunks = chunks
        self.on_discard: Callable[[int], None] | None = None  # called before the text up to a place is discarded

    def more(self, at: int) -> bool:
        """Discard the text before `at`, which becomes place 0, and read on. False at the end."""
        found: list[str] = []
        wanted = len(self.text) - at
        while (part := next(self._parts, None)) is not None:
            found.append(part)
            wanted -= len(part)
            if wanted <= 0:
                break
        if not found:
            return False
        if at:
            if self.on_discard is not None:
                self.on_discard(at)
            self._lines += self.text.count("\n", 0, at)
        self.text = "".join([self.text[at:], *found])
        return True

    def line(self, at: int) -> int:
        """The line of a place, from 1."""
        return self._lines + line_of(self.text, at)

    def rest(self, at: int) -> Iterator[str]:
        """Everything from a place on, in pieces."""
        yield self.text[at:]
        yield from self._parts


class Splicer:
    """Collects the document with edits, up to the place `at`."""

    def __init__(self, window: Window) -> None:
        self._window = window
        window.on_discard = self._discarded
        self._pieces: list[str] = []
        self.opening: Callable[[], Iterable[Edit]] = tuple  # the edits at the head of the document
        self.at = self.held = 0

    def replace(self, edits: Iterable[Edit]) -> None:
        """Apply edits, which are in order and do not overlap."""
        self._make(self.opening())
        self._make(edits)

    def taken(self) -> str:
        """Return what is held."""
        piece = "".join(self._pieces)
        self._pieces.clear()
        self.held = 0
        return piece

    def _make(self, edits: Iterable[Edit]) -> None:
        for start, end, text in edits:
            if start < self.at or end < start:
                raise ValueError(f"an edit of {start} to {end} comes after {self.at}")
            self._pieces += self._window.text[self.at : start], text
            self.held += start - self.at + len(text)
            self.at = end

    def _discarded(self, at: int) -> None:
        self._make(self.opening())
        if at > self.at:
            self._pieces.append(self._window.text[self.at : at])
            self.held += at - self.at
        self.at = max(0, self.at - at)
