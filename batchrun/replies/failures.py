"""Error bodies in the dialects of providers, gateways and proxies.

OpenAI, Azure and OpenRouter wrap an object in `error`; Anthropic puts a second `type` around it; Gemini wraps the whole
in a list and calls the type `status`; Ollama has a string in `error`; Mistral and Cohere have no wrapper; FastAPI
(vLLM, LiteLLM) has `detail`, a text or a list of errors. Proxies answer in HTML or plain text.
"""

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import orjson

from batchrun.replies.json_text import is_array, is_object, is_stream, unwrapped

LONGEST_MESSAGE = 2048  # characters of a message that are kept

# Larger ones are not error bodies but accidents; parsing them would hold up the loop.
_LARGEST_JSON = 1024 * 1024
_LARGEST_TEXT = 64 * 1024


# Members of an error body, at any depth, that add to its message and are never the user's own text.
_INFORMATIVE = frozenset({"quotaId", "reason", "error_type", "estimated_time", "retryDelay", "raw"})
_DEEPEST = 6


class ErrorInfo(NamedTuple):
    type: str  # as the server spells it, or ""
    code: str  # the same
    message: str
    details: str = ""  # other known members
    param: str = ""  # the parameter it is about


def error_of(status: int, headers: Mapping[str, str], body: bytes | str) -> ErrorInfo:
    """An unknown body is its own message."""
    data = _object(body)
    info = _from_object(data) if data is not None else ErrorInfo("", "", _from_text(headers, body))
    details = "" if data is None else "\n".join(_details(data))
    words = info.type, info.code, info.message.strip() or _in_words(status), details, info.param
    return ErrorInfo(*(word[:LONGEST_MESSAGE] for word in words))


def error_within(body: bytes | str) -> int | None:
    """The status of an error inside a 200: its own code, else 0.

    A gateway (OpenRouter, LiteLLM) may answer 200 before its provider fails; MiniMax always does (`base_resp`); old
    vLLM has `object: "error"`.
    """
    data = _object(body)
    if data is None:
        return None
    inner = _inner(data)
    worded = any(data.get(name) for name in ("message", "msg", "detail"))
    coded = any(data.get(name) not in (None, "", 0) for name in ("code", "status", "error_code", "type"))
    if not inner and data.get("object") != "error" and not (worded and coded and "choices" not in data):
        return None
    fields = [found for found in (inner, data) if is_object(found)]
    codes = (fields_of.get(name) for fields_of in fields for name in ("code", "status", "status_code", "statusCode"))
    return next((status for code in codes if (status := _status(code))), 0)


def _inner(data: dict[str, Any]) -> Any:
    # `error`, also of the first choice (OpenRouter); MiniMax's `base_resp`
    choices, base = data.get("choices"), data.get("base_resp")
    if is_object(base) and base.get("status_code"):
        return data.get("error") or base
    first = choices[0] if is_array(choices) and choices else None
    return data.get("error") or (first.get("error") if is_object(first) else None)


def _status(code: Any) -> int | None:
    number = int(code) if isinstance(code, str) and code.isascii() and code.isdecimal() and len(code) == 3 else code
    return number if type(number) is int and 400 <= number <= 599 else None


def _object(body: bytes | str) -> dict[str, Any] | None:
    # A stream of events may hold it; Gemini wraps errors in a list.
    if len(body) > _LARGEST_JSON:
        return None
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        data = unwrapped(body) if is_stream(body) else None
    if is_array(data) and data:
        data = data[0]
    return data if is_object(data) else None


def _from_object(data: dict[str, Any]) -> ErrorInfo:
    inner = _inner(data)
    errors = data.get("errors")
    if not inner and is_array(errors) and errors:
        inner = errors[0]
    if is_object(inner):
        return _from_fields(inner)
    if inner:
        return ErrorInfo(_word(data, "type"), _word(data, "code"), _sentence(inner))
    return _from_fields(data)


def _from_fields(fields: dict[str, Any]) -> ErrorInfo:
    inner = fields.get("error")
    if is_object(inner) and "message" not in fields:
        fields = inner
    message = next((fields[name] for name in ("message", "detail", "msg", "status_msg") if fields.get(name)), None)
    if is_object(message) and message.get("detail"):  # Mistral: FastAPI's error of a request, inside `message`
        message = message["detail"]
    return ErrorInfo(
        _word(fields, "type") or _word(fields, "status"),
        _word(fields, "code") or _word(fields, "error_code") or _word(fields, "status_code"),
        _sentence(fields if message is None else message),
        param=_word(fields, "param") or _place(message),
    )


def _place(message: Any) -> str:
    # the last name of a FastAPI error's `loc`
    first = message[0] if is_array(message) and message else None
    where = first.get("loc") if is_object(first) else None
    names = [step for step in where if isinstance(step, str)] if is_array(where) else []
    return names[-1] if len(names) > 1 else ""


def _details(value: Any, depth: int = 0) -> Iterator[str]:
    if depth > _DEEPEST:
        return
    if is_array(value):
        for item in value[:20]:
            yield from _details(item, depth + 1)
    elif is_object(value):
        for name, item in value.items():
            if name in _INFORMATIVE and isinstance(item, str | int | float):
                yield f"{name} {item}"
            else:
                yield from _details(item, depth + 1)


def _word(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _sentence(value: Any) -> str:
    if isinstance(value, str):
        return value
    if is_array(value) and value and all(is_object(item) and "msg" in item for item in value):
        return "; ".join(_complaint(item) for item in value)
    return orjson.dumps(value).decode() if value else ""


def _complaint(item: dict[str, Any]) -> str:
    where = item.get("loc")
    place = ".".join(str(step) for step in where) if is_array(where) else ""
    return f"{place}: {_sentence(item['msg'])}" if place else _sentence(item["msg"])


_TITLE = re.compile(r"<(title|h1)\b[^>]*>([^<]{1,500})", re.IGNORECASE)


def _from_text(headers: Mapping[str, str], body: bytes | str) -> str:
    start = body[:_LARGEST_TEXT]
    text = start.decode("utf-8", "replace") if isinstance(start, bytes) else start
    if "html" in headers.get("content-type", "") or text.lstrip().startswith("<"):
        import html  # noqa: PLC0415  its table of entities: only a page pays for it

        found = _TITLE.search(text)  # the title of a proxy's page is enough
        return " ".join(html.unescape(found[2]).split()) if found else "an HTML page without a title"
    return text


def _in_words(status: int) -> str:
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"
