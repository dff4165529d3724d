"""Text from outside, safe to show."""

from textual.content import Content

from batchrun.display import printable
from batchrun.report.words import MARK

LINE = 4000  # characters


def shown(text: str, limit: int) -> Content:
    lines: list[Content] = []
    for line in text[:limit].split("\n"):
        safe = printable(line, LINE)
        lines.append(Content.styled(safe, "bold $accent") if line.startswith(MARK) else Content(safe))
    if len(text) > limit:
        lines.append(Content.styled(f"… {len(text) - limit:,} more characters: o opens all of it", "$warning"))
    return Content("\n").join(lines)


def one_for_one(line: str) -> str:
    """Keeps cursor positions right."""
    if line.isprintable():
        return line
    chars = ("\t" if char == "\t" else printable(char) for char in line)
    return "".join(char if len(char) == 1 else "\N{REPLACEMENT CHARACTER}" for char in chars)
