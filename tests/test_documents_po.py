"""gettext catalogs, read again by polib and by translate-toolkit."""

import difflib

import polib
import pytest
from documents import assert_unchanged, rewritten, segments, variants
from hypothesis import given
from hypothesis import strategies as st
from translate.storage import po

from batchrun.documents import Document, DocumentError, Existing, Status

PO = r"""# Translators:
# A Name <a@example.org>
msgid ""
msgstr ""
"Project-Id-Version: x\n"
"Language: pl\n"
"Content-Type: text/plain; charset=UTF-8\n"
"Plural-Forms: nplurals=3; plural=(n==1 ? 0 : n%10>=2 && n%10<=4 && (n%100<10 "
"|| n%100>=20) ? 1 : 2);\n"

#. for the button
#: a.py:1 b.py:2
#, python-format
msgid "Hello %s"
msgstr ""

msgid ""
"A wrapped \"text\"\n"
"of two\tlines"
msgstr ""

#: c.py:3
#, fuzzy, python-format
#| msgid "Old %d"
msgid "New %d"
msgstr "Stary %d"

msgctxt "menu"
msgid "Open"
msgstr "Otwórz"

#, python-format
msgid "%d file"
msgid_plural "%d files"
msgstr[0] ""
msgstr[1] ""
msgstr[2] ""

#~ msgid "gone"
#~ msgstr "nie ma"

#~| msgid "older"
#~ msgid "also gone"
#~ msgstr ""
"""
sources = st.text(st.sampled_from('ab é"\\\n\t%d{}ж日'), min_size=1).filter(str.strip)


def quoted(text: str) -> str:
    return f'«{text}» "\\ \t'


def entries(data: bytes) -> list[polib.POEntry]:
    return list(polib.pofile(data.decode("utf-8-sig").replace("\r\n", "\n")))


@pytest.mark.parametrize("data", variants(PO))
def test_a_catalog_comes_back_with_its_empty_strings_filled_and_nothing_else(data: bytes):
    assert_unchanged("po", data)
    after = entries(rewritten("po", data, quoted))
    for old, new in zip(entries(data), after, strict=True):
        if old.msgid_plural:
            assert new.msgstr_plural == {n: f"form_{n} {quoted(old.msgid_plural)}" for n in range(3)}
        else:
            assert new.msgstr == (old.msgstr or quoted(old.msgid) if not old.obsolete else old.msgstr)
        for name in ("msgid", "msgctxt", "comment", "tcomment", "occurrences", "flags", "obsolete", "previous_msgid"):
            assert getattr(new, name) == getattr(old, name)


def test_translate_toolkit_reads_the_same_strings():
    store = po.pofile.parsestring(rewritten("po", PO.encode(), quoted))
    units = [unit for unit in store.units if not unit.isheader() and not unit.isobsolete()]
    assert [str(unit.target) for unit in units[:2]] == [quoted("Hello %s"), quoted('A wrapped "text"\nof two\tlines')]
    assert [str(text) for text in units[4].target.strings] == [f"form_{n} {quoted('%d files')}" for n in range(3)]


def test_every_line_that_is_not_translated_is_the_same():
    old, new = PO.splitlines(), rewritten("po", PO.encode(), quoted).decode().splitlines()
    changed = [line for line in difflib.unified_diff(old, new, n=0) if line[0] in "-+"][2:]
    assert [line[1:] for line in changed if line[0] == "-"] == ['msgstr ""'] + [f'msgstr[{n}] ""' for n in range(3)]
    assert all(line.startswith(("+msgstr", '+"')) for line in changed if line[0] == "+")


@pytest.mark.parametrize(
    ("existing", "ids"),
    [("keep", 3), ("fuzzy", 4), ("all", 5)],
)
def test_translations_that_are_there_are_kept_unless_they_are_named(existing: str, ids: int):
    assert len(segments("po", PO.encode(), existing=existing)) == ids


def test_a_fuzzy_unit_that_is_translated_again_is_fuzzy_no_more():
    for old, new in zip(
        entries(PO.encode()), entries(rewritten("po", PO.encode(), quoted, existing="fuzzy")), strict=True
    ):
        assert "fuzzy" not in new.flags
        assert new.previous_msgid is None or new.obsolete
        assert [flag for flag in old.flags if flag != "fuzzy"] == new.flags
        assert (old.comment, old.tcomment, old.occurrences) == (new.comment, new.tcomment, new.occurrences)


