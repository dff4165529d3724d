"""Android, XLIFF, Qt, RESX and TMX files, read again by lxml and by translate-toolkit."""

import re
from collections.abc import Iterator
from xml.parsers import expat

import pytest
from documents import assert_unchanged, rewritten, segments, texts, variants
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree
from translate.storage import aresource, poxliff, resx, tmx, ts2, xliff

from batchrun.documents import Document, DocumentError, Status, xml_text
from batchrun.documents.segment import Window

ANDROID = r"""<?xml version="1.0" encoding="utf-8"?>
<!-- resources -->
<resources xmlns:xliff="urn:oasis:names:tc:xliff:document:1.2">
    <!-- shown at the top -->
    <string name="hello">Hello, it\'s %1$s &amp; co</string>
    <string name="plain">
        Two   blanks
        and a line
    </string>
    <string name="quoted">"  kept  "</string>
    <string name="markup">Hello <b>world</b>, <xliff:g id="n">%d</xliff:g></string>
    <string name="cdata"><![CDATA[<b>bold</b> & more]]></string>
    <string name="app" translatable="false">App</string>
    <string name="link">@string/hello</string>
    <string name="empty"/>
    <string-array name="days"><item>Monday</item><item>Tuesday</item></string-array>
    <plurals name="files">
        <item quantity="one">%d file</item>
        <item quantity="other">%d files</item>
    </plurals>
</resources>
"""
XLIFF12 = """<?xml version="1.0" encoding="UTF-8"?>
<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2">
  <file original="a.txt" source-language="en" target-language="de" datatype="plaintext">
    <body>
      <trans-unit id="1" maxwidth="20" size-unit="char">
        <source>Hello &lt;you&gt;</source>
        <note>for the top</note>
      </trans-unit>
      <trans-unit id="2">
        <source>Click <g id="1">here</g><x id="2"/></source>
        <target state="needs-translation"/>
      </trans-unit>
      <trans-unit id="3"><source>Done</source><target>Fertig</target></trans-unit>
      <trans-unit id="4" approved="no"><source>Review</source><target state="needs-review-translation">Pr\u00fcfen</target></trans-unit>
      <trans-unit id="5" translate="no"><source>Name</source></trans-unit>
      <trans-unit id="6"><source>New</source><target state="new">New</target>
        <alt-trans><source>Old</source><target>Alt</target></alt-trans></trans-unit>
    </body>
  </file>
</xliff>
"""
XLIFF2 = """<?xml version="1.0"?>
<xliff xmlns="urn:oasis:names:tc:xliff:document:2.0" version="2.0" srcLang="en" trgLang="de">
  <file id="f1">
    <unit id="u1">
      <notes><note>a note</note></notes>
      <segment state="initial">
        <source>Hello <pc id="1">world</pc></source>
      </segment>
      <ignorable><source> </source></ignorable>
      <segment id="s2"><source>Two</source><target>Zwei</target></segment>
    </unit>
    <unit id="u2" translate="no"><segment><source>Name</source></segment></unit>
  </file>
</xliff>
"""
TS = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="pl_PL" sourcelanguage="en">
<context>
    <name>MainWindow</name>
    <message>
        <location filename="main.cpp" line="12"/>
        <source>&amp;Open</source>
        <comment>menu</comment>
        <translation type="unfinished"></translation>
    </message>
    <message>
        <source>Close</source>
        <translation>Zamknij</translation>
    </message>
    <message>
        <source>Maybe</source>
        <translation type="unfinished">Może</translation>
    </message>
    <message numerus="yes">
        <source>%n file(s)</source>
        <translation type="unfinished">
            <numerusform></numerusform>
            <numerusform></numerusform>
            <numerusform></numerusform>
        </translation>
    </message>
    <message>
        <source>Gone</source>
        <translation type="vanished">Nie ma</translation>
    </message>
    <message>
        <source>Longest</source>
        <translation variants="yes"><lengthvariant></lengthvariant></translation>
    </message>
</context>
</TS>
"""
RESX = """<?xml version="1.0" encoding="utf-8"?>
<root>
  <resheader name="resmimetype"><value>text/microsoft-resx</value></resheader>
  <data name="Hello" xml:space="preserve">
    <value>Hello {0} &amp; co</value>
    <comment>A greeting</comment>
  </data>
  <data name="Icon" type="System.Drawing.Icon"><value>x.ico</value></data>
  <data name="Lines" xml:space="preserve"><value>one
