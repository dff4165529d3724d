"""Reading the body of a 200, a reader per endpoint.

A reply has an answer in it: text, tool calls, a refusal, vectors. Everything else is a `Defect`, however well-formed,
except that a reply which the token limit or a content filter left empty is a reply all the same: it was paid for, and
asking again would bring the same. Shapes: https://platform.openai.com/docs/api-reference
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from batchrun.models import Defect, Endpoint, Flag, Reply
from batchrun.replies.mended import mended
from batchrun.replies.shapes import is_array, is_object
from batchrun.replies.usage import usage_of

_NO_FLAGS: frozenset[Flag] = frozenset()
_REFUSED = frozenset({Flag.REFUSED})
_FLAGS_OF_FINISH: dict[str | None, frozenset[Flag]] = {
    "length": frozenset({Flag.TRUNCATED}),
    "max_tokens": frozenset({Flag.TRUNCATED}),
    "max_output_tokens": frozenset({Flag.TRUNCATED}),
    "content_filter": frozenset({Flag.FILTERED}),
}
_LONGEST_QUOTE = 200

EMPTY = "empty answer"
HTML = "HTML, not JSON"


class _Said(NamedTuple):
    """What one choice or the whole of an output says; a plain str in its place is the reason why it is none."""

    value: Any
    text: str | None
    finish: str | None
    flags: frozenset[Flag]


def read(endpoint: Endpoint, body: bytes | str) -> Reply | Defect:
    """What a 200 body says.

    `value` of the Reply is the text; a list of tool calls as the provider spelled them; the refusal; for embeddings
    the vector (or its base64 text), a list of them if there are several; for several choices a list, with None for
    the empty ones among them. `text` is that of the first choice.
    """
    data, said = _understood(endpoint, body)
    usage = usage_of(data)
    if isinstance(said, str):
        return Defect(said, usage)
    value, text, finish, flags = said
    model = data.get("model")
    return Reply(value, text, finish, flags, usage, model if type(model) is str else None)


def value_of(endpoint: Endpoint, body: bytes | str) -> Any:
    """Only the `value` of what `read` makes of the body, None for a Defect: what an export asks of every row."""
    _, said = _understood(endpoint, body)
    return None if isinstance(said, str) else said.value


def _understood(endpoint: Endpoint, body: bytes | str) -> tuple[dict[str, Any], _Said | str]:
    """The object that a body is, an empty one where it is none, and what it says."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return _understood_mended(endpoint, body, _not_json(body, error))
    return _answered(endpoint, data)


def _answered(endpoint: Endpoint, data: Any) -> tuple[dict[str, Any], _Said | str]:
    return (data, _answer(endpoint, data)) if is_object(data) else ({}, f"not an object but {_named(data)}")


def _understood_mended(endpoint: Endpoint, body: bytes | str, otherwise: str) -> tuple[dict[str, Any], _Said | str]:
    """The same for a body that is not quite JSON; numbers that are none may be anywhere but in the answer."""
    found = mended(body)
    if found is None:
        return {}, otherwise
    data, said = _answered(endpoint, found.data)
    if found.numbers and isinstance(said, _Said) and not _is_text(said.value):
        return data, "an answer with a number that JSON does not have"
    return data, said


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (is_array(value) and all(one is None or isinstance(one, str) for one in value))


def _answer(endpoint: Endpoint, data: dict[str, Any]) -> _Said | str:
    error = data.get("error")
    if error is not None and error != {}:
        return f"an error in place of an answer: {_quote(error)}"
    return _READERS[endpoint](data)


def _not_json(body: bytes | str, error: orjson.JSONDecodeError) -> str:
    start = body[:512].lstrip()
    start = start.decode("utf-8", "replace") if isinstance(start, bytes) else start
    if not start:
        return "an empty body"
    if start.startswith("<"):
        return HTML
    if start.startswith(("data:", "event:")):
        return "a stream of events: the request asks for `stream`"
    return f"not JSON: {error.msg}"[:_LONGEST_QUOTE]


def _named(data: Any) -> str:
    return "null" if data is None else f"a JSON {type(data).__name__}"


def _quote(error: Any) -> str:
    message = error.get("message", error) if is_object(error) else error
    text = message if type(message) is str else orjson.dumps(message).decode()
    return text[:_LONGEST_QUOTE]


def _choices(data: dict[str, Any], read_one: Callable[[dict[str, Any]], _Said | str]) -> _Said | str:
    choices = data.get("choices")
    if not is_array(choices) or not choices:
        return "no choices"
    if len(choices) == 1:
        return read_one(choices[0]) if is_object(choices[0]) else "a choice that is no object"
    return _several([read_one(choice) if is_object(choice) else EMPTY for choice in choices])


