"""Text from outside, for a pane: line by line safe, bounded however long it is, never markup."""

from textual.content import Content

from batchrun.display import printable
from batchrun.report.words import MARK

LINE = 4000
"""Characters of one line that are shown."""


def shown(text: str, limit: int) -> Content:
    """The text with the headings of messages set off, cut at `limit` characters."""
    lines: list[Content] = []
    for line in text[:limit].split("\n"):
        safe = printable(line, LINE)
        lines.append(Content.styled(safe, "bold $accent") if line.startswith(MARK) else Content(safe))
    if len(text) > limit:
        lines.append(Content.styled(f"… {len(text) - limit:,} more characters: o opens all of it", "$warning"))
    return Content("\n").join(lines)


def one_for_one(line: str) -> str:
    """The same for text that is edited: one character for each, so that cursor positions stay right."""
    return line if line.isprintable() else "".join(map(_one, line))


def _one(char: str) -> str:
    """A control picture, or the replacement character for what would need more room."""
    said = "\t" if char == "\t" else printable(char)
    return said if len(said) == 1 else "\N{REPLACEMENT CHARACTER}"
