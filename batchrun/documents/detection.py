"""The format of a document, by name, then content."""

import re
from typing import NamedTuple

_PO = re.compile(rb"(?:^|\n)(?:#[^\n]*\n|\s*\n)*msgid(?:_plural)?[ \t]+\"|(?:^|\n)msgctxt[ \t]+\"")
_CUE = re.compile(rb"\s*\d+[ \t]*\r?\n[ \t]*\d+:\d\d:\d\d[,.]\d{1,3}[ \t]*-->")
_XML_NOISE = re.compile(rb"\s+|<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^\[>]*(?:\[.*?\]\s*)?>", re.DOTALL)
_ROOT = re.compile(rb"<([A-Za-z_][\w.:-]*)")
_STRINGS = re.compile(rb'(?:/\*.*?\*/|//[^\n]*|\s)*"(?:[^"\\]|\\.)*"\s*=\s*"', re.DOTALL)

_BY_ROOT = {b"resources": "android", b"xliff": "xliff", b"TS": "ts", b"tmx": "tmx", b"root": "resx"}
_BY_SUFFIX = {
    ".srt": "srt",
    ".vtt": "vtt",
    ".po": "po",
    ".pot": "po",
    ".md": "markdown",
    ".markdown": "markdown",
    ".arb": "arb",
    ".xcstrings": "xcstrings",
    ".yml": "yaml",
    ".yaml": "yaml",
    ".strings": "strings",
    ".properties": "properties",
}
_XML_SUFFIXES = frozenset({".xml", ".xlf", ".xliff", ".ts", ".resx", ".resw", ".tmx"})


class Refusal(NamedTuple):
    what: str
    hint: str


_UNSUPPORTED = {
    ".ass": Refusal("an ASS subtitle file", "Convert it to SRT first (ffmpeg -i FILE.ass FILE.srt)."),
    ".ssa": Refusal("an SSA subtitle file", "Convert it to SRT first (ffmpeg -i FILE.ssa FILE.srt)."),
    ".sub": Refusal("a MicroDVD or VobSub subtitle file", "Convert it to SRT first."),
    ".ttml": Refusal("a TTML subtitle file", "Convert it to WebVTT first."),
    ".tex": Refusal("a LaTeX file", "Convert it to Markdown (pandoc -t markdown), or extract its text."),
    ".mdx": Refusal("an MDX file", "Rename it to .md if it has no JSX; else extract its texts."),
    ".rst": Refusal("a reStructuredText file", "Extract its messages as PO first (sphinx-build -b gettext)."),
    ".adoc": Refusal("an AsciiDoc file", "Extract its messages as PO first (po4a)."),
    ".html": Refusal("an HTML page", "Convert it to Markdown (pandoc -t markdown), or extract its text."),
    ".htm": Refusal("an HTML page", "Convert it to Markdown (pandoc -t markdown), or extract its text."),
    ".xhtml": Refusal("an HTML page", "Convert it to Markdown (pandoc -t markdown), or extract its text."),
    ".svg": Refusal("an SVG image", "Extract its texts into a table first."),
    ".eml": Refusal("an e-mail message", "Extract its text first, as a column of a table."),
    ".mbox": Refusal("a mailbox", "Extract the texts first, as a column of a table."),
    ".rtf": Refusal("an RTF document", "Save it as text or Markdown."),
    ".stringsdict": Refusal("an Apple .stringsdict file", "Convert it to a string catalog (.xcstrings) in Xcode."),
    ".ini": Refusal("an INI file", "Convert it to .properties or JSON."),
    ".toml": Refusal("a TOML file", "Convert it to JSON or YAML."),
    ".ftl": Refusal("a Fluent file", "Convert it to PO or JSON first."),
    ".php": Refusal("a PHP file", "Export its messages as JSON or PO."),
    ".mo": Refusal("a compiled gettext catalog", "Use its source, or create it: msgunfmt FILE.mo -o FILE.po."),
    ".qm": Refusal("a compiled Qt translation", "Use the .ts file it was made from."),
    ".ipynb": Refusal("a Jupyter notebook", "Convert it to Markdown first (jupyter nbconvert --to markdown)."),
    ".plist": Refusal("a property list", "Convert its texts to .strings or JSON."),
}
_ROOTS = {
    b"html": _UNSUPPORTED[".html"],
    b"svg": _UNSUPPORTED[".svg"],
    b"tt": _UNSUPPORTED[".ttml"],
    b"plist": _UNSUPPORTED[".plist"],
}


def detect(name: str, head: bytes) -> str | None:
    """Plain text is never detected; `head`: about 64 KB."""
    suffix = suffix_of(name)
    start = _ascii(head)
    if suffix in _XML_SUFFIXES or start.lstrip().startswith(b"<"):
        return _xml_format(start)
    if suffix == ".json":
        return "json" if is_tree(start) else None
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    return None if suffix else _by_content(start)


def refusal(name: str, head: bytes) -> Refusal | None:
    """Why a structured file's lines are no rows."""
    suffix = suffix_of(name)
    if suffix in _UNSUPPORTED:
        return _UNSUPPORTED[suffix]
    start = _ascii(head)
    if suffix in _XML_SUFFIXES or (not suffix and start.lstrip().startswith(b"<")):
        root = _root(start)
        if root is not None and _xml_format(start) is None:
            what = f"an XML file with the root element <{root.decode()[:40]}>"
            return _ROOTS.get(root.lower(), Refusal(what, "Extract its texts into a table first."))
    if start.startswith(b"[Script Info]"):
        return _UNSUPPORTED[".ass"]
    return None


def suffix_of(name: str) -> str:
    """In lower case, with its dot."""
    file = re.split(r"[/\\]", name)[-1]
    stem, dot, ending = file.rpartition(".")
    return f".{ending.lower()}" if dot and stem.strip(".") else ""


def is_tree(head: bytes) -> bool:
    """A JSON object over several lines (not JSONL)."""
    first, _, rest = head.removeprefix(b"\xef\xbb\xbf").strip().partition(b"\n")
    return first.startswith(b"{") and bool(rest) and not first.rstrip().endswith(b"}")


def _ascii(head: bytes) -> bytes:
    # UTF-16 without its zero bytes
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return head[2:].replace(b"\0", b"")
    return head.removeprefix(b"\xef\xbb\xbf")


def _root(start: bytes) -> bytes | None:
    at = 0
    while found := _XML_NOISE.match(start, at):
        at = found.end()
    root = _ROOT.match(start, at)
    return root[1].rpartition(b":")[2] if root else None


def _xml_format(start: bytes) -> str | None:
    root = _root(start)  # `root` is ambiguous: RESX also has `resheader` elements
    if root == b"root" and b"resheader" not in start and b"<data " not in start:
        return None
    return _BY_ROOT.get(root) if root is not None else None


def _by_content(start: bytes) -> str | None:
    if re.match(rb"WEBVTT(?=[ \t\r\n]|$)", start):
        return "vtt"
    if _CUE.match(start):
        return "srt"
    if _PO.search(start):
        return "po"
    return "strings" if _STRINGS.match(start) else None