def _several(all_said: list[_Said | str]) -> _Said | str:
    good = [said for said in all_said if isinstance(said, _Said)]
    if not good:
        return str(all_said[0])
    flags = _NO_FLAGS.union(*(said.flags for said in good))
    values = [said.value if isinstance(said, _Said) else None for said in all_said]
    return _Said(values, good[0].text, good[0].finish, flags)


def _chat_choice(choice: dict[str, Any]) -> _Said | str:
    message = choice.get("message")
    if not is_object(message):
        return "a choice without a message"
    finish = choice.get("finish_reason")
    if type(finish) is not str:
        finish = None
    if finish == "error":  # OpenRouter, where the provider behind it broke off
        return f"an error in place of an answer: {_quote(choice.get('error'))}"
    flags = _FLAGS_OF_FINISH.get(finish, _NO_FLAGS)
    content = message.get("content")
    calls = message.get("tool_calls") or message.get("function_call")
    refusal = message.get("refusal")
    if type(content) is str and content and not calls and not refusal:
        return _Said(content, content, finish, flags)
    if is_array(content):
        content, refused = _parts(content)
        refusal = refusal or refused
    return _said(content if type(content) is str else None, calls, refusal, finish, flags)


def _said(text: str | None, calls: Any, refusal: Any, finish: str | None, flags: frozenset[Flag]) -> _Said | str:
    """The answer among the three that a message may hold; an empty text stands for itself, a missing one does not."""
    if calls and (is_array(calls) or is_object(calls)):
        return _Said(calls if is_array(calls) else [calls], text, finish, flags)
    if type(refusal) is str and refusal:
        return _Said(refusal, refusal, finish, flags | _REFUSED)
    if text is not None or flags:
        return _Said(text or "", text or "", finish, flags)
    return EMPTY


def _parts(content: list[Any]) -> tuple[str | None, str | None]:
    """Text and refusal of a content given in parts."""
    texts: list[str] = []
    refusals: list[str] = []
    for part in content:
        if not is_object(part):
            continue
        if type(text := part.get("text")) is str and part.get("type") in _TEXT_PARTS:
            texts.append(text)
        elif type(refusal := part.get("refusal")) is str:
            refusals.append(refusal)
    return "".join(texts) if texts else None, "".join(refusals) or None


_TEXT_PARTS = ("text", "output_text", None)


def _completion_choice(choice: dict[str, Any]) -> _Said | str:
    text, finish = choice.get("text"), choice.get("finish_reason")
    finish = finish if type(finish) is str else None
    return _said(text if type(text) is str else None, None, None, finish, _FLAGS_OF_FINISH.get(finish, _NO_FLAGS))


def _chat(data: dict[str, Any]) -> _Said | str:
    return _choices(data, _chat_choice)


def _completions(data: dict[str, Any]) -> _Said | str:
    return _choices(data, _completion_choice)


def _responses(data: dict[str, Any]) -> _Said | str:
    status = data.get("status")
    if status in _UNFINISHED:
        return f"no answer yet: status {status}"
    output = data.get("output")
    if not is_array(output):
        return "no output"
    finish = _incomplete(data.get("incomplete_details")) or (status if type(status) is str else None)
    items = [item for item in output if is_object(item)]
    contents = [part for item in items if item.get("type") == "message" for part in _array(item.get("content"))]
    calls = [item for item in items if item.get("type") in _CALLS]
    text, refusal = _parts(contents)
    return _said(text, calls, refusal, finish, _FLAGS_OF_FINISH.get(finish, _NO_FLAGS))


# Tuples, because what a server puts in their place need not be hashable.
_UNFINISHED = ("failed", "cancelled", "queued", "in_progress")
_CALLS = ("function_call", "custom_tool_call")


def _array(value: Any) -> list[Any]:
    return value if is_array(value) else []


def _incomplete(details: Any) -> str | None:
    reason = details.get("reason") if is_object(details) else None
    return reason if type(reason) is str else None


def _embeddings(data: dict[str, Any]) -> _Said | str:
    items = data.get("data")
    if not is_array(items) or not items:
        return "no embeddings"
    vectors = [item.get("embedding") if is_object(item) else None for item in items]
    if not all(_is_vector(vector) for vector in vectors):
        return "an empty embedding"
    if len(vectors) == 1:
        return _Said(vectors[0], None, None, _NO_FLAGS)
    places = [item.get("index") for item in items]
    if sorted(place for place in places if type(place) is int) == list(range(len(items))):
        vectors = [vector for _, vector in sorted(zip(places, vectors, strict=True), key=lambda pair: pair[0])]
    return _Said(vectors, None, None, _NO_FLAGS)


def _is_vector(vector: Any) -> bool:
    return bool(vector) and (type(vector) is str or is_array(vector))


_READERS: dict[Endpoint, Callable[[dict[str, Any]], _Said | str]] = {
    Endpoint.CHAT: _chat,
    Endpoint.RESPONSES: _responses,
    Endpoint.EMBEDDINGS: _embeddings,
    Endpoint.COMPLETIONS: _completions,
}
