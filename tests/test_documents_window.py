"""A document is the same however few bytes of it are read at once."""

import random
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_documents_any import SAMPLES
from test_documents_run import FILES
from translator import batchrun, translator

from batchrun.documents import FORMATS, Document, DocumentError, Existing
from batchrun.documents.document import Names
from batchrun.engine import document_output
from batchrun.errors import InputError
from batchrun.plan.inputs import open_documents
from batchrun.plan.settings import Settings

WINDOWED = ("po", "json", "arb", "android", "xliff", "ts", "resx", "tmx")


RICH = {
    "po": """# a template
msgid ""
msgstr ""
"Content-Type: text/plain; charset=UTF-8\\n"
"Plural-Forms: nplurals=INTEGER; plural=EXPRESSION;\\n"

#, fuzzy, c-format
#| msgid "old"
msgid "one"
msgstr "«ä»"

#. first
#. second
#: a.c:1
msgctxt "menu"
msgid ""
"two "
"lines"
msgstr ""
msgid "%d file"
msgid_plural "%d files"
msgstr[0] ""
msgstr[1] ""

#. only
msgid "one"
msgstr ""
#~ msgid "gone"
#~ msgstr "gone"
""",
    "json": """{"a_one": "one", "a_few" : "few",
  "a_other": "others", "b": {"c": ["x", "x", {"d": "\\u00e4"}], "n": [1, 23.5, -4e10, true, null]}, "e_other": "alone",
  "b": {"c": "again"}}
""",
    "xliff": """<?xml version="1.0"?>
<!DOCTYPE xliff [<!ENTITY x "y">]>
<xliff version="1.2"><file original="ä.txt" translate="yes"><header><note>n</note></header><body>
  <trans-unit id="1"><source>plain</source></trans-unit>
  <trans-unit id="2" approved="no"><source xml:lang="en">a &amp; b</source><target/><note from="x">one</note><note>two ä</note></trans-unit>
  <group translate="no"><trans-unit id="3"><source>not this</source></trans-unit>
    <trans-unit id="4" translate="yes" maxwidth="9" size-unit="char"><source>this</source><target state="new">this</target></trans-unit>
  </group><!-- <trans-unit id="5"><source>x</source></trans-unit> -->
  <trans-unit id="6"><source>with <g id="1">tags</g> in it</source>
    <target state='needs-translation'>x</target><alt-trans><source>s</source><target>t</target></alt-trans></trans-unit>
  <trans-unit id="7"><source>ä &#228; &x; </source><target>done</target></trans-unit>
  <trans-unit id="7"><source><![CDATA[<b>]]></source></trans-unit>
</body></file></xliff>
""",
}


def in_bits(data: bytes, size: int) -> Callable[[], Iterable[bytes]]:
    return lambda: (data[at : at + size] for at in range(0, len(data), size))


def all_of(
    format: str, data: bytes | Callable[[], Iterable[bytes]], marked: Callable[[int], bool]
) -> tuple[object, ...]:
    """Names, texts, lines and the document with some segments changed; nothing of one that is refused (expat's reason depends on the bits)."""
    try:
        document = Document(format, data, language="pl", existing=Existing.ALL)
        entries = [(name, *segment[:2], *segment[5:], line) for name, segment, line in document.entries()]
        values = [
            (
                entry.name,
                dict.fromkeys(entry.segment.plural.forms, "«ä»") if entry.segment.plural else f"«{entry.segment.text}»",
            )
            for number, entry in enumerate(document.entries())
            if marked(number)
        ]
        return entries, b"".join(document.written(values)), b"".join(document.written([]))
    except DocumentError:
        return ()


@pytest.mark.parametrize("size", [1, 7, 64])
@pytest.mark.parametrize("format", FORMATS)
def test_a_document_is_the_same_in_bits(format: str, size: int):
    data = f"{RICH.get(format, FILES[SAMPLES[format]])}".encode()
    for marked in (lambda _: True, lambda number: number % 2 == 1, lambda number: number == 2):
        whole = all_of(format, data, marked)
        assert whole
        assert all_of(format, in_bits(data, size), marked) == whole


@pytest.mark.parametrize("format", WINDOWED)
@settings(max_examples=30)
@given(data=st.data())
def test_a_damaged_document_in_bits_is_the_same_or_refused_alike(format: str, data: st.DataObject):
    text = RICH.get(format, FILES[SAMPLES[format]])
    a, b = sorted((data.draw(st.integers(0, len(text))), data.draw(st.integers(0, len(text)))))
    damaged = data.draw(
        st.sampled_from([text[:a] + text[b:], text[:b] + text[a:], f"{text[:a]}é\n{text[a:]}"])
    ).encode()
    bits = in_bits(damaged, data.draw(st.integers(1, 200)))
    assert all_of(format, bits, lambda _: True) == all_of(format, damaged, lambda _: True)


def test_names_that_come_again_are_numbered():
    names = Names()
    many = [f"name {number}" for number in range(180_000)]  # the table grows twice
    assert [names.distinct(name) for name in many] == many
    assert [names.distinct("name 7"), names.distinct("name 2999"), names.distinct("name 7")] == [
        "name 7#2",
        "name 2999#2",
        "name 7#3",
    ]
    assert names.distinct("another") == "another"
    assert all(names.distinct(name) == f"{name}#2" for name in many[10:2999])
    assert all(names.distinct(name) == f"{name}#2" for name in many[3000:])


def test_a_document_is_kept_in_the_journal_in_pieces(alone: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    monkeypatch.setattr(document_output, "_PIECE", 10_000)
    monkeypatch.setattr(document_output, "CHUNK", 1000)
    text = FILES["a.xlf"].replace("</body>", f"<!-- {random.Random(1).randbytes(300_000).hex()} --></body>")
    Path("a.xlf").write_text(text, encoding="utf-8")
    more = ("-p", "translate", "--set", "language=Polish", "-o", "b.xlf", "-q")
    with translator() as provider:
        assert batchrun("run", "-i", "a.xlf", *more, "--base-url", provider.base_url, "-m", "m") == 0
    with closing(sqlite3.connect(next(Path(".batchrun").glob("*.db")))) as journal:
        assert journal.execute("SELECT count(*) FROM meta WHERE name LIKE 'note.documents+%/a.xlf'").fetchone() > (1,)
    written = Path("b.xlf").read_bytes()
    Path("a.xlf").unlink()
    assert batchrun("export", "last", "--output", "c.xlf") == 0
    assert Path("c.xlf").read_bytes() == written
    assert len(written) > len(text)


def test_a_document_that_changes_between_two_looks_at_it_is_refused(alone: None):
    Path("a.xlf").write_text(FILES["a.xlf"], encoding="utf-8")
    source = open_documents(Settings(input="a.xlf", output="b.xlf"))
    assert source is not None
    before = list(source)
    Path("a.xlf").write_text(FILES["a.xlf"].replace("Hello", "Howdy"), encoding="utf-8")
    with pytest.raises(InputError, match="changed while it was read"):
        list(source.chunks(source.sources[0]))
    assert list(source) != before
