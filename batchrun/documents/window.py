"""The content of a document as a sliding window: a reader holds the part that it looks at, not the whole.

A reader finds segments in `text`, whose places are those of segments and edits; where it needs more it says from where on
it still needs what there is. What is let go of has been written by then (`leaving`).
"""

from collections.abc import Callable, Iterable, Iterator

from batchrun.documents.segment import Edit, line_of, newline_of

CHUNK = 1 << 18
"""Bytes that are read at once."""


class Window:
    """`text` is the part that is held, `newline` the line end of the document.

    `chunks` gives the bytes of the content from its beginning, each time anew (UTF-8), for what has to be known of all of it.
    """

    def __init__(self, parts: Iterable[str], chunks: Callable[[], Iterable[bytes]]) -> None:
        self._parts = filter(None, parts)
        self._lines = 0
        self.text = next(self._parts, "")
        self.newline = newline_of(self.text)
        self.chunks = chunks
        self.leaving: Callable[[int], None] | None = None
        """Called with the place before which the text is about to be let go of."""

    def more(self, at: int) -> bool:
        """Let go of what is before `at`, which becomes place 0, and hold at least as much again as is left.

        False, and nothing changes, at the end of the document.
        """
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
            if self.leaving is not None:
                self.leaving(at)
            self._lines += self.text.count("\n", 0, at)
        self.text = "".join([self.text[at:], *found])
        return True

    def line(self, at: int) -> int:
        """The 1-based line of a place."""
        return self._lines + line_of(self.text, at)

    def rest(self, at: int) -> Iterator[str]:
        """All from a place on, in pieces."""
        yield self.text[at:]
        yield from self._parts


class Splicer:
    """What a document becomes: its content up to `at`, a place in the window, with edits made; `held` counts characters.

    `opening` gives the edits at the head of the document as soon as they are known.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        window.leaving = self._leave
        self._pieces: list[str] = []
        self.opening: Callable[[], Iterable[Edit]] = tuple
        self.at = self.held = 0

    def replace(self, edits: Iterable[Edit]) -> None:
        """Make edits, which are in order and do not overlap."""
        self._make(self.opening())
        self._make(edits)

    def taken(self) -> str:
        """What is held."""
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

    def _leave(self, at: int) -> None:
        self._make(self.opening())
        if at > self.at:
            self._pieces.append(self._window.text[self.at : at])
            self.held += at - self.at
        self.at = max(0, self.at - at)
