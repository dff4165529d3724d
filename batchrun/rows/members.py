"""Output lines: a row's own text with new members in it, and the lines of OpenAI's Batch files.

The text of a row is never written anew: members are inserted before its last brace, so that numbers, order, spelling
and blanks survive to the byte.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from batchrun.models import Invalid, Row, made
from batchrun.rows.check import RESERVED, RefusedRowError, encode, one_line, parse, string


def insert_members(text: str, additions: Mapping[str, str]) -> str:
    """The object `text` with members added at its end; `additions` maps names to JSON texts."""
    end = len(text) - 1 if text[-1] == "}" else text.rindex("}")
    inserted = "".join([_named(name) + value for name, value in additions.items()])
    if text[end - 1] in "{ \t\r\n" and text[:end].rstrip(" \t\r\n").endswith("{"):
        inserted = inserted[1:]
    return f"{text[:end]}{inserted}{text[end:]}"


def clash(columns: Iterable[str], new_names: Iterable[str]) -> tuple[str, ...]:
    """The new names that the input has already as columns, in their order."""
    taken = frozenset(columns)
    return tuple(name for name in new_names if name in taken)


def error_text(text: str, reason: Mapping[str, Any]) -> str:
    """A line of the errors file: the row plus the key `_batchrun`, which readers take off again."""
    return insert_members(text, {RESERVED: encode(dict(reason))})


def note_text(invalid: Invalid, reason: Mapping[str, Any]) -> str:
    """A line of the errors file for a record that was no row; readers pass over it like over a blank line."""
    return encode({RESERVED: {**reason, "line": invalid.line, "message": invalid.reason, "text": invalid.text}})


def line_text(line: str) -> str:
    """A line that is no row, as JSON: what the journal keeps of it."""
    return string(line)


def restore(line: int, key: str | None, text: str) -> Row:
    """The row of a text that has been read before, as the journal keeps it. Raises ValueError if it is none."""
    encoded = text.encode()
    try:
        return made(Row, (line, key, text, parse(text, None, encoded), None, encoded))
    except RefusedRowError as error:
        raise ValueError(str(error)) from error


def batch_line(id: str, custom_id: str, status_code: int, request_id: str | None, body_text: str) -> str:
    """A line of OpenAI's Batch output file; `body_text` is the reply's JSON, whose tokens stay as they are.

    Shape: https://platform.openai.com/docs/api-reference/batch/request-output
    """
    return _batch(id, custom_id, _response(status_code, request_id, body_text), "null")


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
    """A line of OpenAI's Batch error file. Without a status there was no answer, and `response` is null.

    Where the answer was an error it says itself why, and `error` is null, as at OpenAI
    (github.com/openai/openai-openapi/issues/302). A body that is not JSON (a proxy's HTML) becomes a string.
    """
    error = f'{{"code": {string(code)}, "message": {string(message)}}}'
    if status_code is None:
        return _batch(id, custom_id, "null", error)
    told = status_code >= 400 and body_text is not None
    response = _response(status_code, request_id, _json_or_string(body_text))
    return _batch(id, custom_id, response, "null" if told else error)


def _batch(id: str, custom_id: str, response: str, error: str) -> str:
    return f'{{"id": {string(id)}, "custom_id": {string(custom_id)}, "response": {response}, "error": {error}}}'


def _response(status_code: int, request_id: str | None, body: str) -> str:
    request = "null" if request_id is None else string(request_id)
    return f'{{"status_code": {status_code}, "request_id": {request}, "body": {one_line(body).strip()}}}'


def _json_or_string(body: str | None) -> str:
    if body is None:
        return "null"
    try:
        parse(body)
    except RefusedRowError:
        return string(body)
    return body


@lru_cache(maxsize=256)
def _named(name: str) -> str:
    return f",{string(name)}:"
