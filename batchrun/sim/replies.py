"""Deterministic replies in OpenAI's shapes."""

import base64
import json
import math
import struct
from collections.abc import Callable
from hashlib import shake_128
from typing import Any, NamedTuple

import orjson

from batchrun.models import Endpoint
from batchrun.sim.cache import Lookup
from batchrun.sim.requests import Request, count
from batchrun.sim.schema import example
from batchrun.sim.settings import Settings
from batchrun.sim.texts import MARK, cut, mode_for, reply_text, source

UNCACHED = Lookup()
FINGERPRINT = "batchrun-sim"


class Reply(NamedTuple):
    value: dict[str, Any]
    input_tokens: int
    output_tokens: int


class _Texts(NamedTuple):
    texts: list[tuple[str, bool]]
    output_tokens: int


def make(request: Request, digest: str, settings: Settings, found: Lookup = UNCACHED, *, broken: bool = False) -> Reply:
    """The reply to a request; `digest` is 24 hexadecimal digits, `found` what the prefix cache has."""
    if request.endpoint is Endpoint.EMBEDDINGS:
        return _embeddings(request)
    if request.endpoint is Endpoint.TRANSCRIPTIONS:
        return _transcription(request, settings)
    mode = "broken" if broken else mode_for(settings.reply, request.instructions)
    seed = int(digest[:4] or "0", 16)
    texts = [_text_of(request, text, settings, mode, seed) for text in request.texts for _ in range(request.choices)]
    made_texts = _Texts(texts, sum(count(text) + settings.reasoning for text, _ in texts))
    details = {"cached_tokens": int(request.input_tokens * settings.cached) if settings.cache == "none" else found.read}
    if settings.cache in ("explicit", "implicit"):
        details["cache_write_tokens"] = found.write
    value = _SHAPES[request.endpoint](request, digest, made_texts)
    given, made = ("input", "output") if request.endpoint is Endpoint.RESPONSES else ("prompt", "completion")
    value["usage"] = {
        f"{given}_tokens": request.input_tokens,
        f"{given}_tokens_details": details,
        f"{made}_tokens": made_texts.output_tokens,
        f"{made}_tokens_details": {"reasoning_tokens": settings.reasoning},
        "total_tokens": request.input_tokens + made_texts.output_tokens,
    }
    value["system_fingerprint"] = FINGERPRINT
    if tier := request.body.get("service_tier"):
        value["service_tier"] = "default" if tier == "auto" else tier
    return Reply(value, request.input_tokens, made_texts.output_tokens)


def dump(value: Any) -> bytes:
    """JSON text; also of lone surrogates."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value).encode()


def unit_vector(text: str, dimensions: int) -> list[float]:
    """A vector of length 1 that depends only on the text."""
    drawn = struct.unpack(f"<{dimensions}h", shake_128(text.encode("utf-8", "surrogatepass")).digest(2 * dimensions))
    length = math.sqrt(sum(each * each for each in drawn)) or 1.0
    return [each / length for each in drawn] if any(drawn) else [1.0] + [0.0] * (dimensions - 1)


def _text_of(request: Request, text: str, settings: Settings, mode: str, seed: int) -> tuple[str, bool]:
    """The text of one reply, and whether the request's limit cut it."""
    if mode != "echo":
        text = source(text) or text
    if request.schema is None:
        whole = reply_text(mode, text, 4 * settings.reply_tokens, seed)
    else:
        schema = request.schema or {"type": "object", "properties": {"text": {"type": "string"}}}
        text = _other_form(text)
        whole = dump(example(schema, reply_text(mode, text, 80 + len(MARK), seed))).decode()
    if request.limit is None or count(whole) <= request.limit:
        return whole, False
    return cut(whole, 4 * request.limit), True


def _other_form(text: str) -> str:
    """The form `other` of an object of plural forms; else the text."""
    try:
        forms = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    other = forms.get("other") if isinstance(forms, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # foreign JSON
    return other if isinstance(other, str) else text


def _chat(request: Request, digest: str, made_texts: _Texts) -> dict[str, Any]:
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": "length" if cut else "stop",
        }
        for index, (text, cut) in enumerate(made_texts.texts)
    ]
    return _frame(f"chatcmpl-sim-{digest}", "chat.completion", request.model, choices)


def _completions(request: Request, digest: str, made_texts: _Texts) -> dict[str, Any]:
    choices = [
        {"index": index, "text": text, "logprobs": None, "finish_reason": "length" if cut else "stop"}
        for index, (text, cut) in enumerate(made_texts.texts)
    ]
    return _frame(f"cmpl-sim-{digest}", "text_completion", request.model, choices)


def _frame(name: str, kind: str, model: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": name, "object": kind, "created": 0, "model": model, "choices": choices}


def _responses(request: Request, digest: str, made_texts: _Texts) -> dict[str, Any]:
    text, cut = made_texts.texts[0]
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


def _transcription(request: Request, settings: Settings) -> Reply:
    text = reply_text("echo", request.texts[0], 4 * settings.reply_tokens, 0)
    made = count(text)
    usage = {
        "type": "tokens",
        "input_tokens": request.input_tokens,
        "input_token_details": {"text_tokens": 0, "audio_tokens": request.input_tokens},
        "output_tokens": made,
        "total_tokens": request.input_tokens + made,
    }
    return Reply({"text": text, "usage": usage, "system_fingerprint": FINGERPRINT}, request.input_tokens, made)


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


_SHAPES: dict[Endpoint, Callable[[Request, str, _Texts], dict[str, Any]]] = {
    Endpoint.CHAT: _chat,
    Endpoint.RESPONSES: _responses,
    Endpoint.COMPLETIONS: _completions,
}
