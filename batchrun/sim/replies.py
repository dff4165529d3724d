"""Deterministic replies: the leading sentences of what was asked, in OpenAI's shapes, marked as simulated."""

import base64
import json
import math
import re
import struct
from collections.abc import Callable
from hashlib import shake_128
from typing import Any, NamedTuple

import orjson

from batchrun.models import Endpoint
from batchrun.sim.requests import Request, count
from batchrun.sim.schema import example
from batchrun.sim.settings import Settings

MARK = "[simulated] "
FINGERPRINT = "batchrun-sim"
_SENTENCE = re.compile(r"[.!?](?=\s|$)|[。！？]")


class Reply(NamedTuple):
    """A reply as a JSON value, and the tokens its usage states."""

    value: dict[str, Any]
    input_tokens: int
    output_tokens: int


class _Texts(NamedTuple):
    texts: list[tuple[str, bool]]
    output_tokens: int


def make(request: Request, digest: str, settings: Settings) -> Reply:
    """The reply to a request; `digest` names it."""
    if request.endpoint is Endpoint.EMBEDDINGS:
        return _embeddings(request)
    texts = [_say(request, text, settings.reply_tokens) for text in request.texts for _ in range(request.choices)]
    said = _Texts(texts, sum(count(text) + settings.reasoning for text, _ in texts))
    cached = int(request.input_tokens * settings.cached)
    usage = _USAGES[request.endpoint](request.input_tokens, said.output_tokens, cached, settings.reasoning)
    value = _SHAPES[request.endpoint](request, digest, said)
    value["usage"] = usage
    value["system_fingerprint"] = FINGERPRINT
    return Reply(value, request.input_tokens, said.output_tokens)


def dump(value: Any) -> bytes:
    """JSON text; also of lone surrogates, which a request may have brought."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value).encode()


def leading(text: str, size: int) -> str:
    """The leading sentences of a text that fit into `size` bytes, else as many whole words, else what fits."""
    text = text.strip()
    fits = _cut(text, size)
    if fits == text:
        return text
    ends = [found.end() for found in _SENTENCE.finditer(fits)]
    if ends:
        return fits[: ends[-1]]
    words, _, _ = fits.rpartition(" ")
    return words or fits


def unit_vector(text: str, dimensions: int) -> list[float]:
    """A direction that depends on the text alone; its length is 1."""
    drawn = struct.unpack(f"<{dimensions}h", shake_128(text.encode("utf-8", "surrogatepass")).digest(2 * dimensions))
    length = math.sqrt(sum(each * each for each in drawn)) or 1.0
    return [each / length for each in drawn] if any(drawn) else [1.0] + [0.0] * (dimensions - 1)


def _say(request: Request, text: str, reply_tokens: int) -> tuple[str, bool]:
    """The text of one reply, and whether it was cut by the request's limit."""
    if request.schema is None:
        whole = MARK + leading(text, 4 * reply_tokens - len(MARK))
    else:
        schema = request.schema or {"type": "object", "properties": {"text": {"type": "string"}}}
        whole = dump(example(schema, MARK + leading(text, 80))).decode()
    if request.limit is None or count(whole) <= request.limit:
        return whole, False
    return _cut(whole, 4 * request.limit), True


def _cut(text: str, size: int) -> str:
    """As much of a text as fits into `size` bytes of UTF-8."""
    size = max(size, 0)
    if text.isascii():
        return text[:size]
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) > size:
        # A byte 10xxxxxx goes on with a character, which has to be left out as a whole.
        while size and encoded[size] & 0xC0 == 0x80:
            size -= 1
    return encoded[:size].decode("utf-8", "surrogatepass")


def _chat(request: Request, digest: str, said: _Texts) -> dict[str, Any]:
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": "length" if cut else "stop",
        }
        for index, (text, cut) in enumerate(said.texts)
    ]
    return _frame(f"chatcmpl-sim-{digest}", "chat.completion", request.model, choices)


def _completions(request: Request, digest: str, said: _Texts) -> dict[str, Any]:
    choices = [
        {"index": index, "text": text, "logprobs": None, "finish_reason": "length" if cut else "stop"}
        for index, (text, cut) in enumerate(said.texts)
    ]
    return _frame(f"cmpl-sim-{digest}", "text_completion", request.model, choices)


def _frame(name: str, kind: str, model: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": name, "object": kind, "created": 0, "model": model, "choices": choices}


def _responses(request: Request, digest: str, said: _Texts) -> dict[str, Any]:
    text, cut = said.texts[0]
    status = "incomplete" if cut else "completed"
    message: dict[str, Any] = {
        "type": "message",
        "id": f"msg_sim_{digest}",
        "status": status,
        "role": "assistant",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }
    return {
        "id": f"resp_sim_{digest}",
        "object": "response",
        "created_at": 0,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "model": request.model,
        "output": [message],
    }


def _embeddings(request: Request) -> Reply:
    vectors = [unit_vector(text, request.dimensions) for text in request.texts]
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if request.base64 else vector}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": request.input_tokens, "total_tokens": request.input_tokens}
    value = {"object": "list", "data": data, "model": request.model, "usage": usage, "system_fingerprint": FINGERPRINT}
    return Reply(value, request.input_tokens, 0)


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _chat_usage(given: int, said: int, cached: int, reasoning: int) -> dict[str, Any]:
    return {
        "prompt_tokens": given,
        "completion_tokens": said,
        "total_tokens": given + said,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def _responses_usage(given: int, said: int, cached: int, reasoning: int) -> dict[str, Any]:
    return {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": said,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": given + said,
    }


_SHAPES: dict[Endpoint, Callable[[Request, str, _Texts], dict[str, Any]]] = {
    Endpoint.CHAT: _chat,
    Endpoint.RESPONSES: _responses,
    Endpoint.COMPLETIONS: _completions,
}
_USAGES: dict[Endpoint, Callable[[int, int, int, int], dict[str, Any]]] = {
    Endpoint.CHAT: _chat_usage,
    Endpoint.RESPONSES: _responses_usage,
    Endpoint.COMPLETIONS: _chat_usage,
}
