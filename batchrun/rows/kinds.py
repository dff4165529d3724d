"""The kind and the ids of an input's records, decided by the first valid one."""

from dataclasses import dataclass, replace
from typing import Any, cast

from batchrun.display import printable
from batchrun.errors import InputError
from batchrun.models import Endpoint, Invalid, Kind, Row, made
from batchrun.rows.check import RESERVED, Record, RefusedRowError, Remarks, invalid, without_reserved

AUTOMATIC = ("custom_id", "id")
NO_COLUMN = "none"
_ROWS, _BATCH, _BODIES = Kind.ROWS, Kind.BATCH, Kind.BODIES  # reading an enum's attribute costs ten times as much
_DESCRIPTIONS = {
    _ROWS: "a row for a prompt",
    _BATCH: "an OpenAI Batch request",
    _BODIES: "a bare request body",
}
_RESULT = "an OpenAI Batch result, not a request"
_ANSWERED = "the last message is the assistant's: it is sent with the request"
_URLS = frozenset(endpoint.value for endpoint in Endpoint)
_CHAT = Endpoint.CHAT.value


class Mixed(Invalid):
    """Refused even with `--skip-invalid`."""

    __slots__ = ()


class _MixedError(RefusedRowError):
    pass


@dataclass(frozen=True, slots=True)
class Identity:
    kind: Kind
    id_column: str | None  # None: identified by content
    line: int
    has_prompt: bool
    json: bool
    remarks: Remarks | None = None

    def noting(self, remarks: Remarks) -> "Identity":
        return replace(self, remarks=remarks)

    def row(self, record: Record) -> Row | Invalid | None:
        """None for an errors file's note."""
        if len(record) == 4:
            line, text, fields, encoded = record
        else:
            (line, text, fields), encoded = record, None
        if RESERVED in fields:
            if is_note(fields):
                return None
            (text, fields), encoded = stripped(text, fields), None
        try:
            # A row for a prompt can only be of another kind if it has a `body`.
            if self.kind is not _ROWS or not self.has_prompt or "body" in fields:
                self._refuse_other(line, fields)
            column = self.id_column
            return made(Row, (line, None if column is None else _key(fields, column), text, fields, None, encoded))
        except _MixedError as error:
            return Mixed(line, text, str(error))
        except RefusedRowError as error:
            return invalid(line, text, str(error))

    def _refuse_other(self, line: int, fields: dict[str, Any]) -> None:
        kind = self.kind
        if (found := kind_of(fields, has_prompt=self.has_prompt, json=self.json)) is not kind:
            raise _MixedError(f"{_DESCRIPTIONS[found]}, but line {self.line} is {_DESCRIPTIONS[kind]}")
        if kind is _BATCH:
            _refuse_request(fields)
        elif kind is _ROWS and not self.has_prompt and _is_result(fields):
            raise RefusedRowError(_RESULT)
        elif kind is _BODIES and self.remarks is not None and _is_answered(fields):
            self.remarks.add(_ANSWERED, line - self.remarks.offset)


def identity_of(record: Record, id_column: str | None, *, has_prompt: bool, json: bool) -> Identity:
    """Raises InputError for a Batch result."""
    line, _, fields, *_ = record
    if not has_prompt and _is_result(fields):
        raise InputError(
            f"Line {line} is {_RESULT}.",
            "Use the file of the requests as the input; `batchrun resume RUN --failed` sends failed rows of a run again.",
        )
    kind = kind_of(fields, has_prompt=has_prompt, json=json)
    if id_column is None:
        column = next((name for name in AUTOMATIC if name in fields), None)
    else:
        column = None if id_column == NO_COLUMN else id_column
    return Identity(kind, column, line, has_prompt, json)


def kind_of(fields: dict[str, Any], *, has_prompt: bool, json: bool) -> Kind:
    """A table has no request bodies."""
    if not json:
        return _ROWS
    # A `body` that is text and stands alone is an ordinary column, of letters for instance.
    if (
        "body" in fields
        and "custom_id" in fields
        and (type(fields["body"]) is dict or "url" in fields or "method" in fields)
    ):
        return _BATCH
    if not has_prompt and ("messages" in fields or "input" in fields):
        return _BODIES
    return _ROWS


def is_note(fields: dict[str, Any]) -> bool:
    """An errors file's note of an invalid line."""
    reserved = fields[RESERVED]
    return len(fields) == 1 and isinstance(reserved, dict) and "text" in reserved


def stripped(text: str, fields: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return without_reserved(text), {name: value for name, value in fields.items() if name != RESERVED}


def _key(fields: dict[str, Any], column: str) -> str:
    value = fields.get(column)
    if type(value) is str and value:
        return value
    if type(value) is int:
        return str(value)
    shown = printable(column, 60)
    if value is None or value == "":
        raise RefusedRowError(f'the id column "{shown}" is {"empty" if column in fields else "missing"}')
    raise RefusedRowError(
        f'the id in column "{shown}" is {_shown(value)}, not text or a whole number; '
        "--id-column none identifies rows by their content"
    )


def _refuse_request(fields: dict[str, Any]) -> None:
    # A missing method or url means POST to chat completions.
    if type(fields["body"]) is not dict:
        raise RefusedRowError('the "body" of the request is not an object')
    method, url = fields.get("method", "POST"), fields.get("url", _CHAT)
    if method != "POST":
        raise RefusedRowError(f"the method is {_shown(method)}, but only POST is supported")
    if not isinstance(url, str) or url not in _URLS:
        raise RefusedRowError(f"the url is {_shown(url)}, but it must be one of {', '.join(sorted(_URLS))}")


def _is_result(fields: dict[str, Any]) -> bool:
    return "custom_id" in fields and "response" in fields and "error" in fields


def _is_answered(fields: dict[str, Any]) -> bool:
    messages = fields.get("messages")
    last = cast("list[Any]", messages)[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, dict) and cast("dict[str, Any]", last).get("role") == "assistant"


def pandas_orient(fields: dict[str, Any]) -> str | None:
    """The orient of a pandas table (DataFrame.to_json)."""
    if fields.keys() >= {"columns", "data"} and fields.keys() <= {"columns", "index", "data"}:
        return "split"
    inner = [cast("dict[str, Any]", value) for value in fields.values() if isinstance(value, dict)]
    if not inner or len(inner) < len(fields):
        return None
    names = list(inner[0])
    if not names or any(list(value) != names for value in inner):
        return None
    if all(name.isdecimal() for name in names):
        return "columns"
    return "index" if all(name.isdecimal() for name in fields) else None


def list_in(fields: dict[str, Any]) -> str | None:
    """The path of a list of objects."""

    def lists(of: dict[str, Any]) -> list[str]:
        filled = [(name, cast("list[Any]", value)) for name, value in of.items() if isinstance(value, list) and value]
        return [name for name, value in filled if isinstance(value[0], dict)]

    objects = {name: cast("dict[str, Any]", value) for name, value in fields.items() if isinstance(value, dict)}
    below = [f"{name}.{inner}" for name, value in objects.items() for inner in lists(value)]
    found = lists(fields) or below
    return found[0] if found else None


def _shown(value: object) -> str:
    return printable(value, 60) if isinstance(value, str) else printable(repr(value), 60)
