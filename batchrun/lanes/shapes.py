"""How vendors spell batches: calls, objects, lines of requests and of results. Pure."""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import orjson

from batchrun.lanes.executor import Completion, CompletionKind
from batchrun.lanes.messages import as_chat, as_message, status_of
from batchrun.lanes.vendors import Vendor
from batchrun.models import Endpoint, Request

TAG = "batchrun"  # the member of a batch's metadata that holds its tag
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
# as OpenAI's; Together's are in upper case
_STATUSES = {
    "queued": "in_progress",
    "running": "in_progress",
    "success": "completed",
    "timeout_exceeded": "expired",
    "cancellation_requested": "cancelling",
    "canceling": "cancelling",
    "canceled": "cancelled",
    "ended": "completed",
}
_string = json.encoder.encode_basestring_ascii
_TEXT = rb'(?:"[^"\\\x00-\x1f]*"|null)'
_OUTER = rb'(?:"(?:id|object|error)"\s*:\s*%b|"custom_id"\s*:\s*"([^"\\\x00-\x1f]*)")' % _TEXT
_INNER = rb'(?:"(?:id|request_id)"\s*:\s*%b|"status_code"\s*:\s*([1-9]\d*))' % _TEXT
_HEAD = re.compile(rb'\s*\{\s*(?:%b\s*,\s*)*"response"\s*:\s*\{\s*(?:%b\s*,\s*)*"body"\s*:\s*' % (_OUTER, _INNER))
# what surrounds the body of a reply in a line: only the body is parsed
_TAIL = re.compile(rb"(?:\s*,\s*%b)*\s*\}(?:\s*,\s*%b)*\s*\}\s*\Z" % (_INNER, _OUTER))
_LONGEST_TAIL = 1000


