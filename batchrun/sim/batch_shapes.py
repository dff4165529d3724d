"""Objects and result lines of files and batches in the formats of OpenAI and Anthropic."""

import math
import time
from hashlib import blake2b
from typing import Any

import orjson

from batchrun.sim.batches import ENDED, Batch, File
from batchrun.sim.replies import dump


class Row(dict[str, Any]):
    """`status`, `body`, `copies`; with `text` the body is JSON in a string, `error` replaces the response."""


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
    """None for a row that a cancelled batch did not reach."""
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
