"""A request in a provider's spelling (`providers/requests.toml`), applied when it is sent and never hashed."""

import json
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, cast

from batchrun.models import Endpoint, Request
from batchrun.prompts.definition import Prompt
from batchrun.prompts.request import spelled, to_json

SCHEMAS = ("schema", "json_object", "message")
"""Ways to send the schema of `outputs`."""
_SYSTEM = ("system", "developer")
_OURS = "maxOutputTokens"
_CANONICAL = "max_completion_tokens"
_LIMITS = frozenset({"max_tokens", _CANONICAL})


class Spelling(NamedTuple):
    """Changes to a body."""

    schema: str  # one of SCHEMAS
    limit: str | None  # new name of the limit of output tokens
    names: Mapping[str, str]
    roles: Mapping[str, str]
    without: Collection[str]
    keep: Collection[str]  # members that the user has typed, sent unchanged

    def apply(self, request: Request) -> Request:
        """The request for this provider; the same object if unchanged."""
        if request.endpoint is not Endpoint.CHAT:
            return request
        body: dict[str, Any] = json.loads(request.body)
        changed = self._renamed(body)
        if self.roles:
            changed["messages"] = [
                {**message, "role": self.roles.get(message["role"], message["role"])} for message in changed["messages"]
            ]
        self._move_schema(changed)
        return request if changed == body else request._replace(body=to_json(changed).encode("utf-8", "replace"))

    def _renamed(self, body: dict[str, Any]) -> dict[str, Any]:
        names = dict(self.names)
        if self.limit is not None and not any(name in body for name in _LIMITS - {_CANONICAL}):
            names[_CANONICAL] = self.limit
        kept = {name: value for name, value in body.items() if name in self.keep or name not in self.without}
        return {name if name in self.keep else names.get(name, name): value for name, value in kept.items()}

    def _move_schema(self, body: dict[str, Any]) -> None:
        form = body.get("response_format")
        if self.schema == "schema" or "response_format" in self.keep or not isinstance(form, dict):
            return
        node = cast("dict[str, Any]", form)
        if node.get("type") != "json_schema":
            return
        schema = node.get("json_schema", {}).get("schema", {})
        if self.schema == "json_object":
            body["response_format"] = {"type": "json_object"}
        else:
            del body["response_format"]
        instruction = f"Reply with one JSON value and nothing else. It must fit this JSON schema:\n{to_json(schema)}"
        messages: list[dict[str, Any]] = list(body["messages"])
        if messages and messages[0]["role"] in _SYSTEM:
            messages[0] = {**messages[0], "content": _with_text(messages[0]["content"], instruction)}
        else:
            messages.insert(0, {"role": "system", "content": instruction})
        body["messages"] = messages


def _with_text(content: Any, more: str) -> Any:
    """The content, text or blocks, with another paragraph."""
    if isinstance(content, str):
        return f"{content}\n\n{more}"
    blocks = cast("list[dict[str, Any]]", content)
    return [*blocks[:-1], {**blocks[-1], "text": f"{blocks[-1]['text']}\n\n{more}"}]


def check_takes(takes: Mapping[str, Any]) -> None:
    """Raises ValueError for entries that the table `requests` cannot have."""
    for name, value in takes.items():
        texts = cast("Collection[object]", value.values() if isinstance(value, dict) else value)
        if name == "schema":
            right = value in SCHEMAS
        elif name == "limit":
            right = value in _LIMITS
        elif name in ("names", "roles"):
            right = isinstance(value, dict) and all(isinstance(text, str) for text in texts)
        else:
            right = name == "without" and isinstance(value, list) and all(isinstance(text, str) for text in texts)
        if not right:
            raise ValueError(
                f"{name} = {value!r}: known are schema ({', '.join(SCHEMAS)}), limit ({', '.join(sorted(_LIMITS))}), "
                "names, roles (tables of text) and without (a list of names)"
            )


def spelling_of(takes: Mapping[str, Any], prompt: Prompt, params: Collection[str]) -> Spelling | None:
    """The spelling for a prompt's requests, or None if unchanged.

    `takes` is like the table `requests`; `params`, and names in a provider's spelling, are kept.
    """
    limit = takes.get("limit")
    limit = limit if _OURS in prompt.options and limit != _CANONICAL and _CANONICAL not in prompt.options else None
    schema = takes.get("schema", "schema") if prompt.outputs is not None else "schema"
    options = {spelled(name, Endpoint.CHAT) for name in prompt.options} - {*params}
    names = {name: other for name, other in takes.get("names", {}).items() if name in options}
    without = options & {*takes.get("without", ())}
    used = {message.role for message in prompt.messages}
    roles = {role: other for role, other in takes.get("roles", {}).items() if role in used}
    if limit is None and schema == "schema" and not (names or without or roles):
        return None
    return Spelling(schema, limit, names, roles, without, frozenset(params))