two</value></data>
</root>
"""
TMX = """<?xml version="1.0" encoding="UTF-8"?>
<tmx version="1.4">
  <header srclang="en" segtype="sentence" datatype="plaintext" adminlang="en" o-tmf="x" creationtool="x" creationtoolversion="1"/>
  <body>
    <tu tuid="1">
      <tuv xml:lang="en"><seg>Hello <ph>x</ph></seg></tuv>
      <tuv xml:lang="fr"><seg>Bonjour</seg></tuv>
    </tu>
    <tu><tuv xml:lang="en"><seg>Done</seg></tuv><tuv xml:lang="de"><seg>Fertig</seg></tuv></tu>
  </body>
</tmx>
"""
FILES = {
    "android": (ANDROID, None),
    "xliff": (XLIFF12, None),
    "xliff2": (XLIFF2, None),
    "ts": (TS, None),
    "resx": (RESX, None),
    "tmx": (TMX, "de"),
}
plain = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"), min_size=1
)


def parsed(data: bytes) -> etree._Element:
    return etree.fromstring(data)


def changed(text: str) -> str:
    return f"Ü{text}'"


@pytest.mark.parametrize("name", FILES)
def test_nothing_replaced_gives_the_same_bytes(name: str):
    text, language = FILES[name]
    for data in variants(text):
        assert_unchanged(name.rstrip("2"), data, language)
    for encoding in ("utf-16", "utf-16-be"):
        data = ("\ufeff" * (encoding != "utf-16") + re.sub(r' encoding="[^"]*"', "", text)).encode(encoding)
        assert_unchanged(name.rstrip("2"), data, language)
        assert len(texts(name.rstrip("2"), data, language)) == len(texts(name.rstrip("2"), text.encode(), language))


@pytest.mark.parametrize("name", FILES)
def test_everything_that_is_no_target_is_the_same_after_a_change(name: str):
    """The tree without what was translated is the same: elements, attributes, texts, comments."""
    text, language = FILES[name]
    for data in variants(text):
        new = rewritten(name.rstrip("2"), data, changed, language)
        assert skeleton(parsed(new)) == skeleton(parsed(data))


def skeleton(root: etree._Element) -> list[str]:
    """What may not change: everything but targets, strings, values, and the states that tell of targets."""
    targets = ("target", "translation", "string", "item", "value", "numerusform", "tuv")
    found = []
    for element in root.iter():
        name = element.tag if isinstance(element.tag, str) else "comment"
        inside = [name, *(parent.tag for parent in element.iterancestors())]
        if any(etree.QName(each).localname in targets if each != "comment" else False for each in inside):
            continue
        attributes = {key: value for key, value in element.attrib.items() if key not in ("state", "type")}
        found.append(f"{name} {attributes} {(element.text or '').strip()}")
    return found


def test_android_strings_read_and_write_as_an_app_sees_them():
    found = {segment.id: segment.text for segment in segments("android", ANDROID.encode())}
    assert list(found.values()) == [
        *("Hello, it's %1$s & co", "Two blanks and a line", "  kept  "),
        'Hello <b>world</b>, <xliff:g id="n">%d</xliff:g>',
        *("<b>bold</b> & more", "Monday", "Tuesday", "%d files"),
    ]
    new = rewritten("android", ANDROID.encode(), changed, language="pl")
    assert rb"""<string name="hello">""" + "ÜHello, it\\'s %1$s &amp; co\\'</string>".encode() in new
    assert "<![CDATA[Ü<b>bold</b> & more\\']]>".encode() in new
    assert "Ü  kept  \\'\"</string>".encode() in new
    assert texts("android", new)[:7] == [changed(text) for text in list(found.values())[:7]]
    store = aresource.AndroidResourceFile.parsestring(new)
    units = {unit.getid(): unit for unit in store.units}
    assert str(units["hello"].target) == changed("Hello, it's %1$s & co")
    items = [item.get("quantity") for item in parsed(new).iterfind("plurals/item")]
    assert items == ["one", "few", "many", "other"]
    assert segments("android", ANDROID.encode())[0].note == "shown at the top"


def test_xliff_targets_are_made_or_filled():
    found = segments("xliff", XLIFF12.encode())
    assert [(segment.id, segment.max, segment.note) for segment in found] == [
        *(("a.txt/1", 20, "for the top"), ("a.txt/2", None, ""), ("a.txt/6", None, "")),
    ]
    new = rewritten("xliff", XLIFF12.encode(), changed)
    store = xliff.xlifffile.parsestring(new)
    targets = {unit.xmlelement.get("id"): unit.target and str(unit.target) for unit in store.units}
    assert targets["1"] == "ÜHello <you>'"
    assert targets["6"] == "ÜNew'"
    assert targets["3"] == "Fertig"
    assert b'<target state="translated">' in new
    assert b'Click <g id="1">here</g><x id="2"/>\'</target>' in new
    assert b"<target>Alt</target>" in new
    assert segments("xliff", new) == []
    assert [segment.status for segment in segments("xliff", XLIFF12.encode(), existing="fuzzy")][2] is Status.FUZZY
    assert poxliff.PoXliffFile.parsestring(new)


def test_xliff_2_segments_have_targets_and_a_state():
    assert [(segment.id, segment.note) for segment in segments("xliff", XLIFF2.encode())] == [("f1/u1/0", "a note")]
    new = rewritten("xliff", XLIFF2.encode(), changed)
    root = parsed(new)
    space = "{urn:oasis:names:tc:xliff:document:2.0}"
    first = root.find(f".//{space}segment")
    assert first.get("state") == "translated"
    assert "".join(first.find(f"{space}target").itertext()) == "ÜHello world'"
    assert first.find(f"{space}target/{space}pc").get("id") == "1"


def test_qt_messages_are_filled_and_finished():
    found = segments("ts", TS.encode(), existing="all")
    assert [segment.status for segment in found] == [Status.EMPTY, Status.TRANSLATED, Status.FUZZY, Status.EMPTY]
    assert found[0].id == "MainWindow\x04&Open\x04menu"
    new = rewritten("ts", TS.encode(), changed, existing="fuzzy")
    store = ts2.tsfile.parsestring(new)
    assert [str(unit.target) for unit in store.units[:3]] == ["Ü&Open'", "Zamknij", "ÜMaybe'"]
    assert [str(text) for text in store.units[3].target.strings] == [f"form_{n} Ü%n file(s)'" for n in range(3)]
    assert b"unfinished" not in new
    assert new.count(b"\n") == TS.count("\n")


def test_a_qt_source_with_elements_has_a_translation_with_elements():
    message = '<message><source>Bell <byte value="x7"/> &amp; x</source><translation type="unfinished"></translation></message>'
    data = f"<TS><context><name>a</name>{message}</context></TS>".encode()
    (segment,) = segments("ts", data)
    assert Document("ts", data).misfit(segment, "a & b")
    new = rewritten("ts", data, lambda text: f"Ü {text}")
    assert '<translation>Ü Bell <byte value="x7"/> &amp; x</translation>'.encode() in new


def test_html_in_cdata_keeps_the_quotation_marks_of_its_tags():
    string = """<string name="a"><![CDATA[It\\'s <a href="https://x.y">here</a> & 1 < 2 > \\"0\\"]]></string>"""
    data = f"<resources>{string}</resources>".encode()
    assert texts("android", data) == ["""It's <a href="https://x.y">here</a> & 1 < 2 > "0\""""]
    assert rewritten("android", data, str) == data


def test_a_region_of_the_target_is_the_target_where_none_is_asked_for():
    unit = '<tu><tuv xml:lang="en-US"><seg>a</seg></tuv><tuv xml:lang="{}"><seg>{}</seg></tuv></tu>'
    units = [unit.format(*each) for each in [("de-DE", "A"), ("de-AT", ""), ("den", "x"), ("de", "A")]]
    data = f'<tmx version="1.4"><header srclang="en-US"/><body>{"".join(units)}</body></tmx>'.encode()
    assert rewritten("tmx", data, str.upper, language="de").count(b">A<") == 4
    assert len(segments("tmx", data, language="de")) == 2
    assert len(segments("tmx", data, language="de_DE")) == 3
    assert segments("tmx", data, language="en") == []


def test_resx_strings_and_tmx_variants():
    store = resx.RESXFile.parsestring(rewritten("resx", RESX.encode(), changed))
    assert [str(unit.target) for unit in store.units] == ["ÜHello {0} & co'", "x.ico", "Üone\ntwo'"]
    new = rewritten("tmx", TMX.encode(), changed, language="de")
    memory = tmx.tmxfile.parsestring(new, sourcelanguage="en", targetlanguage="de")
    assert [unit.getlanguageNode("de") is not None for unit in memory.units] == [True, True]
    assert '<tuv xml:lang="de"><seg>ÜHello <ph>x</ph>\'</seg></tuv>'.encode() in new
    assert segments("tmx", new, language="de") == []
    with pytest.raises(DocumentError, match="state the target language"):
        texts("tmx", TMX.encode())


@pytest.mark.parametrize(
    ("value", "fits"), [("a & b", False), ("<b>a</b>", True), ("<b>a", False), ("&nbsp;", False), ("&amp; a", True)]
)
def test_markup_that_is_not_well_formed_does_not_fit(value: str, fits: bool):
    document = Document("android", ANDROID.encode())
    markup = [entry.segment for entry in document.entries() if "<b>world" in entry.segment.text]
    assert (document.misfit(markup[0], value) is None) == fits


def test_plain_text_may_have_any_character_that_xml_has():
    document = Document("resx", RESX.encode())
    segment = next(document.entries()).segment
    assert document.misfit(segment, "a & <b>") is None
    assert document.misfit(segment, "a\x01")


@given(st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.tuples(plain, plain), min_size=1, max_size=5))
def test_generated_strings_have_exactly_the_new_texts(strings: dict[str, tuple[str, str]]):
    root = etree.Element("root")
    for name, (old, _) in strings.items():
        etree.SubElement(etree.SubElement(root, "data", name=name), "value").text = old
    for encoding in ("utf-8", "iso-8859-1", "utf-16"):
        data = etree.tostring(root, encoding=encoding, xml_declaration=True)
        assert_unchanged("resx", data)
        new = iter(value for old, value in strings.values() if old.strip())
        after = parsed(rewritten("resx", data, lambda _, new=new: next(new)))
        assert [(each.get("name"), each.findtext("value")) for each in after] == [
            (name, value if old.strip() else old) for name, (old, value) in strings.items()
        ]


@given(st.lists(st.tuples(plain, plain), min_size=1, max_size=5))
def test_generated_android_strings_are_what_an_app_shows(pairs: list[tuple[str, str]]):
    strings = "".join(f'<string name="s{n}">a{n}</string>' for n, _ in enumerate(pairs))
    data = f"<resources>{strings}</resources>".encode()
    values = iter(value for _, value in pairs)
    new = rewritten("android", data, lambda _: next(values))
    assert texts("android", new) == [value for _, value in pairs if value.strip()]


def test_what_only_looks_like_a_tag_is_none():
    text = """<!DOCTYPE root [<!ENTITY e "<data name='x'><value>no</value></data>"> <!-- <data> -->]>
<root><!-- <data name="a"><value>no</value></data> --><?pi <data>?><data name='a>"' xml:space = "preserve"
>
<value x="/value>">a &gt; <![CDATA[</value>]]></value ></data ></root>"""
    found = segments("resx", text.encode())
    assert [(segment.id, segment.text) for segment in found] == [('a>"', "a &gt; <![CDATA[</value>]]>")]
    assert rewritten("resx", text.encode(), lambda _: "<b/>") == text.replace(found[0].text, "<b/>").encode()


def test_the_innermost_translate_decides():
    def unit(id: str, translate: str | None = None) -> str:
        more = "" if translate is None else f' translate="{translate}"'
        return f'<unit id="{id}"{more}><segment><source>{id}</source></segment></unit>'

    group = f'<group id="g" translate="no">{unit("a")}{unit("b", "yes")}</group>'
    inner = f'<group id="h" translate="no"><group id="i" translate="yes">{unit("c")}</group>{unit("d")}</group>'
    data = f'<xliff version="2.0" srcLang="en"><file id="f">{group}{inner}{unit("e")}{unit("f", "no")}</file></xliff>'
    assert texts("xliff", data.encode()) == ["b", "c", "e"]


def test_a_target_of_one_tag_is_opened_with_its_attributes():
    unit = '<trans-unit id="1"><source>a</source>{}</trans-unit>'
    data = f'<xliff version="1.2"><file original="a"><body>{unit}</body></file></xliff>'
    old, new = (
        """<target note=" state='new'" state='new' />""",
        """<target note=" state='new'" state='translated'>b</target>""",
    )
    assert rewritten("xliff", data.format(old).encode(), lambda _: "b") == data.format(new).encode()


def test_messages_are_named_by_the_context_that_they_are_in():
    message = '<message><source>{}</source><translation type="unfinished"/></message>'
    contexts = (
        f"<context><name>A</name>{message.format('one')}</context>",
        f"<context>{message.format('two')}</context>",
        f"<context><name>B</name>{message.format('three')}{message.format('four')}</context>",
    )
    found = segments("ts", f'<TS version="2.1" language="pl">{"".join(contexts)}</TS>'.encode())
    assert [segment.id for segment in found] == ["A\x04one", "\x04two", "B\x04three", "B\x04four"]
    assert [segment.context for segment in found] == ["A", "", "B", "B"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('<target><mrk mtype="seg" mid="0"></mrk></target>', '<target><mrk mtype="seg" mid="0">b</mrk></target>'),
        ('<target><mrk mid="0" mtype="seg" /></target>', '<target><mrk mid="0" mtype="seg">b</mrk></target>'),
        ('<target state="new"> <mrk mid="0"/> </target>', '<target state="translated"> <mrk mid="0">b</mrk> </target>'),
        ('<target><mrk mid="0"/> <mrk mid="1"></mrk></target>', "<target>b</target>"),
    ],
)
def test_a_target_of_empty_segments_is_not_translated(old: str, new: str):
    """As translate-toolkit has it; the text goes into the segment where there is one."""
    unit = '<trans-unit id="1"><source>a</source><seg-source><mrk mid="0">a</mrk></seg-source>{}</trans-unit>'
    data = XLIFF12.replace("<body>", f"<body>{unit}")
    (read,) = [each for each in xliff.xlifffile(data.format(old).encode()).units if each.getid().endswith("1")][:1]
    assert not read.istranslated()
    assert segments("xliff", data.format(old).encode())[0].text == "a"
    assert (
        rewritten("xliff", data.format(old).encode(), lambda _: "b")
        .decode()
        .startswith(data.format(new).partition("</trans-unit>")[0])
    )
    filled = '<target><mrk mid="0">x</mrk><mrk mid="1"/></target>'
    assert segments("xliff", data.format(filled).encode())[0].text != "a"
    code = '<target><x id="1"/></target>'
    assert segments("xliff", data.format(code).encode())[0].text != "a"


