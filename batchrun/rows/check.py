"""Whether a text is a JSON object that can be a row; and the members of one, found in its text.

User rows are kept as their text. They are read by jiter, which like the standard library keeps every integer exact
(orjson makes floats of those beyond 64 bits); what jiter refuses is read once more by the library, which takes it or
names what is wrong. Refused are, with the reason: anything but an object, NaN and Infinity (RFC 8259 has none), integers
of more than 4,300 digits, nesting deeper than 200, lone surrogates (they cannot be stored or sent).
`Record` is what every reader yields for a good record: its line, its text as one JSON object on one line, its fields, and
its text as UTF-8 where the reader has it.
A member that appears twice counts with its last value, as `json` and the provider read it; the text keeps both.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from json import JSONDecodeError, JSONDecoder, JSONEncoder
from typing import Any, NamedTuple, NoReturn, cast

from jiter import from_json

from batchrun.models import Invalid

ROW_LIMIT = 32 * 1024 * 1024
DEPTH_LIMIT = 200
EXCERPT = 480
RESERVED = "_batchrun"
NOT_UTF8 = "not UTF-8"
"""How the reason begins of a record that is not text in UTF-8."""

Record = tuple[int, str, dict[str, Any]] | tuple[int, str, dict[str, Any], bytes]

_NAMES: dict[type, str] = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_BLANKS = re.compile(r"[ \t\r\n]*")
_DOUBLED = re.compile(r'Detected duplicate key "(.*)" at line \d+ column \d+$', re.DOTALL)
_OBJECT_HINT = ': a row is an object, such as {"text": "…"}'
_LINE_BREAKS = re.compile(r"[ \t]*[\r\n][ \t\r\n]*")


class RefusedRowError(Exception):
    """The text cannot be a row; the message is the reason."""


class Member(NamedTuple):
    """One top-level member of an object's text: its name and where its parts are.

    `start` is where the name's quotation mark is, `value` and `end` enclose the value.
    """

    name: str
    start: int
    value: int
    end: int


def _refuse_constant(name: str) -> NoReturn:
    raise RefusedRowError(f"{name} is not JSON: write null in its place")


_decoder = JSONDecoder(parse_constant=_refuse_constant)
_scan = cast("Callable[[str, int], tuple[Any, int]]", getattr(_decoder, "scan_once"))  # noqa: B009 (typeshed lacks it)
encode = JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_encode_string = json.encoder.encode_basestring


def parse(text: str, doubled: Callable[[str], None] | None = None, encoded: bytes | None = None) -> dict[str, Any]:
    """The fields of a row's text. Raises RefusedRowError with the reason; about 1 µs for 400 characters.

    `doubled` gets the name of a member that appears twice in one object; `encoded` is the text as UTF-8 where that is there.
    """
    try:
        encoded = text.encode() if encoded is None else encoded
        fields = from_json(encoded, allow_inf_nan=False, catch_duplicate_keys=doubled is not None)
    except ValueError as error:
        fields = _parse_exactly(text)
        if doubled is not None and (found := _DOUBLED.match(str(error))):
            doubled(found[1])
    if not isinstance(fields, dict):
        raise RefusedRowError(f"not an object but {_what(fields)}{_OBJECT_HINT}")
    return cast("dict[str, Any]", fields)


def members(text: str) -> Iterator[Member]:
    """The top-level members of the text of a valid row, in their order."""
    at = _after_blanks(text, text.index("{") + 1)
    while text[at] != "}":
        name, end = _scan(text, at)
        value = _after_blanks(text, _after_blanks(text, end) + 1)
        _, end = _scan(text, value)
        yield Member(name, at, value, end)
        at = _after_blanks(text, end)
        if text[at] == ",":
            at = _after_blanks(text, at + 1)


def without_reserved(text: str) -> str:
    """The text without its members `_batchrun`, byte for byte what it was before they were inserted."""
    while True:
        found = list(members(text))
        at = next((index for index, member in enumerate(found) if member.name == RESERVED), None)
        if at is None:
            return text
        text = _without(text, found, at)


def one_line(text: str) -> str:
    """Valid JSON without line breaks: they and the blanks around them stand between tokens, never in a string."""
    return _LINE_BREAKS.sub("", text) if "\n" in text or "\r" in text else text


def string(text: str) -> str:
    """The text as a JSON string, characters beyond ASCII as they are."""
    return _encode_string(text)


def invalid(line: int, text: str, reason: str) -> Invalid:
    """An Invalid with all of the text. Where it was not UTF-8, every byte of it becomes a character, as in Latin-1."""
    if not encodable(text):
        text = text.encode(errors="surrogateescape").decode("latin-1")
    return Invalid(line, text, reason)


def encodable(text: str) -> bool:
    """Whether the text has no lone surrogate, so that it can be stored and sent."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def undecodable(line: int, data: bytes) -> Invalid:
    """The Invalid of bytes that are not UTF-8, with the place of the first one."""
    text = data.decode(errors="surrogateescape")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return invalid(line, text, f"{NOT_UTF8} at byte {error.start + 1} of the line (0x{data[error.start]:02x})")
    return invalid(line, text, NOT_UTF8)


def too_long(line: int, data: bytes) -> Invalid:
    """The Invalid of a record over the limit, of which only the beginning is kept."""
    start = data[:EXCERPT].decode(errors="ignore")
    return invalid(line, start, f"longer than {ROW_LIMIT // 1024**2} MiB")


def _without(text: str, found: list[Member], at: int) -> str:
    """The text without one member and without the one comma that parted it from the others."""
    if at:
        return text[: text.rindex(",", found[at - 1].end, found[at].start)] + text[found[at].end :]
    return text[: found[0].start] + text[found[1].start if len(found) > 1 else found[0].end :]


def _what(value: object) -> str:
    return _NAMES.get(type(value), "a number")


def _after_blanks(text: str, at: int) -> int:
    match = _BLANKS.match(text, at)
    return match.end() if match else at


def _parse_exactly(text: str) -> Any:
    """What the standard library reads, without lone surrogates."""
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
    """A row is parsed again from other depths of the stack, so the limit stays far below the interpreter's.

    It is that of jiter, which refuses what is nested deeper in the row by itself.
    """
    level: list[Any] = [fields]
    for _ in range(1 + DEPTH_LIMIT):
        level = [inner for value in level for inner in _children(value) if isinstance(inner, dict | list)]
        if not level:
            return
    raise RefusedRowError(f"nested deeper than {DEPTH_LIMIT} levels")


def _children(value: Any) -> Iterable[Any]:
    return cast("dict[str, Any]", value).values() if isinstance(value, dict) else value
