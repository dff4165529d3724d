"""The text of a request to answer, the limit and the shape of the answer. A token is four bytes of UTF-8."""

import json
import re
from base64 import b64decode
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import orjson

from batchrun.filetypes import pixels, type_of
from batchrun.models import Endpoint
from batchrun.providers import table
from batchrun.sim.texts import source

_KINDS = {"image_url": "image", "input_image": "image", "input_audio": "audio", "file": "file", "input_file": "file"}
_SIMULATED = table("media")["simulated"]


def description_of(part: dict[str, Any]) -> tuple[str, int] | None:
    """Raises ValueError."""
    kind = _KINDS.get(part.get("type") or "")
    if kind is None:
        return None
    held: dict[str, Any] = part.get(part["type"], part)
    given: str = next(held[name] for name in _MEMBERS if held.get(name))
    if given.startswith("https://"):
        return f"a file at {given}", _SIMULATED[kind]["tokens"]
    return data_description(kind, b64decode(given.partition("base64,")[2] or given, validate=True))


def form_of(body: bytes) -> dict[str, Any] | None:
    """RFC 7578."""
    divider, line, _ = body.partition(b"\r\n")
    if not line or not divider.startswith(b"--"):
        return None
    fields: dict[str, Any] = {}
    for piece in body.split(divider)[1:-1]:
        head, _, value = piece.partition(b"\r\n\r\n")
        name = _NAME.search(head)
        if name is None:
            return None
        value = value.removesuffix(b"\r\n")
        fields[name[1].decode()] = value if b"filename=" in head else value.decode()
    return fields


_NAME = re.compile(rb' name="([^"]+)"')
_MEMBERS = ("url", "image_url", "data", "file_data", "file_url")


def data_description(kind: str, data: bytes) -> tuple[str, int]:
    """Raises ValueError for an unknown type."""
    found = type_of(data)
    if found is None:
        raise ValueError("a file of no known type")
    width, height = pixels(data, found.type)
    template = _SIMULATED[kind]
    values = {"type": found.suffix.upper(), "width": width, "height": height, "bytes": len(data)}
    return template["text"].format_map(values), template["tokens"]


_UNREADABLE = "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP library correctly.)"


class Problem(NamedTuple):
    status: int
    message: str
    param: str | None = None
    code: str | None = None


class Request(NamedTuple):
    endpoint: Endpoint
    model: str
    texts: list[str]  # one for each reply
    input_tokens: int
    limit: int | None = None  # tokens a reply
    choices: int = 1
    schema: dict[str, Any] | None = None  # `{}` is any JSON object
    dimensions: int = 16
    base64: bool = False
    instructions: str = ""
    body: dict[str, Any] = {}  # noqa: RUF012  # never changed


def parse_request(endpoint: Endpoint, body: bytes) -> Request | Problem:
    parsed = form_of(body) if endpoint is Endpoint.TRANSCRIPTIONS else _parsed(body)
    if not isinstance(parsed, dict):
        return Problem(400, _UNREADABLE)
    if parsed.get("stream"):  # pyright: ignore[reportUnknownMemberType]  # foreign JSON
        return Problem(400, "The simulated provider does not stream.", "stream", "unsupported_value")
    model: Any = parsed.get("model")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # foreign JSON
    if not isinstance(model, str) or not model:
        return Problem(400, "you must provide a model parameter")
    try:
        found = _READERS[endpoint](model, parsed)  # pyright: ignore[reportUnknownArgumentType]  # foreign JSON
    except (TypeError, ValueError, AttributeError, KeyError):
        return Problem(400, "Invalid type for a parameter of the request.", None, "invalid_type")
    return found._replace(body=parsed) if isinstance(found, Request) else found  # pyright: ignore[reportUnknownArgumentType]  # foreign JSON


def count(text: str) -> int:
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-size // 4)


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    # Lone surrogates and NaN, which orjson refuses and clients may send.
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _chat(model: str, body: dict[str, Any]) -> Request | Problem:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return _missing("messages")
    limit = _limit(body, "max_completion_tokens", "max_tokens")
    shape: dict[str, Any] = body.get("response_format") or {}
    schema = _schema(shape, shape.get("json_schema") or {})
    text, tokens, system = _dialogue(messages)  # pyright: ignore[reportUnknownArgumentType]  # foreign JSON
    return Request(Endpoint.CHAT, model, [text], tokens, limit, _choices(body), schema, instructions=system)


