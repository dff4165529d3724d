"""The body of a request in each endpoint's spelling, and in a provider's (`providers/requests.toml`).

Options in Prompty's or GitHub's spelling (`maxOutputTokens`) are translated, those in a provider's are kept, except the
token limit and reply format of Responses (https://platform.openai.com/docs/api-reference/responses/create). `--param`
is never renamed. A provider's spelling is applied when a request is sent, and never hashed.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any, NamedTuple, cast

from batchrun.digests import digest_of
from batchrun.errors import PromptError
from batchrun.models import Endpoint, Request
from batchrun.prompts.definition import Prompt
from batchrun.prompts.schema import is_strict

_CAMEL: Mapping[str, str] = {
    "topP": "top_p",
    "topK": "top_k",
    "frequencyPenalty": "frequency_penalty",
    "presencePenalty": "presence_penalty",
    "stopSequences": "stop",
    "allowMultipleToolCalls": "parallel_tool_calls",
    "maxTokens": "max_tokens",
    "maxCompletionTokens": "max_completion_tokens",
    "maxOutputTokens": "max_completion_tokens",
}
_LIMITS: Mapping[Endpoint, Mapping[str, str]] = {
    Endpoint.CHAT: {},
    Endpoint.RESPONSES: {"max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens"},
    Endpoint.COMPLETIONS: {"max_completion_tokens": "max_tokens"},
    Endpoint.EMBEDDINGS: {},
    Endpoint.TRANSCRIPTIONS: {},
}
# the member with the prompt
CONTENT: Mapping[Endpoint, str] = {
    Endpoint.CHAT: "messages",
    Endpoint.RESPONSES: "input",
    Endpoint.EMBEDDINGS: "input",
    Endpoint.COMPLETIONS: "prompt",
    Endpoint.TRANSCRIPTIONS: "file",
}
_EMBEDDINGS, _RESPONSES, _COMPLETIONS = Endpoint.EMBEDDINGS, Endpoint.RESPONSES, Endpoint.COMPLETIONS
_SINGLE = (Endpoint.EMBEDDINGS, Endpoint.COMPLETIONS, Endpoint.TRANSCRIPTIONS)  # endpoints without conversations
_TRANSCRIPTS = ("json", "verbose_json", "diarized_json")  # JSON formats of a transcription
SCHEMAS = ("schema", "json_object", "message")  # how the schema of `outputs` can be sent
_SYSTEM = ("system", "developer")
_OURS = "maxOutputTokens"
_CANONICAL = "max_completion_tokens"
_LIMIT_NAMES = frozenset({"max_tokens", _CANONICAL})


def members(prompt: Prompt, endpoint: Endpoint, model: str | None, params: Mapping[str, Any]) -> dict[str, Any]:
    """The body without the messages. Raises PromptError."""
    options = {spelled(name, endpoint): value for name, value in prompt.options.items()}
    if endpoint is Endpoint.RESPONSES and "response_format" in options:
        form = _flat(options.pop("response_format"))
        options.setdefault("text", {"format": form})
    given = options | dict(params)
    _refuse_impossible(prompt, endpoint, given)
    if prompt.outputs is not None:
        _add_schema(prompt, endpoint, given)
    chosen = given.pop("model", None) or model or prompt.model
    return ({"model": chosen} if chosen else {}) | given


def frame(endpoint: Endpoint, rest: Mapping[str, Any], roles: list[tuple[str, bool]]) -> list[str]:
    """One piece more than messages.

    Each role has whether its content is a list of parts; a text belongs inside quotation marks.
    """
    model = {"model": rest["model"]} if "model" in rest else {}
    tail = {name: value for name, value in rest.items() if name != "model"}
    start = "{" + _inner(model) + ("," if model else "")
    end = ("," if tail else "") + _inner(tail) + "}"
    if endpoint is Endpoint.TRANSCRIPTIONS:
        return [start, end]  # between them stand the members with the recording and the text
    start += f'"{CONTENT[endpoint]}":'
    if endpoint in (Endpoint.EMBEDDINGS, Endpoint.COMPLETIONS):
        return [start + '"', '"' + end]
    quotes = ["" if parts else '"' for _, parts in roles]
    opened = [f'{{"role":"{role}","content":{quote}' for (role, _), quote in zip(roles, quotes, strict=True)]
    between = [f"{quote}}},{opening}" for quote, opening in zip(quotes, opened[1:], strict=False)]
    return [f"{start}[{opened[0]}", *between, f"{quotes[-1]}}}]{end}"]


def output_limit(endpoint: Endpoint, body: Mapping[str, Any]) -> int | None:
    """Tokens for all choices; None: unlimited, 0: no output tokens."""
    if endpoint in (_EMBEDDINGS, Endpoint.TRANSCRIPTIONS):
        return 0
    if endpoint is _RESPONSES:
        return _positive(body.get("max_output_tokens"))
    given = body.get("max_completion_tokens") or body.get("max_tokens")
    if given is None or (limit := _positive(given)) is None:
        return None
    choices = _positive(body.get("n", 1)) or 1
    if endpoint is _COMPLETIONS:
        choices = max(choices, _positive(body.get("best_of")) or 1) * prompts_in(body)
    return limit * choices


def prompts_in(body: Mapping[str, Any]) -> int:
    """In a completion."""
    prompt = body.get("prompt")
    found = cast("list[Any]", prompt) if isinstance(prompt, list) else []
    return max(1, sum(isinstance(one, str | list) for one in found))


def with_correction(request: Request, reply_text: str, error: str, *, check: str | None = None) -> Request:
    """Followed by the model's reply and its error."""
    name = CONTENT[request.endpoint]
    body: dict[str, Any] = json.loads(bytes(request.body))
    conversation = body.get(name)
    if request.endpoint is Endpoint.RESPONSES and isinstance(conversation, str):
        conversation = [{"role": "user", "content": conversation}]
    if request.endpoint in _SINGLE or not isinstance(conversation, list):
        raise ValueError(f"{request.endpoint} is not a conversation")
    wrong = "does not fit the required JSON schema" if check is None else "cannot be used"
    what = "JSON" if check is None else "reply"
    correction = f"Your reply {wrong}: {error}\nReply again with the complete, corrected {what} and nothing else."
    body[name] = [
        *cast("list[Any]", conversation),
        {"role": "assistant", "content": reply_text},
        {"role": "user", "content": correction},
    ]
    return request._replace(body=to_json(body).encode("utf-8", "replace"))


