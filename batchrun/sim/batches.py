"""Simulated files and batches, their objects and result lines. Times are Unix seconds.

A batch stores the times of its phases; its status is computed from them, so a restarted server continues.

    created ─ validation ─► started ─ the rows, one after the other, in an arbitrary order ─► ends
                  failed        └ cancelled at any time, expired at a share of the rows
"""

import json
import math
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

from batchrun.sim.replies import dump

MOST_LINES = 50_000  # limits of OpenAI's batch files
MOST_BYTES = 200_000_000
ENDED = frozenset({"failed", "completed", "expired", "cancelled"})


@dataclass(kw_only=True)
class File:
    id: str
    owner: str  # the digest of a key
    name: str
    purpose: str
    created: float
    size: int
    expires: float | None = None


@dataclass(kw_only=True)
class Batch:
    id: str
    shape: str  # `openai` or `anthropic`
    owner: str
    created: float
    started: float
    ends: float
    expires: float
    listed: float
    found: float
    cancelling: float
    rows: int
    tokens: int  # count while it is enqueued
    file: str = ""
    endpoint: str = ""
    model: str = ""
    metadata: dict[str, Any] | None = None
    share: float = 1.0  # the part of the rows that is done when it expires, else 1
    cancel: float | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)
    settled: bool = False
    output: str | None = None  # id of a file or its placeholder
    error: str | None = None  # id of a file or its placeholder
    succeeded: int = 0
    errored: int = 0
    usage: dict[str, int] = field(default_factory=dict)

    def done(self, now: float) -> int:
        """Rows that are paid for."""
        until = min(now, self.cancel if self.cancel is not None else now)
        if self.errors or until < self.started:
            return 0
        whole = self.share * self.rows
        return math.floor(whole if until >= self.ends else whole * (until - self.started) / (self.ends - self.started))

    def end(self) -> float:
        if self.cancel is not None:
            return min(self.ends, self.cancel + (self.cancelling if self.cancel >= self.started else 0.0))
        return self.started if self.errors else self.ends

    def status(self, now: float) -> str:
        """The status in OpenAI's terms."""
        if self.cancel is not None and self.cancel < self.ends:
            return "cancelled" if now >= self.end() else "cancelling"
        if now < self.started:
            return "validating"
        if self.errors:
            return "failed"
        if now < self.end():
            return "in_progress" if now < self.ends - 0.1 * (self.ends - self.started) else "finalizing"
        return "completed" if self.share >= 1 else "expired"