_BLANKS = st.sampled_from(["", " ", "\n", "\t "])
_INSIDE = st.sampled_from(["ä", "x", ">", "/", "=", " ", "\n", "&amp;", "&#228;"])
_BESIDE = st.sampled_from(["a", "ä", "]", ">", "'", "&lt;", "<!-- <a> -->", "<![CDATA[<a>]]]>", "<?a b='>'?>", "\n"])


@st.composite
def elements(draw: st.DrawFn, depth: int = 2) -> str:
    """An element as XML lets it be spelled."""
    name = draw(st.sampled_from(["a", "b", "x:a", "ä", "a-b"]))
    tag = name
    for attribute in draw(st.lists(st.sampled_from(["id", "x:id", "ö"]), unique=True, max_size=3)):
        quote = draw(st.sampled_from("\"'"))
        value = "".join(draw(st.lists(_INSIDE | st.sampled_from("\"'".replace(quote, "")), max_size=3)))
        tag += f" {draw(_BLANKS)}{attribute}{draw(_BLANKS)}={draw(_BLANKS)}{quote}{value}{quote}"
    tag += draw(_BLANKS)
    parts = draw(st.lists(elements(depth - 1) | _BESIDE if depth else _BESIDE, max_size=4))
    if not parts and draw(st.booleans()):
        return f"<{tag}/>"
    return f"<{tag}>{''.join(parts)}</{name}{draw(_BLANKS)}>"