def with_larger_limit(request: Request, doublings: int = 1) -> Request:
    if not request.output_limit:
        return request
    factor = 2**doublings
    body: dict[str, Any] = json.loads(bytes(request.body))
    for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        if (limit := _positive(body.get(name))) is not None:
            body[name] = factor * limit
    return request._replace(body=to_json(body).encode("utf-8", "replace"), output_limit=factor * request.output_limit)


def request_digest(request: Request, kind: str) -> str:
    """32 hexadecimal characters; `kind` as in `digests`."""
    return _digest(request.endpoint, kind)(bytes(request.body))


@cache
def _digest(endpoint: Endpoint, kind: str) -> Callable[[bytes], str]:
    return digest_of(kind, endpoint.encode() + b"\0")


def to_json(value: Any) -> str:
    """Raises ValueError for NaN and infinities."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def spelled(name: str, endpoint: Endpoint) -> str:
    """A body's name for a prompt's option."""
    plain = _CAMEL.get(name, name)
    return _LIMITS[endpoint].get(plain, plain)


def _inner(members: Mapping[str, Any]) -> str:
    return to_json(members)[1:-1]


def _positive(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


def _refuse_impossible(prompt: Prompt, endpoint: Endpoint, given: Mapping[str, Any]) -> None:
    if CONTENT[endpoint] in given:
        raise PromptError(f"`{CONTENT[endpoint]}` comes from the prompt", "Change the prompt, or omit the parameter.")
    if given.get("stream"):
        raise PromptError("`stream` is not supported: replies are read whole", "Omit the parameter.")
    single = endpoint in _SINGLE
    if single and len(prompt.messages) > 1:
        raise PromptError(
            f"{prompt.path}: {endpoint} accepts one text, but the prompt has {len(prompt.messages)} messages"
        )
    if endpoint is Endpoint.TRANSCRIPTIONS:
        _refuse_transcription(prompt, given)
    elif single and prompt.files:
        named = ", ".join(f"`{name}`" for name in prompt.files)
        raise PromptError(f"{prompt.path}: {endpoint} accepts text, but {named} names files", "Use --endpoint chat.")
    if single and prompt.outputs is not None:
        raise PromptError(f"{prompt.path}: {endpoint} has no structured output", "Omit `outputs`.")
    try:
        to_json(dict(given)).encode()
    except (TypeError, ValueError) as error:
        raise PromptError(f"{prompt.path}: an option or parameter is not JSON: {error}") from None


def _refuse_transcription(prompt: Prompt, given: Mapping[str, Any]) -> None:
    if list(prompt.files.values()) != ["audio"]:
        raise PromptError(
            f"{prompt.path}: {Endpoint.TRANSCRIPTIONS} needs one recording",
            "Declare one input of kind audio, and use it in the template.",
        )
    if "prompt" in given:
        raise PromptError("`prompt` comes from the prompt", "Change the prompt, or omit the parameter.")
    if given.get("response_format", "json") not in _TRANSCRIPTS:
        raise PromptError(
            f"response_format is {given['response_format']!r}, but replies are read as JSON",
            f"Use one of {', '.join(_TRANSCRIPTS)}.",
        )


def _add_schema(prompt: Prompt, endpoint: Endpoint, given: dict[str, Any]) -> None:
    # unless the user states a format
    name = re.sub(r"[^a-zA-Z0-9_-]", "_", prompt.name)[:64] or "output"
    named = {"name": name, "schema": prompt.outputs, "strict": is_strict(prompt.outputs)}
    if endpoint is Endpoint.CHAT:
        given.setdefault("response_format", {"type": "json_schema", "json_schema": named})
        return
    text = given.get("text", {})
    if isinstance(text, dict):
        given["text"] = {"format": {"type": "json_schema"} | named} | cast("dict[str, Any]", text)


def _flat(form: Any) -> Any:
    # Chat's `response_format` in the form of the Responses endpoint
    if not isinstance(form, dict):
        return form
    node = dict(cast("dict[str, Any]", form))
    inner = node.pop("json_schema", None)
    return node | cast("dict[str, Any]", inner) if isinstance(inner, dict) else node


class Spelling(NamedTuple):
    schema: str  # one of SCHEMAS
    limit: str | None  # new name of the limit of output tokens
    names: Mapping[str, str]
    roles: Mapping[str, str]
    without: Collection[str]
    keep: Collection[str]  # members that the user has typed, sent unchanged

    def apply(self, request: Request) -> Request:
        """The same object if unchanged."""
        if request.endpoint is not Endpoint.CHAT:
            return request
        body: dict[str, Any] = json.loads(bytes(request.body))
        changed = self._renamed(body)
        if self.roles:
            changed["messages"] = [
                {**message, "role": self.roles.get(message["role"], message["role"])} for message in changed["messages"]
            ]
        self._move_schema(changed)
        return request if changed == body else request._replace(body=to_json(changed).encode("utf-8", "replace"))

    def _renamed(self, body: dict[str, Any]) -> dict[str, Any]:
        names = dict(self.names)
        if self.limit is not None and not any(name in body for name in _LIMIT_NAMES - {_CANONICAL}):
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
    # another paragraph at the end of a text or blocks
    if isinstance(content, str):
        return f"{content}\n\n{more}"
    blocks = cast("list[dict[str, Any]]", content)
    return [*blocks[:-1], {**blocks[-1], "text": f"{blocks[-1]['text']}\n\n{more}"}]


def check_takes(takes: Mapping[str, Any]) -> None:
    """Raises ValueError."""
    for name, value in takes.items():
        texts = cast("Collection[object]", value.values() if isinstance(value, dict) else value)
        if name == "schema":
            right = value in SCHEMAS
        elif name == "limit":
            right = value in _LIMIT_NAMES
        elif name in ("names", "roles"):
            right = isinstance(value, dict) and all(isinstance(text, str) for text in texts)
        else:
            right = name == "without" and isinstance(value, list) and all(isinstance(text, str) for text in texts)
        if not right:
            raise ValueError(
                f"{name} = {value!r}: known are schema ({', '.join(SCHEMAS)}), limit ({', '.join(sorted(_LIMIT_NAMES))}), "
                "names, roles (tables of text) and without (a list of names)"
            )


def spelling_of(takes: Mapping[str, Any], prompt: Prompt, params: Collection[str]) -> Spelling | None:
    """None if unchanged; `params` are kept."""
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
