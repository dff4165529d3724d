"""The executor of batches by vendor: what it sends, what answers mean, and Mistral's jobs from end to end."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import wire
from batches import Night
from multidict import CIMultiDict

from batchrun import providers
from batchrun.errors import ExitCode, RefusedError
from batchrun.lanes.batch import BatchExecutor
from batchrun.lanes.executor import CompletionKind, Reclaim
from batchrun.lanes.results import digest, result_line
from batchrun.lanes.search import is_of
from batchrun.lanes.shapes import SHAPES, Batch, OpenAIShape, parse_wire_id, wire_id
from batchrun.lanes.states import State
from batchrun.lanes.vendors import vendor
from batchrun.models import Endpoint, Exchange, Request, Ticket

VENDORS = sorted(name for name in providers.table("batches") if name != "any")
REQUEST = Request(
    Endpoint.CHAT, b'{"model":"m","messages":[{"role":"user","content":"x"}],"max_completion_tokens":5}', 5
)


def shape_of(name: str) -> OpenAIShape:
    found = vendor(name)
    return SHAPES[found.shape](found)


class Calls:
    """Answers in turn; the calls that were made."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers = list(answers)
        self.made: list[tuple[str, str, Any]] = []

    def _answer(self, method: str, path: str, body: Any) -> Exchange:
        self.made.append((method, path, body))
        status, said = self.answers.pop(0)
        content = said if isinstance(said, bytes) else json.dumps(said).encode()
        return Exchange(status, CIMultiDict(), content, 0.0, 0.0, None, "", True)

    async def call(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> Exchange:
        return self._answer(method, path, body)

    async def upload(self, path: str, fields: Mapping[str, str], file: Path, name: str) -> Exchange:
        return self._answer("POST", path, dict(fields))

    async def send_file(self, path: str, file: Path, headers: Mapping[str, str]) -> Exchange:
        return self._answer("POST", path, json.loads(file.read_bytes()))

    async def download(self, path: str, to: Path, *, headers: Mapping[str, str] | None = None) -> Exchange:
        return self._answer("GET", path, None)


def ticket(folder: Path, state: State, shape: OpenAIShape, **values: Any) -> Ticket:
    """A ticket of one row with its file of requests."""
    path = folder / "1.requests.jsonl"
    path.write_bytes(shape.head + shape.line("r1-1-1", REQUEST) + shape.tail)
    made: dict[str, Any] = {"tag": "r1/1", "endpoint": str(Endpoint.CHAT), "model": "m", "rows": 1, "asked": 1000.0}
    return Ticket(id=1, lane=1, state=state, chunk=1, sha256=digest(path), **(made | values))


def executor(name: str, calls: Calls, folder: Path) -> BatchExecutor:
    return BatchExecutor(vendor(name), calls, run="r1", folder=folder, clock=lambda: 1000.0)


@pytest.mark.parametrize("name", VENDORS)
async def test_each_vendor_is_submitted_to_as_its_line_of_the_table_says(tmp_path: Path, name: str) -> None:
    """Upload where there are files, a wait where a file must be processed, then one create call with the label."""
    found, shape = vendor(name), shape_of(name)
    files = [] if shape.inline else [(200, {"id": "file-1"})]
    ready = [(200, {"id": "file-1", "status": "processed"})] if found.ready else []
    body = {"id": "b1", "status": "validating", "processing_status": "in_progress", "created_at": None}
    calls = Calls(*files, *ready, (200, body))
    by, now = executor(name, calls, tmp_path), ticket(tmp_path, State.PLANNED, shape)
    states: list[str] = []
    while now.state != State.SUBMITTED:
        now = (await by.step(now)).ticket
        states.append(now.state)
    assert states == [State.UPLOADED, State.CREATING, State.SUBMITTED]
    assert (now.remote, calls.answers) == ("b1", [])
    method, path, sent = calls.made[-1]
    assert (method, path) == ("POST", {"mistral": "batch/jobs", "anthropic": "messages/batches"}.get(name, "batches"))
    if files:
        assert calls.made[0] == ("POST", "files", {"purpose": found.purpose})
        assert ("metadata" in sent) is found.metadata
        assert sent["endpoint"] == "/v1/chat/completions"
    if name == "mistral":
        assert (sent["input_files"], sent["model"], sent["timeout_hours"]) == (["file-1"], "m", 24)
    elif name == "anthropic":
        message = {"role": "user", "content": "x"}
        assert sent["requests"][0]["params"] == {"model": "m", "max_tokens": 5, "messages": [message]}
    else:
        assert (sent["input_file_id"], sent["completion_window"]) == ("file-1", found.window)


ERROR = {"error": {"message": "no", "code": "c"}}
ANSWERS = [
    (200, {"id": "b1", "status": "validating"}, State.SUBMITTED),
    (201, {"id": "b1", "status": "validating"}, State.SUBMITTED),
    (200, {"object": "batch"}, State.UNSURE),
    (200, b"", State.UNSURE),
    (200, b"<html>", State.UNSURE),
    *((status, ERROR, State.REFUSED) for status in (400, 401, 402, 403, 404, 413, 422, 429)),
    *((status, b"<html>no</html>", State.UNSURE) for status in (400, 401, 404, 429)),
    *((status, ERROR, State.UNSURE) for status in (408, 409, 425, 500, 502, 503, 504, 529)),
    (500, b"litellm.BadRequestError: 400", State.UNSURE),
    (0, b"", State.UNSURE),
]


@pytest.mark.parametrize(("status", "body", "state"), ANSWERS)
async def test_an_answer_to_the_create_call_is_a_yes_a_no_or_neither(
    tmp_path: Path, status: int, body: Any, state: State
) -> None:
    calls = Calls((status, body))
    now = ticket(tmp_path, State.CREATING, shape_of("openai"), file="file-1")
    assert (await executor("openai", calls, tmp_path).step(now)).ticket.state is state


RECLAIMED = {
    **dict.fromkeys((State.PLANNED, State.UPLOADED, State.SUBMITTED, State.DUPLICATE), Reclaim.RUNNING),
    **dict.fromkeys((State.CREATING, State.UNSURE), Reclaim.UNSURE),
    **dict.fromkeys((State.ENDED, State.FETCHED), Reclaim.READY),
    **dict.fromkeys((State.SETTLED, State.REFUSED, State.FORGOTTEN), Reclaim.GONE),
}


@pytest.mark.parametrize("state", list(State))
def test_a_ticket_of_an_earlier_process_is_reclaimed_by_its_state(tmp_path: Path, state: State) -> None:
    by = executor("openai", Calls(), tmp_path)
    found = ticket(tmp_path, state, shape_of("openai"))
    assert by.reclaim(found) is RECLAIMED[state]
    assert by.reclaimed(found).state == (State.UNSURE if state is State.CREATING else state)


def batch(**values: Any) -> Batch:
    made: dict[str, Any] = {"id": "b", "status": "in_progress", "input": None, "tag": None, "total": None}
    made |= {"created": 1000.0, "expires": None, "output": None, "error": None, "errors": ()}
    return Batch(**(made | values))


OURS = [
    ("openai", {"input": "file-1"}, True),
    ("openai", {"input": "file-2", "tag": "r1/1"}, False),
    ("openai", {"tag": "r1/1"}, True),
    ("openai", {"tag": "r1/2"}, False),
    ("openai", {}, False),
    ("together", {"input": "file-1"}, True),
    ("together", {}, False),
    ("anthropic", {"total": 1}, True),
    ("anthropic", {"total": 0}, True),
    ("anthropic", {"total": 2}, False),
    ("anthropic", {"total": 1, "created": 100.0}, False),
]


@pytest.mark.parametrize(("name", "values", "ours"), OURS)
def test_a_batch_is_a_tickets_by_its_file_its_label_or_its_size(
    tmp_path: Path, name: str, values: dict[str, Any], ours: bool
) -> None:
    shape = shape_of(name)
    found = ticket(tmp_path, State.UNSURE, shape, file=None if shape.inline else "file-1")
    assert is_of(shape, found, batch(**values)) is ours


LINES = [
    ({"response": {"status_code": 200, "body": {"a": 1}}}, (CompletionKind.REPLY, 200, b'{"a": 1}')),
    ({"response": {"status_code": 200, "body": '{"a": 1}'}}, (CompletionKind.REPLY, 200, b'{"a": 1}')),
    ({"response": {"status_code": 429, "body": ERROR}}, (CompletionKind.FAILURE, 429, json.dumps(ERROR).encode())),
    ({"response": {"status_code": 0, "body": {}}, "error": None}, (CompletionKind.LOST, 0, b"")),
    ({"response": None, "error": {"code": "batch_expired", "message": "x"}}, (CompletionKind.GONE, 0, b"")),
    ({"response": None, "error": "broken"}, (CompletionKind.LOST, 0, b"")),
    ({}, (CompletionKind.LOST, 0, b"")),
]


@pytest.mark.parametrize(("line", "came"), LINES)
def test_a_line_of_results_is_what_it_says_and_stays_so_when_it_is_kept(
    line: dict[str, Any], came: tuple[CompletionKind, int, bytes]
) -> None:
    shape = shape_of("openai")
    found = shape.completion(line, 7, 2)
    assert (found.kind, found.status, found.body) == came
    kept = json.loads(result_line(wire_id("r1", 7, 2), found))
    place = parse_wire_id("r1", kept["custom_id"])
    assert place == (7, 2)
    assert shape.completion(kept, *place)[:5] == found[:5]


def test_what_anthropic_cannot_be_asked_is_refused_with_the_member() -> None:
    body = b'{"model":"m","messages":[],"max_tokens":5,"response_format":{"type":"json_object"}}'
    with pytest.raises(RefusedError, match="response_format"):
        shape_of("anthropic").line("r1-1-1", Request(Endpoint.CHAT, body, 5))


class Mistral:
    """Mistral's files and jobs, as far as a run needs them: one job that runs at the first look and succeeds at the second."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.job: dict[str, Any] = {}
        self.looks = 0

    def choose(self, call: wire.Call, number: int) -> wire.Answer:
        path = call.target.removeprefix("/v1/")
        if path == "files":
            self.lines = [json.loads(line) for line in call.body.splitlines() if line.startswith(b'{"custom_id"')]
            return wire.whole(b'{"id": "in", "object": "file"}')
        if path == "files/out/content":
            return wire.whole(b"".join(map(self._result, reversed(self.lines))))
        if path == "batch/jobs":
            self.job = json.loads(call.body)
        else:
            self.looks += 1
        return wire.whole(json.dumps(self._seen() if "?" not in path else {"data": [self._seen()]}).encode())

    def _seen(self) -> dict[str, Any]:
        done = self.looks > 1
        counts = {"total_requests": len(self.lines), "succeeded_requests": len(self.lines) if done else 0}
        status = "SUCCESS" if done else "RUNNING" if self.looks else "QUEUED"
        more = {"id": "job", "created_at": 1, "output_file": "out" if done else None, "error_file": None, "errors": []}
        return {**self.job, **counts, **more, "status": status, "failed_requests": 0}

    @staticmethod
    def _result(line: dict[str, Any]) -> bytes:
        body = json.loads(wire.chat(line["body"]["messages"][-1]["content"].upper()))
        response = {"status_code": 200, "body": body}
        found = {"id": "x", "custom_id": line["custom_id"], "response": response, "error": None}
        return json.dumps(found).encode() + b"\n"


@pytest.mark.looptime
async def test_mistrals_jobs_from_end_to_end(tmp_path: Path, seldom: None) -> None:
    """The model is on the job, requests have the spelling of the vendor, results come in another order."""
    mistral = Mistral()
    async with wire.FaultServer(choose=mistral.choose) as server:
        stage = Night(tmp_path, server, 12, dialect="mistral", requests={}, batch_first=12)  # type: ignore[arg-type]
        story = await stage.go_on()
        assert story.ending.exit_code is ExitCode.OK
        assert stage.answers() == [f"ROW {number}" for number in range(1, 13)]
        assert (mistral.job["model"], mistral.job["endpoint"]) == ("m", "/v1/chat/completions")
        assert mistral.job["metadata"] == {"batchrun": "r1/1"}
        assert all(set(line) == {"custom_id", "body"} for line in mistral.lines)
        assert [call.target for call in server.calls].count("/v1/batch/jobs") == 1