def _responses(model: str, body: dict[str, Any]) -> Request | Problem:
    given: Any = body.get("input")
    if not given:
        return _missing("input")
    messages: list[Any] = [{"role": "user", "content": given}] if isinstance(given, str) else given
    options: dict[str, Any] = body.get("text") or {}
    shape: dict[str, Any] = options.get("format") or {}
    text, tokens, system = _dialogue(messages)
    system = body.get("instructions") or system
    tokens += count(body.get("instructions") or "")
    limit = _limit(body, "max_output_tokens")
    return Request(Endpoint.RESPONSES, model, [text], tokens, limit, 1, _schema(shape, shape), instructions=system)


def _completions(model: str, body: dict[str, Any]) -> Request | Problem:
    texts = _texts(body.get("prompt"))
    if not texts:
        return _missing("prompt")
    limit = _limit(body, "max_tokens")
    return Request(Endpoint.COMPLETIONS, model, texts, sum(map(count, texts)), limit, _choices(body))


def _embeddings(model: str, body: dict[str, Any]) -> Request | Problem:
    texts = _texts(body.get("input"))
    if not texts:
        return _missing("input")
    dimensions = body.get("dimensions") or 16
    if not isinstance(dimensions, int) or not 1 <= dimensions <= 100_000:
        return Problem(400, "Invalid value for 'dimensions'.", "dimensions", "invalid_value")
    base64 = body.get("encoding_format") == "base64"
    tokens = sum(map(count, texts))
    return Request(Endpoint.EMBEDDINGS, model, texts, tokens, dimensions=dimensions, base64=base64)


def _transcription(model: str, body: dict[str, Any]) -> Request | Problem:
    if not isinstance(body.get("file"), bytes):
        return _missing("file")
    text, tokens = data_description("audio", body.pop("file"))
    if body.get("prompt"):
        text = f"{text}: {body['prompt']}"
    return Request(Endpoint.TRANSCRIPTIONS, model, [text], tokens)


_READERS: dict[Endpoint, Callable[[str, dict[str, Any]], Request | Problem]] = {
    Endpoint.CHAT: _chat,
    Endpoint.RESPONSES: _responses,
    Endpoint.COMPLETIONS: _completions,
    Endpoint.EMBEDDINGS: _embeddings,
    Endpoint.TRANSCRIPTIONS: _transcription,
}


def _dialogue(messages: Iterable[Any]) -> tuple[str, int, str]:
    # the text to answer, the tokens of all messages, and the instructions
    # preferred is the last user message in tags: a request to repair a reply follows it and has none
    last, of_user, wrapped, instructions, tokens = "", None, None, "", 0
    for message in messages:
        last, more = _content(message.get("content"))
        tokens += count(last) + more
        role = message.get("role")
        if role == "user":
            of_user = last
            wrapped = last if source(last) is not None else wrapped
        elif role in ("system", "developer"):
            instructions = instructions or last
    return next((text for text in (wrapped, of_user) if text is not None), last), tokens, instructions


def _content(content: Any) -> tuple[str, int]:
    if isinstance(content, str):
        return content, 0
    parts: list[dict[str, Any]] = content or []
    texts = " ".join(part["text"] for part in parts if part.get("text"))
    files = [found for part in parts if (found := description_of(part)) is not None]
    described = ", ".join(text for text, _ in files)
    return f"{described}: {texts}" if files else texts, sum(tokens for _, tokens in files)


def _texts(given: Any) -> list[str]:
    if not given:
        return []
    if isinstance(given, str):
        return [given]
    if isinstance(given[0], int):
        return [" ".join(map(str, given))]
    return [each if isinstance(each, str) else " ".join(map(str, each)) for each in given]


def _choices(body: dict[str, Any]) -> int:
    choices = body.get("n") or 1
    if not isinstance(choices, int) or not 1 <= choices <= 128:
        raise ValueError(choices)
    return choices


def _limit(body: dict[str, Any], *names: str) -> int | None:
    for name in names:
        limit = body.get(name)
        if limit is not None:
            if not isinstance(limit, int) or limit < 1:
                raise ValueError(limit)
            return limit
    return None


def _schema(shape: dict[str, Any], holder: dict[str, Any]) -> dict[str, Any] | None:
    if shape.get("type") == "json_schema":
        return holder.get("schema") or {}
    return {} if shape.get("type") == "json_object" else None


def _missing(name: str) -> Problem:
    return Problem(400, f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
