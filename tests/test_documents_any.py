"""Whatever bytes a file has: it is read as its format, or refused with a sentence; unchanged, it is the same."""

import random

import pytest
from documents import rewritten
from hypothesis import given
from hypothesis import strategies as st
from test_documents_run import FILES

from batchrun.documents import FORMATS, Document, DocumentError, Existing

SAMPLES = {
    "srt": "movie.srt",
    "vtt": "movie.vtt",
    "po": "messages.po",
    "markdown": "README.md",
    "text": "README.md",
    "json": "en.json",
    "arb": "app_en.arb",
    "xcstrings": "Localizable.xcstrings",
    "android": "strings.xml",
    "xliff": "a.xlf",
    "ts": "app_pl.ts",
    "resx": "Strings.resx",
    "tmx": "memory.tmx",
    "yaml": "en.yml",
    "strings": "Localizable.strings",
    "properties": "messages.properties",
}


def unchanged_or_refused(format: str, data: bytes) -> None:
    try:
        document = Document(format, data, language="pl", existing=Existing.ALL)
        names = [entry.name for entry in document.entries()]
    except DocumentError:
        return
    assert len(set(names)) == len(names)
    assert b"".join(document.written([])) == data
    rewritten(format, data, lambda text: f"«{text}»", "pl", "all")


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_that_is_damaged_is_unchanged_or_refused(format: str):
    """Pieces of a good file taken out, doubled, put elsewhere, characters changed."""
    text = FILES[SAMPLES[format]]
    chance = random.Random(format)
    for _ in range(150):
        a, b = sorted(chance.randrange(len(text) + 1) for _ in range(2))
        at = chance.randrange(len(text) + 1)
        damaged = [
            text[:a] + text[b:],
            text[:at] + text[a:b] + text[at:],
            text[:at] + chance.choice("\"'\\<>&{}[]:#|-\n\t\ufeff\0é😀") + text[at + 1 :],
            text[:at],
        ]
        unchanged_or_refused(format, chance.choice(damaged).encode())


@pytest.mark.parametrize("format", FORMATS)
@given(data=st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_any_bytes_are_unchanged_or_refused(format: str, data: bytes):
    unchanged_or_refused(format, data)
