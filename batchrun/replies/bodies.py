"""Reading the body of a 200, a reader per endpoint.

A message without any answer is flagged `empty`, as it was paid for; all else is a `Defect`. Shapes:
https://platform.openai.com/docs/api-reference
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import orjson

from batchrun import extraction
from batchrun.extraction import THINKING_ENDS, THINKING_STARTS
from batchrun.models import Defect, Endpoint, Flag, Reply, made
from batchrun.providers import table
from batchrun.replies.json_text import Json, is_array, is_object, is_stream, repaired, unwrapped
from batchrun.replies.usage import usage_of

_NO_FLAGS: frozenset[Flag] = frozenset()
_MEANINGS: dict[str, frozenset[Flag] | None] = {
    "whole": _NO_FLAGS,
    "cut": frozenset({Flag.TRUNCATED}),
    "filtered": frozenset({Flag.FILTERED}),
    "refused": frozenset({Flag.REFUSED}),
    "broken": None,
}
_ODD = frozenset({Flag.ODD})

# by finish reason, as `providers/finish.toml` spells it; None if the reply broke off
FLAGS: dict[str | None, frozenset[Flag] | None] = {
    None: _NO_FLAGS,
    **{word: _MEANINGS[meaning] for meaning, words in table("finish").items() for word in words},
}


def flags_of(word: str | None) -> frozenset[Flag] | None:
    """In any spelling; `odd` for an unknown one."""
    if word in FLAGS:
        return FLAGS[word]
    plain = str(word).partition(":")[0].strip().lower().replace("-", "_").replace(" ", "_")
    return FLAGS.get(plain or None, _ODD)


_REFUSED = frozenset({Flag.REFUSED})
_EMPTY = frozenset({Flag.EMPTY})
_LONGEST_QUOTE = 200

HTML = "HTML, not JSON"
ERROR = "an error in place of an answer"
NO_NUMBERS = "an embedding that is no list of numbers"


class _Answer(NamedTuple):
    # a str in its place is why there is none

    value: Any
    text: str | None
    finish: str | None
    flags: frozenset[Flag]
    thinking: str | None = None


class _Unreadable(str):
    # of a body of an unknown format

    __slots__ = ()


def read(
    endpoint: Endpoint, body: bytes | str, limit: int | None = None, inputs: int = 1, data: Any = None
) -> Reply | Defect:
    """`limit`: of output tokens; `inputs`: number of inputs; `data`: the parsed body if known.

    `value` of the Reply is the text; the list of tool calls; the refusal; a vector (or its base64 text), or a list of
    them; for several choices a list, with None for empty ones. `text` is that of the first choice.
    """
    data, answer = _content(endpoint, body, data)
    usage = usage_of(data, inputs)
    if isinstance(answer, str):
        return Defect(answer, usage, isinstance(answer, _Unreadable))
    value, text, finish, flags, thinking = answer
    if limit and usage is not None and usage.output >= limit and finish in _UNTRUSTED_FINISHES:
        flags = flags - _EMPTY | {Flag.TRUNCATED}
    model = data.get("model")
    return made(Reply, (value, text, finish, flags, usage, model if type(model) is str else None, thinking))


# The token count decides: the responses endpoint of llama.cpp and transformers reports `completed` for a cut reply.
_UNTRUSTED_FINISHES = (None, "completed")


def value_of(endpoint: Endpoint, body: bytes | str, *, keep_thinking: bool = False) -> Any:
    """None for a Defect. `keep_thinking` puts it between `<think>` and `</think>` before the text."""
    data, answer = _content(endpoint, body)
    if isinstance(answer, str):
        return None
    if keep_thinking and type(answer.value) is str and (thinking := _thinking(data)):
        return f"<think>\n{thinking}\n</think>\n\n{answer.value}"
    return answer.value


def thinking_of(body: bytes | str) -> str | None:
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        data = unwrapped(body)
    return _thinking(data) if is_object(data) else None


def _content(endpoint: Endpoint, body: bytes | str, data: Json = None) -> tuple[dict[str, Any], _Answer | str]:
    # the body as an object ({} if it is none), and its content
    if data is None:
        try:
            data = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            return _repaired_content(endpoint, body, error)
    if type(data) is not dict:
        return {}, f"not an object but {'null' if data is None else f'a JSON {type(data).__name__}'}"
    error = data.get("error")
    if error is not None and error != {}:
        return data, f"{ERROR}: {_quote(error)}"
    return data, _READERS[endpoint](data)


def _repaired_content(
    endpoint: Endpoint, body: bytes | str, error: orjson.JSONDecodeError
) -> tuple[dict[str, Any], _Answer | str]:
    # The body is not quite JSON; NaN may be anywhere but in the answer.
    found = repaired(body)
    if found is None:
        data = unwrapped(body)
        return _content(endpoint, body, data) if data is not None else ({}, _not_json(body, error))
    data, answer = _content(endpoint, found.text, found.data)
    if found.numbers and (answer == NO_NUMBERS or (isinstance(answer, _Answer) and not _is_text(answer.value))):
        return data, "an answer with a number that JSON does not have"
    return data, answer


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (is_array(value) and all(one is None or isinstance(one, str) for one in value))


def _not_json(body: bytes | str, error: orjson.JSONDecodeError) -> str:
    start = body[:512].lstrip()
    start = start.decode("utf-8", "replace") if isinstance(start, bytes) else start
    if not start.strip("\ufeff\0"):
        return "an empty body"
    if start.startswith("<"):
        return HTML
    if is_stream(body):
        ended = "[DONE]" in str(body[-64:])
        return _Unreadable("a stream of events that is no reply") if ended else "a stream of events without its end"
    reason = f"not JSON: {error.msg}"[:_LONGEST_QUOTE]
    return reason if start.startswith("{") else _Unreadable(reason)


def _quote(error: Any) -> str:
    message = error.get("message", error) if is_object(error) else error
    text = message if type(message) is str else orjson.dumps(message).decode()
    return text[:_LONGEST_QUOTE]


def _choices(read_one: Callable[[dict[str, Any]], _Answer | str], data: dict[str, Any]) -> _Answer | str:
    choices = data.get("choices")
    if not is_array(choices) or not choices:
        return "no choices"
    if len(choices) == 1:
        return read_one(choices[0]) if is_object(choices[0]) else "a choice that is no object"
    return _several([read_one(choice) if is_object(choice) else "a choice that is no object" for choice in choices])


def _several(answers: list[_Answer | str]) -> _Answer | str:
    # The whole is empty only if all values are.
    replied = [answer for answer in answers if isinstance(answer, _Answer)]
    good = [answer for answer in replied if Flag.EMPTY not in answer.flags]
    if not good:
        return replied[0] if replied else str(answers[0])
    flags = _NO_FLAGS.union(*(answer.flags for answer in good))
    values = [None if isinstance(answer, str) or Flag.EMPTY in answer.flags else answer.value for answer in answers]
    return _Answer(values, good[0].text, good[0].finish, flags)


def _chat(data: dict[str, Any]) -> _Answer | str:
    # Nearly every reply has one choice with only a text; any other is read member by member. There are no tests of
    # kind: of what JSON has, only an object can be looked up by a name.
    try:
        (choice,) = data["choices"]
        message, finish = choice["message"], choice["finish_reason"]
        content, flags = message["content"], FLAGS[finish]
    except (LookupError, TypeError, ValueError):
        return _choices(_chat_choice, data)
    if (
        type(content) is not str
        or not content
        or content.isspace()
        or flags is None
        or message.get("tool_calls")
        or message.get("function_call")
        or message.get("refusal")
        or content.startswith(THINKING_STARTS)
        or (">" in content and THINKING_ENDS in content)
    ):
        return _choices(_chat_choice, data)
    return made(_Answer, (content, content, finish, flags, None))


def _chat_choice(choice: dict[str, Any]) -> _Answer | str:
    message = choice.get("message")
    finish = choice.get("finish_reason")
    if type(finish) is not str:
        finish = None
    flags = flags_of(finish)
    if flags is None:
        return _broken_off(choice, finish)
    if not is_object(message):
        held_back = "text" not in choice and flags & {Flag.FILTERED, Flag.REFUSED}
        return _Answer("", "", finish, flags) if held_back else "a choice without a message"
    content = message.get("content")
    calls = message.get("tool_calls") or message.get("function_call")
    refusal = message.get("refusal")
    if is_array(content):
        content, refused = _parts(content)
        refusal = refusal or refused
    if is_object(content) or is_array(content):
        return _Answer(content, orjson.dumps(content).decode(), finish, flags)
    return _answer_of(
        content if type(content) is str else None, calls, refusal, finish=finish, flags=flags, message=message
    )


def _broken_off(choice: dict[str, Any], finish: str | None) -> str:
    error = choice.get("error")
    return f"{ERROR}: {_quote(error)}" if error else f"the reply broke off: {finish}"


def _answer_of(  # noqa: PLR0913  what a message may hold, each by name
    text: str | None, calls: Any, refusal: Any, *, finish: str | None, flags: frozenset[Flag], message: dict[str, Any]
) -> _Answer:
    # the text follows the thinking
    thinking, answer, closed = extraction.split(text or "")
    blank = not answer.strip()
    if calls and (is_array(calls) or is_object(calls)):
        return _Answer(calls if is_array(calls) else [calls], None if text is None else answer, finish, flags)
    if type(refusal) is str and refusal:
        return _Answer(refusal, refusal, finish, flags | _REFUSED)
    if blank and not flags & {Flag.TRUNCATED, Flag.FILTERED, Flag.REFUSED}:
        where = next((name for name in _THINKING if message.get(name)), None)
        if where is None and not closed:
            where = "a thinking block without its end"
        return _Answer("", "", finish, flags | _EMPTY, where or ("a thinking block" if thinking else None))
    return _Answer(answer, answer, finish, flags)


# DeepSeek and vLLM; OpenRouter and vLLM from 0.16; Ollama; OpenRouter (structured)
_THINKING = ("reasoning_content", "reasoning", "thinking", "reasoning_details")


def _parts(content: list[Any]) -> tuple[Any, str | None]:
    # text and refusal; a JSON value itself
    texts: list[str] = []
    refusals: list[str] = []
    known = not content
    for part in content:
        if isinstance(part, str):
            known = True
            texts.append(part)
        if not is_object(part):
            continue
        known = known or "type" in part or "text" in part
        if type(text := part.get("text")) is str and part.get("type") in _TEXT_PARTS:
            texts.append(text)
        elif type(refusal := part.get("refusal")) is str:
            refusals.append(refusal)
    if not known:
        return content, None
    return "".join(texts) if texts else None, "".join(refusals) or None


_TEXT_PARTS = ("text", "output_text", None)


def _completion_choice(choice: dict[str, Any]) -> _Answer | str:
    text, finish = choice.get("text"), choice.get("finish_reason")
    finish = finish if type(finish) is str else None
    flags = flags_of(finish)
    if flags is None:
        return _broken_off(choice, finish)
    return _answer_of(text if type(text) is str else None, None, None, finish=finish, flags=flags, message=choice)


def _responses(data: dict[str, Any]) -> _Answer | str:
    status = data.get("status")
    if status in _UNFINISHED:
        return f"no answer yet: status {status}"
    output = data.get("output")
    if not is_array(output):
        return "no output"
    details = data.get("incomplete_details")
    finish = details.get("reason") if is_object(details) else None
    if not finish or type(finish) is not str:
        finish = status if type(status) is str else None
    flags = flags_of(finish)
    if flags is None:
        return f"the reply broke off: {finish}"
    items = [item for item in output if is_object(item)]
    contents = [part for item in items if item.get("type") == "message" for part in _array(item.get("content"))]
    calls = [item for item in items if item.get("type") in _CALLS]
    text, refusal = _parts(contents)
    thought = {"reasoning": _reasoning(items) or any(item.get("type") == "reasoning" for item in items)}
    return _answer_of(text if type(text) is str else None, calls, refusal, finish=finish, flags=flags, message=thought)


# Tuples, because what a server puts in their place need not be hashable.
_UNFINISHED = ("failed", "cancelled", "queued", "in_progress")
_CALLS = ("function_call", "custom_tool_call")


def _array(value: Any) -> list[Any]:
    return value if is_array(value) else []


def _thinking(data: dict[str, Any]) -> str | None:
    # of the first message, the reasoning items, or before the text
    if is_array(output := data.get("output")):
        items = [item for item in output if is_object(item)]
        found = _reasoning(items)
        text = _parts([part for item in items if item.get("type") == "message" for part in _array(item.get("content"))])
    else:
        choice = next(iter(_array(data.get("choices"))), None)
        choice = choice if is_object(choice) else {}
        message = choice.get("message")
        message = message if is_object(message) else choice
        found = next((answer for name in _THINKING if (answer := _thinking_text(message.get(name)))), None)
        content = message.get("content", choice.get("text"))
        if not found and is_array(content):
            found = _thinking_text([part for part in content if is_object(part) and part.get("type") == "thinking"])
        text = _parts(content) if is_array(content) else (content, None)
    in_text = extraction.split(text[0]).thinking if type(text[0]) is str else None
    return "\n\n".join(filter(None, (found, in_text))) or None


def _reasoning(items: list[dict[str, Any]]) -> str | None:
    # else its summary
    return _thinking_text(
        [item.get("content") or item.get("summary") for item in items if item.get("type") == "reasoning"]
    )  # fmt: skip


def _thinking_text(value: Any) -> str | None:
    # of a member, which may be nested parts
    if type(value) is str:
        return value.strip() or None
    if is_object(value):
        return next(
            (
                answer
                for name in ("text", "thinking", "summary", "content")
                if (answer := _thinking_text(value.get(name)))
            ),
            None,
        )
    return "\n\n".join(filter(None, map(_thinking_text, _array(value)))) or None


def _embeddings(data: dict[str, Any]) -> _Answer | str:
    items = data.get("data")
    if not is_array(items) or not items:
        return "no embeddings"
    vectors = [item.get("embedding") if is_object(item) else None for item in items]
    if not all(_is_vector(vector) for vector in vectors):
        return NO_NUMBERS if all(vectors) else "an empty embedding"
    if len(vectors) == 1:
        return _Answer(vectors[0], None, None, _NO_FLAGS)
    places = [item.get("index") for item in items]
    if sorted(place for place in places if type(place) is int) == list(range(len(items))):
        vectors = [vector for _, vector in sorted(zip(places, vectors, strict=True), key=lambda pair: pair[0])]
    return _Answer(vectors, None, None, _NO_FLAGS)


_NUMBERS = frozenset({int, float})
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def _is_vector(vector: Any) -> bool:
    # a list of numbers, or base64 of 32-bit ones (`encoding_format`)
    if is_array(vector):
        return bool(vector) and _NUMBERS.issuperset(map(type, vector))
    if type(vector) is not str or not vector or not _BASE64.fullmatch(vector):
        return False
    return (len(vector) // 4 * 3 - vector.count("=", -2)) % 4 == 0


def _transcription(data: dict[str, Any]) -> _Answer | str:
    text = data.get("text")
    if type(text) is not str:
        return "no text"
    return _answer_of(text, None, None, finish=None, flags=_NO_FLAGS, message=data)


_READERS: dict[Endpoint, Callable[[dict[str, Any]], _Answer | str]] = {
    Endpoint.CHAT: _chat,
    Endpoint.RESPONSES: _responses,
    Endpoint.EMBEDDINGS: _embeddings,
    Endpoint.COMPLETIONS: partial(_choices, _completion_choice),
    Endpoint.TRANSCRIPTIONS: _transcription,
}