@settings(max_examples=50)
@given(elements(), st.integers(1, 40))
def test_elements_stand_where_expat_sees_them(text: str, size: int):
    data = f"<root>{text}</root>".encode()
    seen: list[tuple[str, dict[str, str], int]] = []
    ends: list[int] = []
    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler = lambda name, attributes: seen.append((name, attributes, parser.CurrentByteIndex))
    parser.EndElementHandler = lambda _: ends.append(parser.CurrentByteIndex)
    parser.Parse(data, True)
    content = data.decode("latin-1")
    window = Window((content[at : at + size] for at in range(0, len(content), size)), lambda: [data])
    ((root, within),) = xml_text.units(window, frozenset({"root"}))
    assert within == ()
    found = list(nodes(root))
    assert [
        (xml_text.decoded(content[n.start + 1 :])[: len(e[0])], n.attributes, n.start)
        for n, e in zip(found, seen, strict=True)
    ] == seen
    assert sorted(node.end for node in found) == sorted(ends)
    assert all(re.search(r"(<[^<]*/|</[^<]*)>\Z", content[: node.after]) for node in found)


def nodes(node: xml_text.Node) -> Iterator[xml_text.Node]:
    yield node
    for child in node.children:
        yield from nodes(child)


@pytest.mark.parametrize("text", ["<resources>", "<resources><string></resources>", ""])
def test_what_is_no_xml_is_refused_with_its_line(text: str):
    with pytest.raises(DocumentError, match="line 1"):
        texts("android", text.encode())
