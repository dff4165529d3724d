"""Which document format a file is, by its name and its beginning; and which structured formats are not supported.

Names decide first, since most formats have no signature; the content then confirms (XML by its root element, `WEBVTT`,
`msgid`) or tells formats of one suffix apart. What has no telling name (standard input) is found by content alone.
"""

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
    """Why a structured file is not read, and what to do instead."""

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
    ".html": Refusal("an HTML page", "Convert it to Markdown (pandoc -t markdown), or take its text."),
    ".htm": Refusal("an HTML page", "Convert it to Markdown (pandoc -t markdown), or take its text."),
    ".xhtml": Refusal("an HTML page", "Convert it to Markdown (pandoc -t markdown), or take its text."),
    ".svg": Refusal("an SVG image", "Extract its texts into a table first."),
    ".eml": Refusal("an e-mail message", "Take its text out first, as one column of a table."),
    ".mbox": Refusal("a mailbox", "Take the texts out first, as one column of a table."),
    ".rtf": Refusal("an RTF document", "Save it as text or Markdown."),
    ".stringsdict": Refusal("an Apple .stringsdict file", "Convert it to a string catalog (.xcstrings) in Xcode."),
    ".ini": Refusal("an INI file", "Convert it to .properties or JSON."),
    ".toml": Refusal("a TOML file", "Convert it to JSON or YAML."),
    ".ftl": Refusal("a Fluent file", "Convert it to PO or JSON first."),
    ".php": Refusal("a PHP file", "Export its messages as JSON or PO."),
    ".mo": Refusal("a compiled gettext catalog", "Take its source, or make it: msgunfmt FILE.mo -o FILE.po."),
    ".qm": Refusal("a compiled Qt translation", "Take the .ts file it was made from."),
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
    """The document format of a file; None for what is read as rows, or not at all.

    One of srt, vtt, po, markdown, json (a tree), arb, xcstrings, android, xliff, ts, resx, tmx, yaml, strings,
    properties. Plain text is never found here: its lines are rows unless the user says otherwise. `head` are the first
    64 KB or so, uncompressed.
    """
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
    """Why a file with structure is refused, where its lines would be sent as if they were rows; None for all others."""
    suffix = suffix_of(name)
    if suffix in _UNSUPPORTED:
        return _UNSUPPORTED[suffix]
    start = _ascii(head)
    if suffix in _XML_SUFFIXES or (not suffix and start.lstrip().startswith(b"<")):
        root = _root(start)
        if root is not None and _xml_format(start) is None:
            what = f"an XML file with the root element <{root.decode()[:40]}>"
            return _ROOTS.get(root.lower(), Refusal(what, "Its texts have to be extracted into a table first."))
    if start.startswith(b"[Script Info]"):
        return _UNSUPPORTED[".ass"]
    return None


def suffix_of(name: str) -> str:
    """The suffix of a path in lower case with its dot; empty where there is none."""
    file = re.split(r"[/\\]", name)[-1]
    stem, dot, ending = file.rpartition(".")
    return f".{ending.lower()}" if dot and stem.strip(".") else ""


def is_tree(head: bytes) -> bool:
    """Whether JSON begins with an object of several lines, so that it is no list of rows (JSONL)."""
    first, _, rest = head.removeprefix(b"\xef\xbb\xbf").strip().partition(b"\n")
    return first.startswith(b"{") and bool(rest) and not first.rstrip().endswith(b"}")


def _ascii(head: bytes) -> bytes:
    """The beginning as bytes of which the ASCII ones can be searched: UTF-16 with its zero bytes taken out."""
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
    """`<root>` alone says little: RESX has `resheader` elements that name its reader."""
    root = _root(start)
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
