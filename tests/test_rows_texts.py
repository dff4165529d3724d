"""The text of PDF, Word, EPUB and HTML files as rows."""

import importlib
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

from batchrun.errors import InputError, RefusedError
from batchrun.models import Invalid, Row
from batchrun.rows import extras, open_input

WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
PAGE = """<!DOCTYPE html><html><head><title>no</title><style>p {}</style></head><body>
<h1>A &amp; B</h1><p>One <b>two</b>
  three<br>four</p><script>no()</script><ul><li>x</li><li>y</li></ul><pre>  a
    b</pre></body></html>"""


def pdf(*texts: str) -> bytes:
    """A PDF file with a page for each text, an empty one for ''."""
    pypdf: Any = importlib.import_module("pypdf")
    objects: Any = importlib.import_module("pypdf.generic")
    writer = pypdf.PdfWriter()
    for text in texts:
        page = writer.add_blank_page(200, 200)
        if not text:
            continue
        font = objects.DictionaryObject(
            {
                objects.NameObject("/Type"): objects.NameObject("/Font"),
                objects.NameObject("/Subtype"): objects.NameObject("/Type1"),
                objects.NameObject("/BaseFont"): objects.NameObject("/Helvetica"),
            }
        )
        fonts = objects.DictionaryObject({objects.NameObject("/F"): writer._add_object(font)})
        page[objects.NameObject("/Resources")] = objects.DictionaryObject({objects.NameObject("/Font"): fonts})
        content = objects.DecodedStreamObject()
        content.set_data(f"BT /F 12 Tf 10 100 Td ({text}) Tj ET".encode())
        page[objects.NameObject("/Contents")] = writer._add_object(content)
    sink = io.BytesIO()
    writer.write(sink)
    return sink.getvalue()


def archive(**parts: str) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as file:
        for name, data in parts.items():
            file.writestr(name.replace("__", "/").replace("_dot_", "."), data)
    return sink.getvalue()


def docx(body: str) -> bytes:
    return archive(word__document_dot_xml=f"<w:document {WORD}><w:body>{body}</w:body></w:document>")


def epub(**chapters: str) -> bytes:
    items = "".join(f'<item id="{name}" href="{name}.xhtml" media-type="application/xhtml+xml"/>' for name in chapters)
    order = "".join(f'<itemref idref="{name}"/>' for name in reversed(chapters))
    package = (
        f'<package xmlns="http://www.idpf.org/2007/opf"><manifest>{items}</manifest><spine>{order}</spine></package>'
    )
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OPS/a.opf"/></rootfiles></container>'
    )
    parts = {"mimetype": "application/epub+zip", "META-INF__container_dot_xml": container, "OPS__a_dot_opf": package}
    return archive(
        **parts, **{f"OPS__{name}_dot_xhtml": f"<html><body>{text}</body></html>" for name, text in chapters.items()}
    )


DOCX = docx(
    "<w:p><w:r><w:t>One </w:t></w:r><w:hyperlink><w:r><w:t>two</w:t><w:tab/><w:t>three</w:t></w:r></w:hyperlink>"
    "<w:del><w:r><w:delText>gone</w:delText></w:r></w:del><w:ins><w:r><w:t>!</w:t></w:r></w:ins></w:p><w:p/>"
    "<w:tbl><w:tr><w:tc><w:p><w:r><w:t>cell</w:t><w:br/><w:t>x</w:t></w:r></w:p></w:tc></w:tr></w:tbl>"
)


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("a.pdf", pdf("Hello there", "", "Page three"), "Hello there\n\nPage three"),
        ("a.docx", DOCX, "One two\tthree!\n\ncell\nx"),
        ("a.epub", epub(b="<p>two</p>", a="<p>one</p>"), "one\n\ntwo"),
        ("a.html", PAGE.encode(), "A & B\n\nOne two three\nfour\n\nx\n\ny\n\n  a\n    b"),
        ("a", PAGE.encode(), "A & B\n\nOne two three\nfour\n\nx\n\ny\n\n  a\n    b"),
        ("a.htm", '<meta charset="windows-1252"><p>Größe'.encode("cp1252"), "Größe"),
    ],
)
def test_a_document_is_one_row_with_its_text(tmp_path: Path, name: str, data: bytes, text: str) -> None:
    (tmp_path / name).write_bytes(data)
    (row,) = open_input(str(tmp_path / name), has_prompt=True)
    assert isinstance(row, Row)
    assert row.fields == {"path": str(tmp_path / name), "name": name, "text": text}


def test_a_directory_of_documents_is_a_row_for_each(tmp_path: Path) -> None:
    for name, data in (("a.pdf", pdf("Hello")), ("b.docx", DOCX), ("c.txt", b"plain"), ("d.html", b"<p>x")):
        (tmp_path / name).write_bytes(data)
    rows = open_input(str(tmp_path), has_prompt=True)
    assert [row.fields["text"][:5] for row in rows if isinstance(row, Row)] == ["Hello", "One t", "plain", "x"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (pdf("", ""), "possibly scanned"),
        (pdf("Hello")[:300], "damaged PDF"),
        (docx("<w:p/>"), "without text"),
        (archive(word__document_dot_xml="<w:docu"), "damaged document"),
        (archive(word__document_dot_xml='<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'), "declares entities"),
        (epub(), "without text"),
    ],
)
def test_a_document_without_text_says_why(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "a").write_bytes(data)
    (row,) = open_input(str(tmp_path / "a"), has_prompt=True)
    assert isinstance(row, Invalid)
    assert reason in row.reason


def test_a_pdf_file_names_the_extra_that_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extras._MODULES, "pdf", ("no_such_module_here", "PDF files", "documents"))  # pyright: ignore[reportPrivateUsage]
    (tmp_path / "a.pdf").write_bytes(pdf("x"))
    with pytest.raises(RefusedError) as refused:
        open_input(str(tmp_path / "a.pdf"), has_prompt=True)
    assert refused.value.hint == (
        "pip install no_such_module_here; with uv tool, install batchrun again with --with no_such_module_here"
    )


def test_an_encrypted_pdf_and_a_packed_document_are_refused(tmp_path: Path) -> None:
    pypdf: Any = importlib.import_module("pypdf")
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf("x")))
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(tmp_path / "a.pdf")
    (row,) = open_input(str(tmp_path / "a.pdf"), has_prompt=True)
    assert isinstance(row, Invalid)
    assert "encrypted" in row.reason
    gzip: Any = importlib.import_module("gzip")
    (tmp_path / "b.pdf.gz").write_bytes(gzip.compress(pdf("x")))
    with pytest.raises(InputError, match="a PDF file inside an archive"):
        open_input(str(tmp_path / "b.pdf.gz"), has_prompt=True)