def test_a_unit_has_its_context_its_note_and_its_plural_forms():
    hello, _, fuzzy, menu, files = segments("po", PO.encode(), existing="all")
    assert (hello.id, hello.note) == ("Hello %s", "for the button")
    assert fuzzy.status is Status.FUZZY
    assert (menu.id, menu.context, menu.status) == ("menu\x04Open", "menu", Status.TRANSLATED)
    assert files.plural is not None
    assert files.plural.sources == {"one": "%d file", "other": "%d files"}
    assert list(files.plural.forms.values()) == ["for 1", "for 2, 3, 4, 22, …", "for 0, 5, 6, 7, …"]


def test_a_template_gets_the_plural_forms_of_its_target():
    pot = (
        PO.split('"Plural', maxsplit=1)[0].replace("pl", "")
        + '"Plural-Forms: nplurals=INTEGER; plural=EXPRESSION;\\n"\n\n'
        + ('msgid "%d file"\nmsgid_plural "%d files"\nmsgstr[0] ""\nmsgstr[1] ""\n')
    )
    new = polib.pofile(rewritten("po", pot.encode(), quoted, language="pl").decode())
    assert new.metadata["Plural-Forms"].startswith("nplurals=3; plural=(n==1 ? 0")
    assert len(new[0].msgstr_plural) == 3
    assert_unchanged("po", pot.encode(), "pl")
    assert len(segments("po", pot.encode(), language="ja")[0].plural.forms) == 1


@given(st.dictionaries(sources, sources, min_size=1, max_size=6), st.booleans(), st.integers(8, 30))
def test_generated_catalogs_have_exactly_the_new_strings(pairs: dict[str, str], crlf: bool, width: int):
    catalog = polib.POFile(wrapwidth=width)
    catalog.metadata = {"Content-Type": "text/plain; charset=UTF-8"}
    catalog.extend(polib.POEntry(msgid=id) for id in pairs)
    text = str(catalog)
    data = (text.replace("\n", "\r\n") if crlf else text).encode()
    assert_unchanged("po", data)
    new = rewritten("po", data, pairs.__getitem__)
    assert {entry.msgid: entry.msgstr for entry in entries(new)} == pairs


@pytest.mark.parametrize("charset", ["UTF-8", "utf-8", "UTF8", "utf8"])
def test_a_catalog_in_any_spelling_of_utf_8_can_have_every_character(charset: str):
    data = PO.replace("UTF-8", charset).encode()
    document = Document("po", data)
    assert document.encoding is None
    assert b"".join(document.written([])) == data


def test_another_charset_is_kept():
    data = PO.replace("UTF-8", "ISO-8859-2").replace("Hello", "Żółw").encode("iso-8859-2")
    assert_unchanged("po", data)
    assert "Żółw" in rewritten("po", data, str).decode("iso-8859-2")


def test_a_line_that_is_no_part_of_a_catalog_is_named():
    data = b'msgid "a"\nmsgstr ""\n\noops\nmsgid "b"\nmsgstr ""\n'
    with pytest.raises(DocumentError, match="line 4"):
        segments("po", data)


def test_line_ends_around_a_text_are_those_of_its_source():
    """msgfmt -c refuses others, and models drop them."""
    data = b'msgid "\\n Hello\\n"\nmsgstr ""\n'
    document = Document("po", data)
    written = document.written(((entry.name, "Cze\u015b\u0107") for entry in document.entries()), trimmed=True)
    assert b"".join(written).decode() == data.decode().replace('msgstr ""', 'msgstr ""\n"\\n"\n" Cze\u015b\u0107\\n"')


def test_a_text_that_the_charset_lacks_does_not_fit():
    document = Document("po", PO.replace("UTF-8", "ISO-8859-1").encode(), existing=Existing.ALL)
    assert document.misfit(next(document.entries()).segment, "Żółw")
    assert document.misfit(next(document.entries()).segment, "Grüße") is None
