"""The texts of simulated replies. Pseudo-translations keep numbers, placeholders, markup, code, addresses, lines."""

import re
from collections.abc import Callable
from functools import reduce

MARK = "[simulated] "
MODES = ("auto", "echo", "translate", "summarize", "broken")
_SENTENCE = re.compile(r"[.!?](?=\s|$)|[。！？]")
_WRAPPED = re.compile(r"\A\s*<([A-Za-z][\w-]*)>\n(.*)\n</\1>\s*\Z", re.DOTALL)
# What a translation keeps unchanged; all other letters are translated.
# Braces within braces, five deep: an ICU message has messages within its plural forms, which have placeholders.
_BRACES = reduce(lambda inner, _: rf"\{{[^{{}}]*+(?:{inner}[^{{}}]*+)*+\}}", range(4), r"\{[^{}]*+\}")
_PLACEHOLDER = (
    rf"\{{\{{.*?\}}\}}|\{{%.*?%\}}|\$t\([^()]*\)|\$?{_BRACES}"
    r"|%\([^()\s]*\)[#0+ -]*[\d.]*[a-zA-Z]|%(?:\d+\$)?[#0+-]*[\d.]*(?:hh?|ll?)?[a-zA-Z@%]"
)
_TAG = r"<!--.*?-->|</?[A-Za-z][^<>]*>"
_KEPT = re.compile(
    # Plain words come first, many at a time: nothing else can begin in them, and this makes it ten times faster.
    r"(?P<plain>(?:[^\W\d_]++(?=[\s,;!?\"'()]|\.(?:\s|\Z)|\Z)[\s,;!?.\"'()]*+)++)"
    rf"|```.*?```|~~~.*?~~~|`+[^`\n]*`+|{_PLACEHOLDER}|{_TAG}|&#?\w+;"
    r"|\]\([^()\s]*\)|\[[^\]\n]*\]:[^\n]*|[A-Za-z][\w+.-]*://[^\s<>\"')\]]*|[\w.+-]+@[\w-]+\.[\w.-]+|[@#]\w+"
    r"|\\[A-Za-z]+|__\w+__|\b\w*[\d_]\w*\b|(?<=[^\s\w]):\w+|(?<=\s):[a-z]\w*",
    re.DOTALL,
)
_ACCENTS = str.maketrans("aeiouAEIOU", "áéíóúÁÉÍÓÚ")
# Where the mark goes: behind blanks and what opens a line in Markdown or markup, so that it stays one.
_OPENING = re.compile(r"(?:\s|#{1,6} |[-*+>] |\d+[.)] |<[^<>]*>)*")


def source(text: str) -> str | None:
    found = _WRAPPED.match(text)
    return found[2] if found else None


def mode_for(mode: str, instructions: str) -> str:
    """`auto`: by the first keyword in the instructions, else `echo`."""
    if mode != "auto":
        return mode
    text = instructions.lower()
    places = {place: name for name in ("translate", "summarize") if (place := text.find(name[:6])) >= 0}
    return places[min(places)] if places else "echo"


def reply_text(mode: str, text: str, size: int, seed: int) -> str:
    if mode == "translate":
        return translated(text)
    if mode == "broken":
        return broken(text, seed)
    if mode == "summarize":
        text = " ".join(text.split())
    return MARK + leading(text, size - len(MARK))


def translated(text: str) -> str:
    parts: list[str] = []
    at = 0
    for kept in _KEPT.finditer(text):
        if kept["plain"] is None:
            parts += [text[at : kept.start()].translate(_ACCENTS), kept[0]]
            at = kept.end()
    parts.append(text[at:].translate(_ACCENTS))
    whole = "".join(parts)
    opening = _OPENING.match(whole)
    head = opening.end() if opening else 0
    return whole[:head] + MARK + whole[head:] if whole[head:] else MARK.strip() + whole


def broken(text: str, seed: int) -> str:
    good = translated(text)
    defects = [bad for change in _DEFECTS if (bad := change(text, good)) is not None and bad != good]
    return defects[seed % len(defects)]


def leading(text: str, size: int) -> str:
    text = text.strip()
    fits = cut(text, size)
    if fits == text:
        return text
    ends = [found.end() for found in _SENTENCE.finditer(fits)]
    if ends:
        return fits[: ends[-1]]
    words, _, _ = fits.rpartition(" ")
    return words or fits


def cut(text: str, size: int) -> str:
    """The longest prefix within `size` bytes of UTF-8."""
    size = max(size, 0)
    if text.isascii():
        return text[:size]
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) > size:
        # A byte 10xxxxxx continues a character, which is omitted as a whole.
        while size and encoded[size] & 0xC0 == 0x80:
            size -= 1
    return encoded[:size].decode("utf-8", "surrogatepass")


def _without(pattern: str) -> Callable[[str, str], str | None]:
    compiled = re.compile(pattern, re.DOTALL)
    return lambda _text, good: compiled.sub("", good, count=1) if compiled.search(good) else None


# lost placeholder, lost tag, changed number, lost line break, not translated, blank, a preamble, far too long
_DEFECTS: tuple[Callable[[str, str], str | None], ...] = (
    _without(_PLACEHOLDER),
    _without(_TAG),
    lambda _text, good: re.sub(r"\d", lambda found: str((int(found[0]) + 1) % 10), good, count=1),
    lambda _text, good: good.replace("\n", " ", 1),
    lambda text, _good: text,
    lambda _text, _good: " ",
    lambda _text, good: f"Sure! Here is the translation:\n\n{good}",
    lambda _text, good: good * 6,
)
