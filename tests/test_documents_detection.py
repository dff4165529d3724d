"""Which document format a file is, and what is refused."""

import pytest

from batchrun.documents import detect, refusal

XML = b'<?xml version="1.0" encoding="utf-8"?>\n'


@pytest.mark.parametrize(
    ("name", "head", "format"),
    [
        ("movie.srt", b"1\n00:00:01,000 --> 00:00:02,000\nHi\n", "srt"),
        ("-", b"\xef\xbb\xbf1\r\n00:00:01,000 --> 00:00:02,000\r\nHi\r\n", "srt"),
        ("movie.vtt", b"WEBVTT\n\n", "vtt"),
        ("-", b"WEBVTT - title\n", "vtt"),
        ("de/messages.po", b'msgid ""\nmsgstr ""\n', "po"),
        ("messages.pot", b"", "po"),
        ("-", b'# copyright\n#, fuzzy\nmsgid ""\nmsgstr ""\n', "po"),
        ("README.md", b"# Title\n", "markdown"),
        ("en.json", b'{\n  "menu": {"open": "Open"}\n}\n', "json"),
        ("rows.json", b'{"a": 1}\n{"a": 2}\n', None),
        ("one.json", b'{"a": 1}\n', None),
        ("rows.json", b'[\n{"a": 1}]', None),
        ("app_en.arb", b'{"a": "A"}', "arb"),
        ("Localizable.xcstrings", b"{", "xcstrings"),
        ("res/values/strings.xml", XML + b"<!-- c --><resources>", "android"),
        ("-", XML + b'<resources xmlns:x="urn:x">', "android"),
        ("m.xlf", XML + b'<xliff version="1.2">', "xliff"),
        ("m.xliff", XML + b'<x:xliff version="2.0">', "xliff"),
        ("app_de.ts", XML + b'<!DOCTYPE TS>\n<TS version="2.1">', "ts"),
        ("app.ts", b"export const a = 1;\n", None),
        ("Strings.resx", XML + b'<root>\n<resheader name="version">', "resx"),
        ("memory.tmx", XML + b'<!DOCTYPE tmx SYSTEM "tmx14.dtd">\n<tmx version="1.4">', "tmx"),
        ("en.yml", b"en:\n  a: A\n", "yaml"),
        ("Localizable.strings", '"a" = "A";'.encode("utf-16"), "strings"),
        ("-", b'/* c */\n"a" = "A";\n', "strings"),
        ("messages.properties", b"a=A\n", "properties"),
        ("rows.jsonl", b'{"a": 1}\n', None),
        ("a.csv", b"a,b\n1,2\n", None),
        ("book.txt", b"It was\n", None),
        ("-", b"It was\n", None),
    ],
)
def test_a_document_is_known_by_its_name_and_its_beginning(name: str, head: bytes, format: str | None):
    assert detect(name, head) == format
    assert refusal(name, head) is None or format is None


@pytest.mark.parametrize(
    ("name", "head", "what", "hint"),
    [
        ("a.ass", b"", "ASS", "ffmpeg"),
        ("-", b"[Script Info]\n", "ASS", "ffmpeg"),
        ("a.tex", b"", "LaTeX", "pandoc"),
        ("a.html", b"<!DOCTYPE html>\n<html>", "HTML", "pandoc"),
        ("feed.xml", XML + b"<rss>", "<rss>", "table"),
        ("mail.eml", b"From: a\n", "e-mail", "table"),
        ("de.mo", b"\xde\x12\x04\x95", "compiled", "msgunfmt"),
        ("n.ipynb", b"{\n", "notebook", "markdown"),
    ],
)
def test_what_has_structure_and_is_not_supported_is_named_with_a_way_on(name: str, head: bytes, what: str, hint: str):
    found = refusal(name, head)
    assert found is not None
    assert what in found.what
    assert hint in found.hint
    assert detect(name, head) is None


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt", "-", "a.po", "a.xlsx", "strings.d"])
def test_rows_and_documents_are_not_refused(name: str):
    assert refusal(name, b"a\n") is None
