"""Files and batches over HTTP, as OpenAI (API reference of 2026-08) and Anthropic (2026-09) have them."""

import json
import math
from collections.abc import Callable
from email.message import Message
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import orjson

from batchrun.models import Endpoint
from batchrun.sim.batches import (
    ENDED,
    MOST_BYTES,
    Batch,
    File,
    Row,
    Store,
    checked,
    digest,
    file_object,
    message_batch,
    message_lines,
    openai_batch,
    openai_lines,
    page,
    paged,
    shuffled,
)
from batchrun.sim.http import Answer, Call
from batchrun.sim.replies import dump
from batchrun.sim.settings import Settings

_DAY = 86_400.0
_NEVER = 1e12
_ENDPOINTS = {str(endpoint) for endpoint in Endpoint}
Complete = Callable[[str, dict[str, Any], str], Row]


class RefusedCallError(Exception):
    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class _BatchCall(NamedTuple):
    kind: str
    shape: str
    steps: list[str]
    query: dict[str, str]
    owner: str
    call: Call


class BatchCalls:
    """`epoch` is Unix time; a batch created while `stuck` never ends."""

    def __init__(self, store: Store, epoch: Callable[[], float], complete: Complete) -> None:
        self._store = store
        self._epoch = epoch
        self._complete = complete
        self.settings = Settings()
        self.stuck = False
        self._host = ""

    def kind(self, call: Call) -> str | None:
        path = urlsplit(call.path).path.rstrip("/")
        steps = path.removeprefix("/v1/").removeprefix("messages/").split("/")
        if not path.startswith("/v1/") or steps[0] not in ("files", "batches") or len(steps) > 3:
            return None
        creates = "upload" if steps[0] == "files" else "create"
        kinds = {
            ("POST", 1): creates, ("GET", 1): "list", ("GET", 2): "retrieve", ("DELETE", 2): "delete",
            ("GET", 3): "content", ("POST", 3): "cancel",
        }  # fmt: skip
        return kinds.get((call.method, len(steps)))

    def do(self, kind: str, call: Call) -> Answer:
        url = urlsplit(call.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        steps = url.path.rstrip("/").removeprefix("/v1/").split("/")
        shape = "anthropic" if steps[0] == "messages" else "openai"
        steps = steps[1:] if shape == "anthropic" else steps
        owner = digest(call.headers.get("x-api-key") or call.headers.get("authorization", ""))
        self._host = call.headers.get("host", "")
        try:
            value = self._done(_BatchCall(kind, shape, steps, query, owner, call))
        except RefusedCallError as refused:
            kind = "not_found_error" if refused.status == 404 else "invalid_request_error"
            inner: dict[str, Any] = {"message": str(refused), "type": kind}
            if shape == "anthropic":
                return Answer(refused.status, orjson.dumps({"type": "error", "error": inner}))
            return Answer(refused.status, orjson.dumps({"error": {**inner, "param": None, "code": refused.code}}))
        if isinstance(value, bytes):
            return Answer(
                200, value, kind="application/x-jsonl" if shape == "anthropic" else "application/octet-stream"
            )
        return Answer(200, dump(value))

    def paid(self) -> int:
        self._settle_all()
        now = self._epoch()
        return sum(batch.succeeded if batch.settled else batch.done(now) for batch in self._store.batches.values())

    def view(self) -> dict[str, Any]:
        paid, now = self.paid(), self._epoch()
        statuses = {batch.id: batch.status(now) for batch in self._store.batches.values()}
        uploads = sum(file.purpose != "batch_output" for file in self._store.files.values())
        return {"batch_completions": paid, "batches": statuses, "uploads": uploads}

    def _done(self, request: _BatchCall) -> Any:
        self._settle_all()
        now = self._epoch()
        if request.steps[0] == "files":
            return self._files(request)
        if request.kind == "create":
            create = self._create_messages if request.shape == "anthropic" else self._create
            return self._object_of(create(_json(request.call.body), request.owner))
        if request.kind == "list":
            mine = (
                batch for batch in self._store.batches.values()
                if batch.owner == request.owner and batch.shape == request.shape and batch.listed <= now
            )  # fmt: skip
            batches, more = page(
                mine, request.query.get("after") or request.query.get("after_id"), _limit(request.query, 1000)
            )
            return paged([self._object_of(batch) for batch in batches], more, request.shape)
        batch = self._store.batches.get(request.steps[1])
        if batch is None or batch.owner != request.owner or batch.shape != request.shape or batch.found > now:
            raise RefusedCallError(404, f"No batch found with id '{request.steps[1]}'.")
        if request.kind == "cancel":
            if batch.status(now) in ENDED:
                status = 400 if request.shape == "anthropic" else 409
                raise RefusedCallError(status, f"Cannot cancel a batch with status '{batch.status(now)}'.")
            if batch.cancel is None:
                batch.cancel = now
                self._store.put(batch)
            self._settle_all()
        elif request.kind == "content":
            if not batch.settled:
                raise RefusedCallError(404, f"The results of {batch.id} are not available yet.")
            return self._store.content(batch.output) if batch.output else b""
        elif request.kind == "delete":
            self._store.delete(batch)
            return {"id": batch.id, "type": "message_batch_deleted"}
        return self._object_of(batch)

    def _files(self, request: _BatchCall) -> Any:
        if request.kind == "upload":
            return file_object(self._upload(request.call, request.owner))
        if request.kind == "list":
            purpose = request.query.get("purpose")
            mine = (
                file for file in self._store.files.values()
                if file.owner == request.owner and purpose in (None, file.purpose)
            )  # fmt: skip
            files, more = page(mine, request.query.get("after"), _limit(request.query, 10_000))
            return paged([file_object(each) for each in files], more, "openai")
        file = self._store.files.get(request.steps[1])
        if file is None or file.owner != request.owner or (file.expires or math.inf) <= self._epoch():
            raise RefusedCallError(404, f"No such File object: {request.steps[1]}")
        if request.kind == "content":
            return self._store.content(file.id)
        if request.kind == "delete":
            self._store.delete(file)
            return {"id": file.id, "object": "file", "deleted": True}
        return file_object(file)

    def _upload(self, call: Call, owner: str) -> File:
        fields = _form(call)
        name, content = fields.get("file", ("", b""))
        purpose = fields.get("purpose", ("", b""))[1].decode()
        if "file" not in fields or not purpose:
            raise RefusedCallError(400, "'file' and 'purpose' are required properties.")
        if purpose.startswith("batch") and not name.endswith(".jsonl"):
            raise RefusedCallError(400, f"Invalid file format for Batch API. Must be .jsonl, got {name}.")
        if len(content) > MOST_BYTES:
            raise RefusedCallError(413, f"The file is too large: the limit is {MOST_BYTES // 1_000_000} MB.")
        seconds = fields.get("expires_after[seconds]", ("", b""))[1]
        now = self._epoch()
        expires = now + int(seconds) if seconds else None
        file = File(id=self._store.new_id("file-"), owner=owner, name=name, purpose=purpose, created=now,
                    size=len(content), expires=expires)  # fmt: skip
        self._store.put(file, content)
        return file

    def _create(self, params: dict[str, Any], owner: str) -> Batch:
        endpoint, identifier = str(params.get("endpoint")), str(params.get("input_file_id"))
        if endpoint not in _ENDPOINTS:
            raise RefusedCallError(400, f"Invalid value: '{endpoint}'. Supported values are: {', '.join(_ENDPOINTS)}.")
        if not str(params.get("completion_window") or "").endswith("h"):
            raise RefusedCallError(400, "Invalid value for 'completion_window'. Supported values are: '24h'.")
        file = self._store.files.get(identifier)
        if file is None or file.owner != owner:
            missing = f"The input file {identifier} does not exist or cannot be read."
            errors = [{"code": "invalid_request", "line": None, "message": missing, "param": "input_file_id"}]
            requests: list[dict[str, Any]] = []
        else:
            requests, errors = checked(self._store.content(identifier), endpoint)
        tokens = sum(-(-len(orjson.dumps(request["body"])) // 4) for request in requests)
        return self._new(
            "openai", owner, len(requests), errors=errors, tokens=tokens, file=identifier, endpoint=endpoint,
            metadata=params.get("metadata"), model=requests[0]["body"].get("model", "") if requests else "",
        )  # fmt: skip

    def _create_messages(self, params: dict[str, Any], owner: str) -> Batch:
        requests: Any = params.get("requests")
        if not isinstance(requests, list) or not requests:
            raise RefusedCallError(400, "requests: at least one request is needed")
        names = [str(request.get("custom_id")) for request in requests]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType, reportUnknownArgumentType]  # foreign JSON
        for place, name in enumerate(names):
            if not (1 <= len(name) <= 64 and name.isascii() and name.replace("-", "").replace("_", "").isalnum()):
                raise RefusedCallError(
                    400, f"requests.{place}.custom_id: string should match '^[a-zA-Z0-9_-]{{1,64}}$'"
                )
        if len(set(names)) < len(names):
            raise RefusedCallError(400, "requests: custom_id must be unique within a batch")
        tokens = -(-len(orjson.dumps(requests)) // 4)
        batch = self._new("anthropic", owner, len(names), tokens=tokens)
        self._store.put(batch, orjson.dumps(requests))
        return batch

    def _new(self, shape: str, owner: str, rows: int, *, tokens: int, errors: Any = (), **members: Any) -> Batch:
        settings, now = self.settings, self._epoch()
        scale = settings.time_scale
        started = now + (settings.batch_validation / scale if shape == "openai" else 0.0)
        used = sum(
            other.tokens for other in self._store.batches.values()
            if other.owner == owner and other.status(now) not in ENDED
        )  # fmt: skip
        if shape == "openai" and not errors and settings.enqueued_tokens and used + tokens > settings.enqueued_tokens:
            message = (
                f"Enqueued token limit reached for {members['model']} in organization org-simulated. "
                f"Limit: {settings.enqueued_tokens:,} enqueued tokens. Please try again once some in_progress batches "
                "have been completed."
            )
            errors = [{"code": "token_limit_exceeded", "line": None, "message": message, "param": None}]
        ends, expires, share = started + settings.batch_seconds / scale, now + _DAY / scale, 1.0
        if settings.batch_expire is not None:
            share = settings.batch_expire
        elif ends > expires:
            ends, share = expires, (expires - started) / (ends - started)
        if self.stuck:
            ends, share = started + _NEVER, 1.0
        batch = Batch(
            id=self._store.new_id("batch_" if shape == "openai" else "msgbatch_"),
            shape=shape, owner=owner, rows=rows, tokens=tokens, errors=list(errors), created=now, started=started,
            ends=ends, expires=expires, share=share, listed=now + settings.batch_listed / scale, found=now + settings.batch_found / scale,
            cancelling=settings.batch_cancelling / scale, **members,
        )  # fmt: skip
        self._store.put(batch)
        return batch

    def _settle_all(self) -> None:
        now = self._epoch()
        for batch in list(self._store.batches.values()):
            if not batch.settled and batch.status(now) in ENDED:
                self._settle(batch)

    def _settle(self, batch: Batch) -> None:
        status, done = batch.status(batch.end()), batch.done(batch.end())
        rows = [] if batch.errors else shuffled(self._rows(batch), batch.id)
        write = message_lines if batch.shape == "anthropic" else openai_lines
        output: list[bytes] = []
        errors: list[bytes] = []
        for place, (name, body) in enumerate(rows):
            if place >= done:
                target, lines = errors, write(name, None, status)
            else:
                row = self._complete(batch.endpoint or "messages", body, name)
                fine = row["status"] == 200
                batch.succeeded, batch.errored = batch.succeeded + fine, batch.errored + (not fine)
                for member, tokens in row.get("usage", {}).items():
                    batch.usage[member] = batch.usage.get(member, 0) + tokens
                target, lines = (output if fine else errors), write(name, row, status)
            (output if batch.shape == "anthropic" else target).extend(lines)
        batch.output, batch.error = self._made(batch, "output", output), self._made(batch, "error", errors)
        batch.settled = True
        self._store.put(batch)

    def _rows(self, batch: Batch) -> list[tuple[str, dict[str, Any]]]:
        if batch.shape == "anthropic":
            return [(each["custom_id"], each["params"]) for each in orjson.loads(self._store.content(batch.id))]
        lines = self._store.content(batch.file).splitlines()
        return [(str(line["custom_id"]), line["body"]) for line in map(orjson.loads, lines)]

    def _made(self, batch: Batch, what: str, lines: list[bytes]) -> str | None:
        # the id of a result file; without lines the placeholder of `empty_files`
        if not lines and (self.settings.empty_files != "file" or batch.errors):
            return "" if self.settings.empty_files == "text" else None
        file = File(id=self._store.new_id("file-"), owner=batch.owner, name=f"{batch.id}_{what}.jsonl",
                    purpose="batch_output", created=batch.end(), size=sum(map(len, lines)) + len(lines))  # fmt: skip
        self._store.put(file, b"".join(line + b"\n" for line in lines))
        return file.id

    def _object_of(self, batch: Batch) -> dict[str, Any]:
        now = self._epoch()
        return message_batch(batch, now, self._host) if batch.shape == "anthropic" else openai_batch(batch, now)


def _limit(query: dict[str, str], most: int) -> int:
    limit = query.get("limit", "20")
    if not limit.isdigit() or not 1 <= int(limit) <= most:
        raise RefusedCallError(400, f"limit: {limit} is not from 1 to {most}")
    return int(limit)


def _json(body: bytes) -> dict[str, Any]:
    try:
        params: Any = json.loads(body)
    except (ValueError, RecursionError):
        params = None
    if not isinstance(params, dict):
        raise RefusedCallError(400, "We could not parse the JSON body of your request.")
    return params  # pyright: ignore[reportUnknownVariableType]  # foreign JSON


def _form(call: Call) -> dict[str, tuple[str, bytes]]:
    # RFC 7578
    kind = Message()
    kind["content-type"] = call.headers.get("content-type", "")
    boundary = kind.get_param("boundary")
    if not isinstance(boundary, str):
        raise RefusedCallError(400, "Expected a multipart/form-data body.")
    fields: dict[str, tuple[str, bytes]] = {}
    for part in call.body.split(b"--" + boundary.encode())[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        headers = Message()
        for line in head.decode("utf-8", "replace").strip().split("\r\n"):
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        name = headers.get_param("name", header="content-disposition")
        fields[str(name)] = (headers.get_filename(""), content.removesuffix(b"\r\n"))
    return fields
