"""JSON as servers send it: its types, and bodies that are not one plain JSON object.

An event stream that was not requested (https://html.spec.whatwg.org/multipage/server-sent-events.html); comments or
blank lines before the object; `data: [DONE]` after it; a byte order mark; half of a surrogate pair; NaN and Infinity.
Such a body is paid for, so it is not requested again.
"""

import json
import re
from typing import Any, NamedTuple, TypeGuard

import orjson

Json = dict[str, Any] | list[Any] | str | float | None  # a float may be an integer or a Boolean
_LINES = re.compile(r"\r\n|\n|\r")
_FIELD = re.compile(r"(?:data|event|id|retry)(?::|$)|:")
_BLANK = "\ufeff\0 \t\r\n"
_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")
_ENDS = ("response.completed", "response.incomplete", "response.failed")
_LONE = re.compile("[\ud800-\udfff]")
_SIGNS = ("\\ud", "\\uD", "NaN", "Infinity")
# one of each sign, for bodies from `_LONG` on: finding it takes a hundredth of the time
_CHARACTERS = ("\\", "N", "I")
_LONG = 4_000


def is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    return type(value) is dict


def is_array(value: Any) -> TypeGuard[list[Any]]:
    return type(value) is list


def is_stream(body: bytes | str) -> bool:
    start = body[:512].strip() if isinstance(body, str) else body[:512].decode("utf-8", "replace").strip()
    return _FIELD.match(start.lstrip(_BLANK)) is not None or "[DONE]" in str(body[-64:])


def unwrapped(body: bytes | str) -> dict[str, Any] | None:
    """None if its end is missing."""
    try:
        text = body if isinstance(body, str) else body.decode()
    except UnicodeDecodeError:
        return None
    plain: list[str] = []
    events: list[Any] = []
    done, data = False, ""
    for line in _LINES.split(text.lstrip(_BLANK)):
        if not line.startswith("data:"):
            if not _FIELD.match(line):
                plain.append(line)
            data = data if line else ""
            continue
        data += line[5:].strip()
        if data == "[DONE]":
            done, data = True, ""
        elif (event := _parsed(data)) is not None:
            events.append(event)
            data = ""
    if whole := "\n".join(plain).strip(_BLANK).removesuffix("[DONE]"):
        found = _parsed(whole)
        return found if is_object(found) and not events else None
    return _put_together([event for event in events if is_object(event)], done=done)


def _parsed(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _put_together(events: list[dict[str, Any]], *, done: bool) -> dict[str, Any] | None:
    for event in events:
        if event.get("error") or event.get("object") == "error" or event.get("type") == "error":
            return event
    last = next((event for event in reversed(events) if event.get("type") in _ENDS), None)
    if last is not None:
        return _response(last.get("response"), events)
    if len(events) == 1 and not _is_piece(events[0]):
        return events[0]
    return _chat(events, done=done) if events else None


def _is_piece(event: dict[str, Any]) -> bool:
    choices = event.get("choices")
    return is_array(choices) and any(is_object(choice) and "delta" in choice for choice in choices)


def _response(response: Any, events: list[dict[str, Any]]) -> dict[str, Any] | None:
    # of the last event, with the text of the pieces if it has none
    if not is_object(response):
        return None
    text = "".join(
        event["delta"]
        for event in events
        if event.get("type") == "response.output_text.delta" and type(event.get("delta")) is str
    )
    if response.get("output") or not text:
        return response
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    return {**response, "output": [message]}


def _chat(events: list[dict[str, Any]], *, done: bool) -> dict[str, Any] | None:
    # chunks joined by choice; None if one has no end
    body: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for event in events:
        pieces = event.get("choices")
        for piece in pieces if is_array(pieces) else ():
            if is_object(piece):
                place = piece.get("index", 0)
                _add(choices.setdefault(place if type(place) is int else 0, {"index": place}), piece)
        body |= {name: value for name, value in event.items() if name != "choices" and value is not None}
    if not choices or not (done or all(choice.get("finish_reason") for choice in choices.values())):
        return None
    if body.get("object") == "chat.completion.chunk":
        body["object"] = "chat.completion"
    return {**body, "choices": [choices[place] for place in sorted(choices)]}


def _add(choice: dict[str, Any], piece: dict[str, Any]) -> None:
    if piece.get("finish_reason"):
        choice["finish_reason"] = piece["finish_reason"]
    if type(piece.get("text")) is str:
        choice["text"] = choice.get("text", "") + piece["text"]
    delta = piece.get("delta") or piece.get("message")
    if not is_object(delta):
        return
    message = choice.setdefault("message", {"role": "assistant", "content": None})
    for name in _TEXTS:
        if type(delta.get(name)) is str:
            message[name] = (message.get(name) or "") + delta[name]
    calls = delta.get("tool_calls")
    for call in calls if is_array(calls) else ():
        if is_object(call):
            _add_call(message.setdefault("tool_calls", []), call)


def _add_call(calls: list[dict[str, Any]], piece: dict[str, Any]) -> None:
    # Names come whole, arguments in pieces.
    place = piece.get("index")
    place = place if type(place) is int and 0 <= place <= len(calls) else len(calls)
    function = piece.get("function")
    function = function if is_object(function) else {}
    if place == len(calls):
        calls.append({"id": piece.get("id"), "type": "function", "function": {"name": "", "arguments": ""}})
    whole = calls[place]["function"]
    for name in ("name", "arguments"):
        if type(function.get(name)) is str:
            whole[name] += function[name]


class Repaired(NamedTuple):
    text: str  # with U+FFFD for each half of a surrogate pair
    data: Any
    numbers: bool  # NaN or Infinity became null


def repaired(body: bytes | str) -> Repaired | None:
    """None if it cannot be read safely."""
    numbers: list[str] = []
    try:
        text = body if isinstance(body, str) else body.decode()
        data = json.loads(text.removeprefix("\ufeff"), parse_constant=numbers.append)
        spelled = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        spelled = _LONE.sub("\ufffd", spelled)
        return Repaired(spelled, orjson.loads(spelled), bool(numbers))
    except (ValueError, RecursionError):
        return None


def valid(body: str) -> str:
    """Unchanged if it is valid, or no JSON."""
    signs = _SIGNS if len(body) < _LONG else _CHARACTERS
    if body[:1] == "{" and body[-1:] == "}" and not any(sign in body for sign in signs):
        return body
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        found = repaired(body)
        if found is not None:
            return found.text
        held = unwrapped(body)
        return body if held is None else orjson.dumps(held).decode()
    return body