def json_object(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def json_objects(value: Any) -> list[dict[str, Any]]:
    return (
        [json_object(item) for item in cast("list[Any]", value) if isinstance(item, dict)]
        if isinstance(value, list)
        else []
    )


class Batch(NamedTuple):
    id: str
    status: str
    input: str | None
    tag: str | None
    total: int | None  # requests, if stated
    created: float
    expires: float | None
    output: str | None  # file or address
    error: str | None  # the same
    errors: tuple[Mapping[str, Any], ...]  # of the whole
    done: int = 0
    failed: int = 0

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class Calling(NamedTuple):
    method: str
    path: str
    body: Any = None


class OpenAIShape:
    headers: Mapping[str, str] = {}
    inline = False
    key_header: str | None = None
    head = separator = tail = b""  # what a file has before, between and after its lines

    def __init__(self, vendor: Vendor) -> None:
        self.vendor = vendor
        self._behind = dict[Endpoint, bytes]()
        self._tail: tuple[bytes, bytes | None, bytes | None] | None = None

    def line(self, custom_id: str, request: Request) -> bytes:
        """The body is sent unchanged."""
        behind = self._behind.get(request.endpoint)
        if behind is None:
            behind = f', "method": "POST", "url": "{request.endpoint.value}","body":'.encode()
            self._behind[request.endpoint] = behind
        return b'{"custom_id": %b%b%b}\n' % (_string(custom_id).encode(), behind, request.body)

    def create(self, file: str, endpoint: str, model: str, tag: str) -> Calling:
        # `model` is for vendors that need it there
        body = {"input_file_id": file, "endpoint": endpoint, "completion_window": self.vendor.window}
        return Calling("POST", "batches", body | ({"metadata": {TAG: tag}} if self.vendor.metadata else {}))

    def listing(self, cursor: str | None) -> Calling:
        return Calling("GET", f"batches?limit=100{f'&after={cursor}' if cursor else ''}")

    def retrieve(self, batch: str) -> Calling:
        return Calling("GET", f"batches/{batch}")

    def cancel(self, batch: str) -> Calling:
        return Calling("POST", f"batches/{batch}/cancel")

    def content(self, file: str) -> str:
        return f"files/{file}/content"

    def page(self, body: Mapping[str, Any], cursor: str | None) -> tuple[list[Batch], str | None]:
        """With the next cursor, None at the end."""
        batches = [self.batch(item) for item in json_objects(body.get("data")) if item.get("id")]
        more = bool(body.get("has_more")) and bool(batches)
        return batches, (str(body.get("last_id") or batches[-1].id) if more else None)

    def batch(self, body: Mapping[str, Any]) -> Batch:
        counts = json_object(body.get("request_counts"))
        metadata = json_object(body.get("metadata"))
        errors = body.get("errors")
        listed = json_object(errors).get("data") if isinstance(errors, dict) else errors
        return Batch(
            id=str(body["id"]),
            status=status(body.get("status")),
            input=body.get("input_file_id"),
            tag=metadata.get(TAG),
            total=counts.get("total"),
            created=float(body.get("created_at") or 0),
            expires=body.get("expires_at"),
            output=body.get("output_file_id") or None,
            error=body.get("error_file_id") or None,
            errors=tuple(json_objects(listed)),
            done=int(counts.get("completed") or 0),
            failed=int(counts.get("failed") or 0),
        )

    def reply(self, line: bytes) -> tuple[str, bytes, Any] | None:
        """(custom_id, exact body, its JSON) of a reply in the usual spelling."""
        head = _HEAD.match(line)
        if head is None:
            return None
        if not (self._tail and line.endswith(self._tail[0])):
            found = _TAIL.search(line, max(head.end(), len(line) - _LONGEST_TAIL))
            if found is None:
                return None
            self._tail = found[0], found[1], found[2]
        (tail, status, named), (first, before) = self._tail, head.groups()
        body, named = line[head.end() : -len(tail)], named or first
        if (status or before) != b"200" or named is None:
            return None
        try:
            data: Any = orjson.loads(body)
        except ValueError:
            return None
        return (str(named, "utf-8"), body, json_object(data)) if isinstance(data, dict) else None

    def completion(self, line: Mapping[str, Any], seq: int, number: int) -> Completion:
        response = json_object(line.get("response"))
        code, body = response.get("status_code"), response.get("body")
        if isinstance(code, int) and 100 <= code < 600:
            data = body.encode() if isinstance(body, str) else json.dumps(body, ensure_ascii=False).encode()
            kind = CompletionKind.REPLY if code == 200 else CompletionKind.FAILURE
            return Completion(seq, number, kind, code, data)
        return _without_response(line.get("error"), seq, number)


def _without_response(error: Any, seq: int, number: int) -> Completion:
    # The error's code says whether the request was processed.
    found = json_object(error)
    code = str(found.get("code") or found.get("type") or "")
    message = str(found.get("message") or (error if isinstance(error, str) else "") or code or "the line has no answer")
    if code in ("batch_expired", "batch_cancelled", "canceled", "cancelled", "expired"):
        return Completion(seq, number, CompletionKind.GONE, message=message)
    return Completion(seq, number, CompletionKind.LOST, message=message)


def hours(window: str) -> int:
    return int(window[:-1]) * (24 if window.endswith("d") else 1)


def status(value: Any) -> str:
    """As OpenAI's; an unknown one counts as under way."""
    word = str(value or "").lower().removeprefix("batch_status_")
    return _STATUSES.get(word, word)


class MistralShape(OpenAIShape):
    """The model is on the job, lines have no address."""

    def line(self, custom_id: str, request: Request) -> bytes:
        return b'{"custom_id":%b,"body":%b}\n' % (_string(custom_id).encode(), request.body)

    def create(self, file: str, endpoint: str, model: str, tag: str) -> Calling:
        body = {
            "input_files": [file],
            "endpoint": endpoint,
            "model": model,
            "timeout_hours": hours(self.vendor.window),
            "metadata": {TAG: tag},
        }
        return Calling("POST", "batch/jobs", body)

    def listing(self, cursor: str | None) -> Calling:
        return Calling("GET", f"batch/jobs?page_size=100&page={cursor or 0}")

    def retrieve(self, batch: str) -> Calling:
        return Calling("GET", f"batch/jobs/{batch}")

    def cancel(self, batch: str) -> Calling:
        return Calling("POST", f"batch/jobs/{batch}/cancel")

    def page(self, body: Mapping[str, Any], cursor: str | None) -> tuple[list[Batch], str | None]:
        batches = [self.batch(item) for item in json_objects(body.get("data")) if item.get("id")]
        return batches, (str(int(cursor or 0) + 1) if len(batches) == 100 else None)

    def batch(self, body: Mapping[str, Any]) -> Batch:
        metadata = json_object(body.get("metadata"))
        return Batch(
            id=str(body["id"]),
            status=status(body.get("status")),
            input=next(iter(cast("list[str]", body.get("input_files") or [])), None),
            tag=metadata.get(TAG),
            total=body.get("total_requests"),
            created=float(body.get("created_at") or 0),
            expires=None,
            output=body.get("output_file") or None,
            error=body.get("error_file") or None,
            errors=tuple(json_objects(body.get("errors"))),
            done=int(body.get("succeeded_requests") or 0),
            failed=int(body.get("failed_requests") or 0),
        )


class AnthropicShape(OpenAIShape):
    """No file, no label; its own API."""

    headers: Mapping[str, str] = {"anthropic-version": "2023-06-01"}
    inline = True
    key_header = "x-api-key"
    head, separator, tail = b'{"requests":[', b",", b"]}"

    def line(self, custom_id: str, request: Request) -> bytes:
        """Raises RefusedError."""
        params = as_message(json.loads(bytes(request.body)))
        return json.dumps({"custom_id": custom_id, "params": params}, ensure_ascii=False).encode()

    def create(self, file: str, endpoint: str, model: str, tag: str) -> Calling:
        return Calling("POST", "messages/batches")

    def listing(self, cursor: str | None) -> Calling:
        return Calling("GET", f"messages/batches?limit=100{f'&after_id={cursor}' if cursor else ''}")

    def retrieve(self, batch: str) -> Calling:
        return Calling("GET", f"messages/batches/{batch}")

    def cancel(self, batch: str) -> Calling:
        return Calling("POST", f"messages/batches/{batch}/cancel")

    def content(self, file: str) -> str:
        return file

    def reply(self, line: bytes) -> tuple[str, bytes, Any] | None:
        return None  # the reply is spelled as a chat completion first

    def batch(self, body: Mapping[str, Any]) -> Batch:
        counts = json_object(body.get("request_counts"))
        known = {
            name: int(counts.get(name) or 0) for name in ("processing", "succeeded", "errored", "canceled", "expired")
        }
        return Batch(
            id=str(body["id"]),
            status=status(body.get("processing_status")),
            input=None,
            tag=None,
            total=sum(known.values()),
            created=_time(body.get("created_at")),
            expires=_time(body.get("expires_at")) or None,
            output=f"messages/batches/{body['id']}/results" if body.get("results_url") else None,
            error=None,
            errors=(),
            done=known["succeeded"],
            failed=known["errored"],
        )

    def completion(self, line: Mapping[str, Any], seq: int, number: int) -> Completion:
        result = json_object(line.get("result"))
        match result.get("type"):
            case "succeeded":
                return Completion(seq, number, CompletionKind.REPLY, 200, as_chat(result.get("message")))
            case "errored":
                error = json_object(result.get("error"))
                inner = json_object(error.get("error")) or error
                data = json.dumps({"error": inner}, ensure_ascii=False).encode()
                return Completion(seq, number, CompletionKind.FAILURE, status_of(inner.get("type")), data)
            case kind:
                return Completion(seq, number, CompletionKind.GONE, message=str(kind or "no result"))


def _time(value: Any) -> float:
    """Unix seconds of an RFC 3339 time; 0 for none."""
    from datetime import datetime  # noqa: PLC0415  only for this shape

    return datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp() if isinstance(value, str) else 0.0


SHAPES: dict[str, type[OpenAIShape]] = {"openai": OpenAIShape, "mistral": MistralShape, "anthropic": AnthropicShape}


def wire_id(run: str, seq: int, number: int) -> str:
    """The `custom_id`: at most 64 of [A-Za-z0-9_-]."""
    return f"{run[-40:]}-{seq}-{number}"


def parse_wire_id(run: str, custom_id: Any) -> tuple[int, int] | None:
    """(row, attempt), None for a foreign id."""
    head, _, number = str(custom_id).rpartition("-")
    head, _, seq = head.rpartition("-")
    if head != run[-40:] or not (seq.isdecimal() and number.isdecimal()):
        return None
    return int(seq), int(number)


def object_of(line: bytes) -> Mapping[str, Any]:
    """Raises ValueError."""
    value = json.loads(line)
    if not isinstance(value, dict):
        raise ValueError("a line of the results is not an object")
    return cast("dict[str, Any]", value)
