"""Whether a text can replace a segment without damage to the document."""

import re

from batchrun.documents import xml_text
from batchrun.documents.segment import Kind

_BLANK_LINE = re.compile(r"^[^\S\n]*$", re.MULTILINE)


def misfit(kind: Kind, source: str, value: str) -> str | None:
    """Why `value` does not fit in place of `source`, or None."""
    if "\0" in value:
        return "it has a NUL character"
    if kind in (Kind.CUE, Kind.PARAGRAPH):
        if "-->" in value and kind is Kind.CUE and "-->" not in source:
            return 'a cue cannot contain "-->"'
        blank = _has_blank_line(value) and not _has_blank_line(source)
        return f"a {kind} cannot contain a blank line" if blank else None
    if kind is Kind.LINE:
        return "it has to be one line" if "\n" in value else None
    if kind is Kind.BLOCK:
        from batchrun.documents.markdown import shape  # noqa: PLC0415  only where there is Markdown

        return None if shape(value) == shape(source) else "it is not the same kind of Markdown block as its source"
    return xml_text.misfit(source, value, markup=kind is Kind.MARKUP) if kind in (Kind.XML, Kind.MARKUP) else None


def _has_blank_line(text: str) -> bool:
    return "\n" in text and _BLANK_LINE.search(text) is not None
