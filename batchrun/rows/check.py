"""JSON objects as rows.

Refused are NaN and Infinity (not in RFC 8259), integers of more than 4,300 digits, nesting deeper than 200 and lone
surrogates. The last of two equal members counts.
"""

import json
import re
from collections.abc import Callable, Iterator
from json import JSONDecodeError, JSONDecoder, JSONEncoder
from typing import Any, NamedTuple, NoReturn, cast

from jiter import from_json

from batchrun.models import Invalid

ROW_LIMIT = 32 * 1024 * 1024
DEPTH_LIMIT = 200
EXCERPT = 480
RESERVED = "_batchrun"
NOT_UTF8 = "not UTF-8"
# line, text, fields and perhaps the text as UTF-8
Record = tuple[int, str, dict[str, Any]] | tuple[int, str, dict[str, Any], bytes]

_NAMES: dict[type, str] = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_BLANKS = re.compile(r"[ \t\r\n]*")
_DOUBLED = re.compile(r'Detected duplicate key "(.*)" at line \d+ column \d+$', re.DOTALL)
_OBJECT_HINT = ': a row is an object, such as {"text": "…"}'
_LINE_BREAKS = re.compile(r"[ \t]*[\r\n][ \t\r\n]*")


class RefusedRowError(Exception):
    """The message is the reason."""


class Member(NamedTuple):
    name: str
    start: int
    value: int
    end: int


def _refuse_constant(name: str) -> NoReturn:
    raise RefusedRowError(f"{name} is not JSON: write null in its place")


_decoder = JSONDecoder(parse_constant=_refuse_constant)
_scan = cast("Callable[[str, int], tuple[Any, int]]", getattr(_decoder, "scan_once"))  # noqa: B009 (typeshed lacks it)
encode = JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
# a text as a JSON string, not escaped to ASCII
string: Callable[[str], str] = json.encoder.encode_basestring


def parse(text: str, doubled: Callable[[str], None] | None = None, encoded: bytes | None = None) -> dict[str, Any]:
    """`doubled` receives names of repeated members; `encoded` is enough. Raises RefusedRowError."""
    # jiter keeps every integer exact (orjson makes floats beyond 64 bits); the rest the standard library reads or explains.
    try:
        encoded = text.encode() if encoded is None else encoded
        fields = from_json(encoded, allow_inf_nan=False, catch_duplicate_keys=doubled is not None)
    except ValueError as error:
        fields = _parse_exactly(text or (encoded or b"").decode())
        if doubled is not None and (found := _DOUBLED.match(str(error))):
            doubled(found[1])
    if not isinstance(fields, dict):
        what = _NAMES.get(type(cast("object", fields)), "a number")
        raise RefusedRowError(f"not an object but {what}{_OBJECT_HINT}")
    return cast("dict[str, Any]", fields)


def members(text: str) -> Iterator[Member]:
    """Top-level members of a valid row's text."""
    at = after_blanks(text, text.index("{") + 1)
    while text[at] != "}":
        name, end = _scan(text, at)
        value = after_blanks(text, after_blanks(text, end) + 1)
        _, end = _scan(text, value)
        yield Member(name, at, value, end)
        at = after_blanks(text, end)
        if text[at] == ",":
            at = after_blanks(text, at + 1)


def without_reserved(text: str) -> str:
    while True:
        found = list(members(text))
        at = next((index for index, member in enumerate(found) if member.name == RESERVED), None)
        if at is None:
            return text
        if at:
            text = text[: text.rindex(",", found[at - 1].end, found[at].start)] + text[found[at].end :]
        else:
            text = text[: found[0].start] + text[found[1].start if len(found) > 1 else found[0].end :]


def one_line(text: str) -> str:
    """Without line breaks between tokens."""
    return _LINE_BREAKS.sub("", text) if "\n" in text or "\r" in text else text


def invalid(line: int, text: str, reason: str) -> Invalid:
    """The whole text, as Latin-1 if not UTF-8."""
    if not encodable(text):
        text = text.encode(errors="surrogateescape").decode("latin-1")
    return Invalid(line, text, reason)


def encodable(text: str) -> bool:
    """Whether there is no lone surrogate."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def undecodable(line: int, data: bytes) -> Invalid:
    text = data.decode(errors="surrogateescape")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return invalid(line, text, f"{NOT_UTF8} at byte {error.start + 1} of the line (0x{data[error.start]:02x})")
    return invalid(line, text, NOT_UTF8)


def too_long(line: int, data: bytes) -> Invalid:
    start = data[:EXCERPT].decode(errors="ignore")
    return invalid(line, start, f"longer than {ROW_LIMIT // 1024**2} MiB")


def after_blanks(text: str, at: int) -> int:
    match = _BLANKS.match(text, at)
    return match.end() if match else at


def _parse_exactly(text: str) -> Any:
    try:
        fields = _decoder.decode(text)
    except (ValueError, RecursionError) as error:
        raise RefusedRowError(_reason(error)) from None
    _refuse_depth(fields)
    if _SURROGATE.search(text):
        _refuse_surrogates(fields)
    return fields


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"nested deeper than {DEPTH_LIMIT} levels"
    if not isinstance(error, JSONDecodeError):
        return "an integer has more than 4,300 digits"
    what = error.msg[:1].lower() + error.msg[1:]
    where = f"column {error.colno}" if error.lineno == 1 else f"its line {error.lineno}, column {error.colno}"
    return f"invalid JSON at {where}: {what}"


def _refuse_surrogates(fields: object) -> None:
    try:
        encode(fields).encode()
    except UnicodeEncodeError as error:
        code = ord(error.object[error.start])
        raise RefusedRowError(f"a lone surrogate (\\u{code:04x}) cannot be stored or sent") from None
    except (ValueError, RecursionError):
        raise RefusedRowError(f"nested deeper than {DEPTH_LIMIT} levels") from None


def _refuse_depth(fields: object) -> None:
    # jiter's limit, far below the interpreter's: rows are parsed again deeper in the stack.
    level: list[Any] = [fields]
    for _ in range(1 + DEPTH_LIMIT):
        values = (cast("dict[str, Any]", each).values() if isinstance(each, dict) else each for each in level)
        level = [inner for each in values for inner in each if isinstance(inner, dict | list)]
        if not level:
            return
    raise RefusedRowError(f"nested deeper than {DEPTH_LIMIT} levels")


class Remarks:
    """In order of first occurrence."""

    def __init__(self) -> None:
        self._found: dict[str, list[int]] = {}
        self.offset = 0  # lines of the files before, where several files are one input

    def clear(self) -> None:
        self._found.clear()
        self.offset = 0

    def add(self, what: str, line: int | None = None) -> None:
        """`line` None: about the whole input."""
        found = self._found.setdefault(what, [])
        if line is None:
            return
        if not found:
            found += [0, self.offset + line]
        found[0] += 1

    def all(self) -> list[tuple[str, int, int | None]]:
        """Each with its number of records and first line."""
        return [(what, *(found or (0, None))) for what, found in self._found.items()]  # pyright: ignore[reportReturnType]  two numbers
