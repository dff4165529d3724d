"""Text from outside, safe to show and of bounded length."""

from textual.content import Content

from batchrun.display import printable
from batchrun.report.words import MARK

LINE = 4000  # characters


def shown(text: str, limit: int) -> Content:
    """The text with message headings highlighted, cut at `limit` characters."""
    lines: list[Content] = []
    for line in text[:limit].split("\n"):
        safe = printable(line, LINE)
        lines.append(Content.styled(safe, "bold $accent") if line.startswith(MARK) else Content(safe))
    if len(text) > limit:
        lines.append(Content.styled(f"… {len(text) - limit:,} more characters: o opens all of it", "$warning"))
    return Content("\n").join(lines)


def one_for_one(line: str) -> str:
    """Safe text with one character for each, so that cursor positions stay right."""
    return line if line.isprintable() else "".join(map(_one, line))


def _one(char: str) -> str:
    shown_char = "\t" if char == "\t" else printable(char)
    return shown_char if len(shown_char) == 1 else "\N{REPLACEMENT CHARACTER}"
