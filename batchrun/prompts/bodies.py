"""Ready-made requests: OpenAI Batch lines, whose `body` is sent unchanged, and bare bodies.

Source: https://platform.openai.com/docs/guides/batch
"""

import re
from collections.abc import Mapping
from json import JSONDecoder
from typing import Any, NoReturn, cast

from jiter import from_json

from batchrun.errors import PromptError
from batchrun.models import Endpoint, Request, Row
from batchrun.prompts.definition import Renderer, RenderError, did_you_mean
from batchrun.prompts.request import CONTENT, output_limit, to_json

_URLS: Mapping[str, Endpoint] = {
    url: endpoint
    for endpoint in Endpoint
    if endpoint is not Endpoint.TRANSCRIPTIONS  # forms, and no JSON
    for url in (endpoint.value, endpoint.value.removeprefix("/v1"))
}
_BLANKS = b" \t\n\r"
_FEW = 20  # `find` is 25 times as fast as an expression, but slow to start
_FURTHER = re.compile(rb'\}[ \t\n\r]*+,[ \t\n\r]*+"')
_scan = JSONDecoder().raw_decode


def batch_renderer() -> Renderer:
    return _BatchRenderer()


def body_renderer(
    *, endpoint: Endpoint | None, model: str | None, params: Mapping[str, Any], id_column: str | None
) -> Renderer:
    """`model` and `params` are defaults. Raises PromptError."""
    return _BodyRenderer(endpoint, model, params, id_column)


class _BatchRenderer:
    def render(self, row: Row) -> Request:
        """Raises RenderError for a wrong `url`, `method` or `body`."""
        fields = row.fields
        body = fields.get("body")
        if type(body) is not dict:
            raise RenderError("`body` must be an object", "A Batch line has `custom_id`, `method`, `url` and `body`.")
        given = cast("dict[str, Any]", body)
        url = fields.get("url")
        endpoint = _URLS.get(url) if type(url) is str else None
        if endpoint is None:
            endpoint = _endpoint_of(given) if url is None else _wrong_url(url)
        if fields.get("method", "POST") != "POST":
            raise RenderError(f"`method` is {fields['method']!r}, but only POST is supported")
        if given.get("stream"):
            raise _streamed()
        try:
            encoded = row.text.encode() if row.encoded is None else row.encoded
        except UnicodeEncodeError:
            raise RenderError("the row is not Unicode text (a lone surrogate)") from None
        start, end = _place_of_body(encoded)
        return Request(endpoint, encoded[start:end], output_limit(endpoint, given), named=_named(given), start=start)


class _BodyRenderer:
    def __init__(
        self, endpoint: Endpoint | None, model: str | None, params: Mapping[str, Any], id_column: str | None
    ) -> None:
        if params.get("stream"):
            raise PromptError("`stream` is not supported: replies are read whole", "Omit the parameter.")
        if endpoint is Endpoint.TRANSCRIPTIONS:
            raise PromptError("transcriptions need a prompt", "Use one with an input of kind audio: docs/media.md.")
        self._endpoint = endpoint
        self._added = ({"model": model} if model else {}) | dict(params)
        self._id_column = id_column

    def render(self, row: Row) -> Request:
        body = self._added | row.fields if self._added else dict(row.fields)
        if self._id_column is not None:
            body.pop(self._id_column, None)
        endpoint = self._endpoint or _endpoint_of(body)
        if CONTENT[endpoint] not in body:
            raise RenderError(
                f"the body has no `{CONTENT[endpoint]}`, which {endpoint} needs",
                "All bodies of an input are sent to the endpoint of the first one; --endpoint selects another.",
            )
        if body.get("stream"):
            raise _streamed()
        try:
            sent = to_json(body).encode()
        except (ValueError, RecursionError) as error:
            raise RenderError(f"the body cannot be sent as JSON: {error}") from None
        return Request(endpoint, sent, output_limit(endpoint, body), named=_named(body))


def _named(body: Mapping[str, Any]) -> tuple[Any, Any]:
    return body.get("model"), body.get("service_tier")


def _place_of_body(text: bytes) -> tuple[int, int]:
    # If it is the last member and no object precedes it, as usual, the first `"body":` is its name, and its value
    # reaches to the last brace.
    name = text.find(b'"body":')
    if name > 0 and text[name - 1] != ord("\\") and text.count(b"{", 0, name) == 1:
        start, end = _skip(text, name + len(b'"body":')), text.rindex(b"}")
        while text[end - 1] in _BLANKS:
            end -= 1
        if _is_one_value(text, start, end):
            return start, end
    return _place_by_scan(text)


def _is_one_value(text: bytes, start: int, end: int) -> bool:
    # whether no member follows, after a brace and a comma
    if text[start] == ord("{") and not _is_followed(text, start, end):
        return True
    try:
        from_json(text[start:end])
    except ValueError:
        return False
    return True


def _is_followed(text: bytes, start: int, end: int) -> bool:
    at = start - 1
    for _ in range(_FEW):
        if (at := text.find(b"}", at + 1, end)) < 0:
            return False
        if _FURTHER.match(text, at, end):
            return True
    return _FURTHER.search(text, at, end) is not None


def _place_by_scan(encoded: bytes) -> tuple[int, int]:
    # of several bodies the last
    text = encoded.decode()
    index, found = _after(text, text.index("{") + 1), (0, 0)
    while text[index] == '"':
        key, index = _scan(text, index)
        start = _after(text, _after(text, index) + 1)
        _, index = _scan(text, start)
        if key == "body":
            found = start, index
        index = _after(text, index)
        if text[index] != ",":
            break
        index = _after(text, index + 1)
    start, end = (len(text[:place].encode()) for place in found)
    return start, end


def _after(text: str, index: int) -> int:
    while text[index] in " \t\n\r":
        index += 1
    return index


def _skip(text: bytes, index: int) -> int:
    while text[index] in _BLANKS:
        index += 1
    return index


def _endpoint_of(body: Mapping[str, Any]) -> Endpoint:
    if "messages" in body:
        return Endpoint.CHAT
    if "input" in body:
        return Endpoint.RESPONSES
    if "prompt" in body:
        return Endpoint.COMPLETIONS
    raise RenderError(
        "the body has neither `messages` nor `input`", "A body for chat needs `messages`, one for responses `input`."
    )


def _wrong_url(url: Any) -> NoReturn:
    near = did_you_mean(url, [endpoint.value for endpoint in Endpoint]) if isinstance(url, str) else ""
    known = ", ".join(endpoint.value for endpoint in Endpoint)
    raise RenderError(f"`url` is {url!r}, which is not an endpoint{near}", f"Known: {known}.")


def _streamed() -> RenderError:
    return RenderError("`stream` is not supported: replies are read whole", "Remove `stream` from the body.")
