"""Deterministic replies in OpenAI's shapes; values for JSON schemas ignore `pattern` and conditionals."""

import base64
import json
import math
import struct
from collections.abc import Callable, Mapping
from hashlib import shake_128
from typing import Any, NamedTuple

import orjson

from batchrun.models import Endpoint
from batchrun.sim.cache import Lookup
from batchrun.sim.requests import Request, count
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
    """JSON text, also of lone surrogates."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value).encode()


def unit_vector(text: str, dimensions: int) -> list[float]:
    drawn = struct.unpack(f"<{dimensions}h", shake_128(text.encode("utf-8", "surrogatepass")).digest(2 * dimensions))
    length = math.sqrt(sum(each * each for each in drawn)) or 1.0
    return [each / length for each in drawn] if any(drawn) else [1.0] + [0.0] * (dimensions - 1)


def _text_of(request: Request, text: str, settings: Settings, mode: str, seed: int) -> tuple[str, bool]:
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
    # the form `other` of an object of plural forms; else the text
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
    packed = (base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() for vector in vectors)
    data = [
        {"object": "embedding", "index": index, "embedding": each}
        for index, each in enumerate(packed if request.base64 else vectors)
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


_SHAPES: dict[Endpoint, Callable[[Request, str, _Texts], dict[str, Any]]] = {
    Endpoint.CHAT: _chat,
    Endpoint.RESPONSES: _responses,
    Endpoint.COMPLETIONS: _completions,
}


_DEEP = 5
_FORMATS = {
    "date-time": "2000-01-01T00:00:00Z",
    "date": "2000-01-01",
    "time": "00:00:00Z",
    "duration": "P1D",
    "email": "simulated@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_Schema = Mapping[str, Any]


def example(schema: Any, text: str) -> Any:
    """Satisfies a schema as far as the depth allows; strings are the text."""
    return _value(schema, text, schema, 0)


def _value(schema: Any, text: str, root: Any, depth: int) -> Any:
    if not isinstance(schema, dict):
        return text
    rule: dict[str, Any] = _resolved(schema, root)  # pyright: ignore[reportUnknownArgumentType]  # foreign JSON
    if "const" in rule:
        return rule["const"]
    if enum := rule.get("enum"):
        return enum[0]
    if choices := rule.get("anyOf") or rule.get("oneOf"):
        plain = [choice for choice in choices if not _is_null(choice)]
        # A null ends a recursive schema.
        pick = choices[-1] if depth > _DEEP and len(plain) < len(choices) else (plain or choices)[0]
        return _value(pick, text, root, depth + 1)
    return _MAKERS.get(_type(rule), _string)(rule, text, root, depth)


def _resolved(schema: dict[str, Any], root: Any) -> dict[str, Any]:
    rule = schema
    for _ in range(20):
        reference = rule.get("$ref")
        if not isinstance(reference, str):
            break
        rule = {**{name: value for name, value in rule.items() if name != "$ref"}, **_lookup(reference, root)}
    for part in rule.get("allOf", ()):
        other = _resolved(part, root)
        properties = {**rule.get("properties", {}), **other.get("properties", {})}
        rule = {**rule, **other, **({"properties": properties} if properties else {})}
    return rule


def _lookup(reference: str, root: Any) -> dict[str, Any]:
    found: Any = root
    for step in reference.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        found = found.get(name, {}) if isinstance(found, dict) else {}  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # foreign JSON
    return found if isinstance(found, dict) else {}  # pyright: ignore[reportUnknownVariableType]  # foreign JSON


def _type(rule: _Schema) -> str:
    stated = rule.get("type")
    if isinstance(stated, list):
        names: list[Any] = [name for name in stated if name != "null"]  # pyright: ignore[reportUnknownVariableType]  # foreign JSON
        return str(names[0]) if names else "null"
    if isinstance(stated, str):
        return stated
    if "properties" in rule:
        return "object"
    return "array" if "items" in rule or "prefixItems" in rule else "string"


def _is_null(choice: Any) -> bool:
    return isinstance(choice, dict) and choice.get("type") == "null"  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # foreign JSON


def _object(rule: _Schema, text: str, root: Any, depth: int) -> Any:
    properties: dict[str, Any] = rule.get("properties", {})
    required: list[str] = rule.get("required", [])
    wanted = required if depth > _DEEP else [*properties, *(name for name in required if name not in properties)]
    return {name: _value(properties.get(name, {}), text, root, depth + 1) for name in wanted}


def _array(rule: _Schema, text: str, root: Any, depth: int) -> Any:
    heads: list[Any] = rule.get("prefixItems", [])
    count = max(int(rule.get("minItems", 0)), len(heads), 0 if depth > _DEEP else 1)
    count = min(count, int(rule.get("maxItems", count)))
    kinds = [heads[place] if place < len(heads) else rule.get("items", {}) for place in range(count)]
    values = [_value(kind, text, root, depth + 1) for kind in kinds]
    return [_distinct(value, place) for place, value in enumerate(values)] if rule.get("uniqueItems") else values


def _distinct(value: Any, place: int) -> Any:
    if not place or isinstance(value, bool):
        return value
    return value + place if isinstance(value, int | float) else f"{value} {place}" if isinstance(value, str) else value


def _string(rule: _Schema, text: str, _root: Any, _depth: int) -> Any:
    value = _FORMATS.get(rule.get("format", ""), text)
    return value.ljust(int(rule.get("minLength", 0)), ".")[: int(rule.get("maxLength", len(value) + 100_000))]


def _number(rule: _Schema, _text: str, _root: Any, _depth: int) -> Any:
    low, high = _bounds(rule, 1e-6)
    step = rule.get("multipleOf")
    if step:
        return math.ceil(low / step) * step if low > 0 or high < 0 else 0
    return low if low > 0 else min(high, 0)


def _integer(rule: _Schema, _text: str, _root: Any, _depth: int) -> Any:
    low, high = _bounds(rule, 1)
    step = int(rule.get("multipleOf", 1))
    if low > 0:
        return math.ceil(low / step) * step
    return math.floor(min(high, 0) / step) * step


def _bounds(rule: _Schema, apart: float) -> tuple[float, float]:
    low = max(rule.get("minimum", -math.inf), rule.get("exclusiveMinimum", -math.inf) + apart)
    high = min(rule.get("maximum", math.inf), rule.get("exclusiveMaximum", math.inf) - apart)
    return low, high


_MAKERS: dict[str, Callable[[_Schema, str, Any, int], Any]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "number": _number,
    "integer": _integer,
    "boolean": lambda _rule, _text, _root, _depth: True,
    "null": lambda _rule, _text, _root, _depth: None,
}
