"""Output lines: a row's text, unchanged to the byte, with new members; lines of OpenAI's Batch files."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from batchrun.models import Invalid, Row, made
from batchrun.rows.check import RESERVED, RefusedRowError, encode, one_line, parse, string

_NOTHING: Mapping[str, str] = MappingProxyType({})


def insert_members(text: str, additions: Mapping[str, str]) -> str:
    """`additions`: name to JSON text."""
    end, is_empty = _end(text)
    inserted = "".join([_named(name) + value for name, value in additions.items()])
    return f"{text[:end]}{inserted[1:] if is_empty else inserted}{text[end:]}"


def output_line(text: str, additions: Mapping[str, str]) -> bytes:
    """Pieces are encoded before they are joined, so that a long value is copied less."""
    end, is_empty = _end(text)
    pieces = [one_line(text[:end]).encode()]
    for name, value in additions.items():
        pieces += (_named(name).encode(), one_line(value).encode())
    if is_empty:
        pieces[1:2] = [name[1:] for name in pieces[1:2]]
    pieces.append(b"}\n" if end == len(text) - 1 else one_line(text[end:]).encode() + b"\n")
    return b"".join(pieces)


def _end(text: str) -> tuple[int, bool]:
    # where new members go, and whether they are the first
    end = len(text) - 1 if text[-1] == "}" else text.rindex("}")
    return end, text[end - 1] in "{ \t\r\n" and text[:end].rstrip(" \t\r\n").endswith("{")


def clash(columns: Iterable[str], new_names: Iterable[str]) -> tuple[str, ...]:
    taken = frozenset(columns)
    return tuple(name for name in new_names if name in taken)


def error_text(text: str, reason: Mapping[str, Any]) -> str:
    """With `_batchrun`, which readers remove."""
    return insert_members(text, {RESERVED: encode(dict(reason))})


def note_text(invalid: Invalid, reason: Mapping[str, Any]) -> str:
    """For an invalid record; readers skip it."""
    return encode({RESERVED: {**reason, "line": invalid.line, "message": invalid.reason, "text": invalid.text}})


def line_text(line: str) -> str:
    """An unparsable line as JSON, for the journal."""
    return string(line)


def restore(line: int, key: str | None, text: str, encoded: bytes = b"") -> Row:
    """From a journaled text, or `encoded` alone. Raises ValueError."""
    encoded = encoded or text.encode()
    try:
        return made(Row, (line, key, text, parse(text, None, encoded), None, encoded))
    except RefusedRowError as error:
        raise ValueError(str(error)) from error


def batch_line(  # noqa: PLR0913, PLR0917 (the members of the line)
    id: str,
    custom_id: str,
    status_code: int,
    request_id: str | None,
    body_text: str,
    additions: Mapping[str, str] = _NOTHING,
) -> str:
    """Source: platform.openai.com/docs/api-reference/batch/request-output."""
    return _batch(id, custom_id, _response(status_code, request_id, body_text), "null", additions)


def batch_error_line(  # noqa: PLR0913 (the members of the line)
    id: str,
    custom_id: str,
    code: str,
    message: str,
    *,
    status_code: int | None = None,
    request_id: str | None = None,
    body_text: str | None = None,
) -> str:
    """Without `error` for an error reply (github.com/openai/openai-openapi/issues/302)."""
    error = f'{{"code": {string(code)}, "message": {string(message)}}}'
    if status_code is None:
        return _batch(id, custom_id, ("null",), error)
    body_is_error = status_code >= 400 and body_text is not None
    response = _response(status_code, request_id, _json_or_string(body_text))
    return _batch(id, custom_id, response, "null" if body_is_error else error)


def _batch(
    id: str, custom_id: str, response: Iterable[str], error: str, additions: Mapping[str, str] = _NOTHING
) -> str:
    # joined once, because the `response` may be long
    head = f'{{"id": {string(id)}, "custom_id": {string(custom_id)}, "response": '
    inserted = [_named(name) + value for name, value in additions.items()]
    return "".join([head, *response, f', "error": {error}', *inserted, "}"])


def _response(status_code: int, request_id: str | None, body: str) -> tuple[str, str, str]:
    request = "null" if request_id is None else string(request_id)
    return f'{{"status_code": {status_code}, "request_id": {request}, "body": ', one_line(body).strip(), "}"


def _json_or_string(body: str | None) -> str:
    if body is None:
        return "null"
    try:
        parse(body)
    except RefusedRowError:  # a proxy's HTML
        return string(body)
    return body


@lru_cache(maxsize=256)
def _named(name: str) -> str:
    return f",{string(name)}:"
