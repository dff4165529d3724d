"""Chat completions as requests of Anthropic's Messages API, and its replies as chat completions. Pure.

Sources: platform.claude.com/docs/en/api/messages and /api/openai-sdk, of 2026-09.
"""

import json
from typing import Any, cast

from batchrun.errors import RefusedError

_SAME = ("model", "temperature", "top_p", "stop_sequences", "metadata", "thinking", "system", "service_tier")
# the compatible endpoint ignores these as well
_DROPPED = ("user", "seed", "n", "stream", "logprobs", "presence_penalty", "frequency_penalty", "store")
_LIMITS = ("max_completion_tokens", "max_tokens")
_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
# from the same manual's table of errors
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


def as_message(body: dict[str, Any]) -> dict[str, Any]:
    """Raises RefusedError for a field without a counterpart."""
    params: dict[str, Any] = {name: body[name] for name in _SAME if name in body}
    limit = next((body[name] for name in _LIMITS if body.get(name)), None)
    if limit is None:
        raise RefusedError(
            "Anthropic's batches need a limit of output tokens, but the request has none.", "Add --max-output-tokens N."
        )
    params["max_tokens"] = limit
    if "stop" in body:
        params["stop_sequences"] = [body["stop"]] if isinstance(body["stop"], str) else body["stop"]
    system: list[Any] = []
    messages: list[Any] = []
    for message in cast("list[dict[str, Any]]", body.get("messages") or []):
        if message.get("role") in ("system", "developer"):
            system.append(message.get("content") or "")
        else:
            content: Any = message.get("content")
            if isinstance(content, list):
                content = [_block(part) for part in cast("list[dict[str, Any]]", content)]
            messages.append({"role": message.get("role"), "content": content})
    if any(isinstance(content, list) for content in system):  # blocks, which may have cache marks
        blocks: list[Any] = []
        for content in system:
            blocks += cast("list[Any]", content) if isinstance(content, list) else [{"type": "text", "text": content}]
        params["system"] = blocks
    elif system:
        params["system"] = "\n".join(map(str, system))
    params["messages"] = messages
    left = body.keys() - {*_SAME, *_DROPPED, *_LIMITS, "stop", "messages"}
    if left:
        raise RefusedError(
            f"Anthropic's batches do not support {', '.join(sorted(left))}.",
            "Send it live, without --batch, or leave the parameter out.",
        )
    return params


def _block(part: dict[str, Any]) -> dict[str, Any]:
    # sources: platform.claude.com/docs/en/build-with-claude/vision, pdf-support
    kind = part.get("type")
    if kind == "input_audio":
        raise RefusedError("Anthropic's batches do not accept audio.", "Send it live, without --batch.")
    if kind not in ("image_url", "file"):
        return part
    url = str(part["image_url"]["url"] if kind == "image_url" else part["file"]["file_data"])
    source = {"type": "url", "url": url}
    if url.startswith("data:"):
        type, _, data = url.removeprefix("data:").partition(";base64,")
        source = {"type": "base64", "media_type": type, "data": data}
    return {"type": "image" if kind == "image_url" else "document", "source": source}


def as_chat(message: Any) -> bytes:
    found = cast("dict[str, Any]", message or {})
    parts = cast("list[dict[str, Any]]", found.get("content") or [])
    text = "".join(str(part.get("text") or "") for part in parts if part.get("type") == "text")
    thinking = "".join(str(part.get("thinking") or "") for part in parts if part.get("type") == "thinking")
    answer: dict[str, Any] = {"role": "assistant", "content": text}
    if thinking:
        answer["reasoning_content"] = thinking
    finish = str(found.get("stop_reason") or "stop")
    body = {
        "id": found.get("id"),
        "object": "chat.completion",
        "model": found.get("model"),
        "choices": [{"index": 0, "message": answer, "finish_reason": _FINISH.get(finish, finish)}],
        "usage": found.get("usage"),
        "message": found,
    }
    return json.dumps(body, ensure_ascii=False).encode()


def status_of(kind: Any) -> int:
    # 500 for an unknown type
    return _STATUS.get(str(kind), 500)
