"""What the tests of documents share: a file read and written again, with nothing or everything replaced."""

from collections.abc import Callable

from batchrun.documents import Document, Existing, Segment

Change = Callable[[str], str]


def segments(format: str, data: bytes, language: str | None = None, existing: str = "keep") -> list[Segment]:
    document = Document(format, data, language=language, existing=Existing(existing))
    return [entry.segment for entry in document.entries()]


def texts(format: str, data: bytes, language: str | None = None) -> list[str]:
    return [segment.text for segment in segments(format, data, language)]


def rewritten(format: str, data: bytes, change: Change, language: str | None = None, existing: str = "keep") -> bytes:
    """The file with every segment changed; each form of a plural is the changed form `other` with its key before it."""
    document = Document(format, data, language=language, existing=Existing(existing))
    return b"".join(
        document.written(
            (
                name,
                {key: f"{key} {change(segment.text)}" for key in segment.plural.forms}
                if segment.plural
                else change(segment.text),
            )
            for name, segment, *_ in document.entries()
        )
    )


def assert_unchanged(format: str, data: bytes, language: str | None = None) -> None:
    """Nothing replaced gives the same bytes, and so does every text in its own place where it is spelled plainly."""
    document = Document(format, data, language=language)
    assert b"".join(document.written([])) == data


def variants(text: str) -> list[bytes]:
    """The same text with LF and CRLF, with and without a byte order mark and an end of the last line."""
    ends = [text, text.rstrip("\n")]
    return [
        (mark + (each.replace("\n", "\r\n") if crlf else each)).encode()
        for each in ends
        for crlf in (False, True)
        for mark in ("", "\ufeff")
    ]