class Store:
    """Records are written and renamed, so a killed server leaves whole ones."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._contents: dict[str, bytes] = {}
        self.files: dict[str, File] = {}
        self.batches: dict[str, Batch] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(folder.glob("*.json")):
                record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                kept = File(**record) if "purpose" in record else Batch(**record)
                (self.files if isinstance(kept, File) else self.batches)[kept.id] = kept  # pyright: ignore[reportArgumentType]  # by its kind
        self._number = max((int(name[-8:]) for name in (*self.files, *self.batches)), default=0)

    def new_id(self, prefix: str) -> str:
        self._number += 1
        return f"{prefix}sim_{self._number:08d}"

    def put(self, record: File | Batch, content: bytes | None = None) -> None:
        if isinstance(record, File):
            self.files[record.id] = record
        else:
            self.batches[record.id] = record
        if content is not None:
            self._contents[record.id] = content
        if self._folder is not None:
            for suffix, data in ((".data", content), (".json", orjson.dumps(asdict(record)))):
                if data is not None:
                    path = self._folder / (record.id + suffix)
                    path.with_suffix(".new").write_bytes(data)
                    os.replace(path.with_suffix(".new"), path)

    def content(self, identifier: str) -> bytes:
        if identifier not in self._contents and self._folder is not None:
            self._contents[identifier] = (self._folder / f"{identifier}.data").read_bytes()
        return self._contents[identifier]

    def delete(self, record: File | Batch) -> None:
        self.files.pop(record.id, None)
        self.batches.pop(record.id, None)
        self._contents.pop(record.id, None)
        if self._folder is not None:
            for suffix in (".json", ".data"):
                (self._folder / (record.id + suffix)).unlink(missing_ok=True)


def checked(content: bytes, endpoint: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    requests: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    seen: set[str] = set()
    model: Any = None

    def wrong(line: int, code: str, message: str, param: str | None = None) -> None:
        errors.append({"code": code, "line": line, "message": message, "param": param})

    for line, text in enumerate(content.splitlines(), 1):
        try:
            request: Any = orjson.loads(text)
            name, url, body = request["custom_id"], request["url"], request["body"]
            name, named = str(name), body.get("model")
        except (ValueError, KeyError, TypeError, AttributeError):
            wrong(
                line,
                "invalid_json_line",
                "This line is not parseable as valid JSON with custom_id, method, url and body.",
            )
            continue
        model = model or named
        if name in seen:
            wrong(line, "duplicate_custom_id", f"The custom_id '{name}' was already used in this file.", "custom_id")
        if url != endpoint:
            wrong(line, "mismatched_url", f"The URL '{url}' does not match the batch endpoint '{endpoint}'.", "url")
        if named != model:
            wrong(
                line,
                "mismatched_model",
                f"The model '{named}' is not that of the other lines, '{model}'.",
                "body.model",
            )
        seen.add(name)
        requests.append(request)
    if len(requests) > MOST_LINES:
        message = f"The batch has {len(requests):,} requests; the limit is {MOST_LINES:,}."
        errors.append({"code": "too_many_tasks", "line": None, "message": message, "param": None})
    if not requests and not errors:
        errors.append({"code": "empty_file", "line": None, "message": "The input file is empty.", "param": None})
    return requests, errors


def shuffled(rows: Iterable[tuple[str, dict[str, Any]]], seed: str) -> list[tuple[str, dict[str, Any]]]:
    return sorted(
        rows, key=lambda row: blake2b(f"{seed}\0{row[0]}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    )


def page(records: Iterator[Batch] | Iterator[File], after: str | None, limit: int) -> tuple[list[Any], bool]:
    newest = sorted(records, key=lambda record: record.id, reverse=True)
    rest = [record for record in newest if after is None or record.id < after]
    return rest[:limit], len(rest) > limit


class Row(dict[str, Any]):
    """With `text` the body is JSON in a string; `error` replaces the response."""


def openai_batch(batch: Batch, now: float) -> dict[str, Any]:
    status, end = batch.status(now), batch.end()
    over = int(end) if now >= end else None
    finalizing = batch.ends - 0.1 * (batch.ends - batch.started)
    counts = {"total": batch.rows, "completed": batch.done(now), "failed": 0}
    if batch.settled:
        counts |= {"completed": batch.succeeded, "failed": batch.errored}
    if status == "validating" or batch.errors:
        counts = {"total": 0, "completed": 0, "failed": 0}
    values: dict[str, Any] = {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": {"object": "list", "data": batch.errors} if status == "failed" else None,
        "input_file_id": batch.file,
        "completion_window": "24h",
        "status": status,
        "output_file_id": batch.output if batch.settled else None,
        "error_file_id": batch.error if batch.settled else None,
        "created_at": int(batch.created),
        "in_progress_at": int(batch.started) if now >= batch.started and not batch.errors else None,
        "expires_at": math.ceil(batch.expires),
        "finalizing_at": int(finalizing) if status in ("finalizing", "completed") else None,
        "cancelling_at": None if batch.cancel is None else int(batch.cancel),
        "request_counts": counts,
        "metadata": batch.metadata,
    }
    values |= {f"{name}_at": over if status == name else None for name in sorted(ENDED)}
    if batch.settled and batch.usage:
        given, made = batch.usage.get("input_tokens", 0), batch.usage.get("output_tokens", 0)
        values["usage"] = {"input_tokens": given, "output_tokens": made, "total_tokens": given + made}
    return values


def openai_lines(name: str, row: Row | None, status: str) -> list[bytes]:
    line: dict[str, Any] = {"id": f"batch_req_{digest(name)}", "custom_id": name, "response": None, "error": None}
    if row is None:
        if status == "cancelled":
            return []
        message = "This request could not be executed before the completion window expired."
        return [orjson.dumps(line | {"error": {"code": "batch_expired", "message": message}})]
    if error := row.get("error"):
        return [dump(line | {"error": error})]
    request_id = f"req_sim_{digest(name)}" if row["status"] else ""
    body = dump(row["body"]).decode() if row.get("text") else row["body"]
    line["response"] = {"status_code": row["status"], "request_id": request_id, "body": body}
    return [dump(line)] * row.get("copies", 1) + (
        [dump(line | {"custom_id": "foreign-1"})] if row.get("foreign") else []
    )


def message_batch(batch: Batch, now: float, host: str) -> dict[str, Any]:
    status, ended = batch.status(now), batch.settled
    left = batch.rows - batch.succeeded - batch.errored
    counts = {"processing": batch.rows, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
    if ended:
        counts = {
            "processing": 0,
            "succeeded": batch.succeeded,
            "errored": batch.errored,
            "canceled": left if status == "cancelled" else 0,
            "expired": left if status == "expired" else 0,
        }
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": "ended" if ended else "canceling" if status == "cancelling" else "in_progress",
        "request_counts": counts,
        "ended_at": _rfc3339(batch.end()) if ended else None,
        "created_at": _rfc3339(batch.created),
        "expires_at": _rfc3339(batch.expires),
        "archived_at": None,
        "cancel_initiated_at": None if batch.cancel is None else _rfc3339(batch.cancel),
        "results_url": f"http://{host}/v1/messages/batches/{batch.id}/results" if ended else None,
    }


def message_lines(name: str, row: Row | None, status: str) -> list[bytes]:
    if row is None:
        result: dict[str, Any] = {"type": "canceled" if status == "cancelled" else "expired"}
    elif row["status"] == 200:
        result = {"type": "succeeded", "message": row["body"]}
    else:
        result = {"type": "errored", "error": {"type": "error", "error": row["body"].get("error", row["body"])}}
    line: dict[str, Any] = {"custom_id": name, "result": result}
    copies, foreign = (row.get("copies", 1), row.get("foreign")) if row is not None else (1, False)
    return [dump(line)] * copies + ([dump(line | {"custom_id": "foreign-1"})] if foreign else [])


def chat_of(params: dict[str, Any]) -> dict[str, Any]:
    system: Any = params.get("system")
    first = [{"role": "system", "content": system}] if system else []
    return {**params, "messages": [*first, *(params.get("messages") or [])]}


def message_of(completion: dict[str, Any]) -> dict[str, Any]:
    choices: list[dict[str, Any]] = completion.get("choices") or [{"message": {}, "finish_reason": "stop"}]
    text, reason = choices[0]["message"].get("content"), str(choices[0]["finish_reason"])
    usage: dict[str, int] = completion.get("usage") or {}
    return {
        "id": completion["id"].replace("chatcmpl-sim-", "msg_sim_"),
        "type": "message",
        "role": "assistant",
        "model": completion["model"],
        "content": [] if text is None else [{"type": "text", "text": text}],
        "stop_reason": {"stop": "end_turn", "length": "max_tokens"}.get(reason, "refusal"),
        "stop_sequence": None,
        "usage": {
            "input_tokens": usage.get("prompt_tokens", 0),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": usage.get("completion_tokens", 0),
            "service_tier": "batch",
        },
    }


def file_object(file: File) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size,
        "created_at": int(file.created),
        "expires_at": None if file.expires is None else int(file.expires),
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def paged(data: list[dict[str, Any]], more: bool, shape: str) -> dict[str, Any]:
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return {**({} if shape == "anthropic" else {"object": "list"}), "data": data, **ends, "has_more": more}


def _rfc3339(epoch: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))


def digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
