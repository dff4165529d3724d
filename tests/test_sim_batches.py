"""Files and batches of the simulated provider: their life, their ends, and what can go wrong on the way."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from batchrun import sim
from batchrun.errors import RefusedError
from batchrun.sim import Server, Settings, parse_fault, running
from batchrun.sim.batches import Batch

pytestmark = pytest.mark.looptime  # both ends are on the test's loop: time passes when nothing is on its way

KEY = "Authorization: Bearer one\r\n"


def settings(*faults: str, **values: Any) -> Settings:
    return Settings(faults=tuple(parse_fault(fault) for fault in faults), **values)


@pytest.fixture
async def plain() -> AsyncIterator[Server]:
    async with running(Settings()) as server:
        yield server


async def call(server: Server, what: str, body: bytes = b"", headers: str = KEY) -> tuple[int, bytes]:
    """One call, such as `GET /batches`; the status and the body."""
    method, path = what.split()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        head = f"{method} /v1{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        writer.write(head.encode() + body)
        answer = await reader.read()
    finally:
        writer.close()
    head, _, said = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, said


async def told(server: Server, what: str, body: Any = None, headers: str = KEY) -> dict[str, Any]:
    status, said = await call(server, what, b"" if body is None else json.dumps(body).encode(), headers)
    assert status == 200, said
    return json.loads(said)


def line(name: str, text: str | None = None, url: str = "/v1/chat/completions", model: str = "m") -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": text or f"Row {name}."}]}
    return {"custom_id": name, "method": "POST", "url": url, "body": body}


def form(content: bytes, name: str = "rows.jsonl") -> tuple[bytes, str]:
    parts = [
        b'Content-Disposition: form-data; name="purpose"\r\n\r\nbatch',
        f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode() + content,
    ]
    body = b"".join(b"--bound\r\n" + part + b"\r\n" for part in parts) + b"--bound--\r\n"
    return body, f"{KEY}Content-Type: multipart/form-data; boundary=bound\r\n"


async def upload(server: Server, lines: Sequence[dict[str, Any] | str]) -> str:
    content = "".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in lines)
    status, said = await call(server, "POST /files", *form(content.encode()))
    assert status == 200, said
    return json.loads(said)["id"]


def asked(file: str, **more: Any) -> dict[str, Any]:
    return {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h", **more}


async def create(server: Server, lines: Sequence[dict[str, Any] | str], **more: Any) -> dict[str, Any]:
    return await told(server, "POST /batches", asked(await upload(server, lines), **more))


async def after(server: Server, batch: dict[str, Any], seconds: float = 20) -> dict[str, Any]:
    await asyncio.sleep(seconds)
    return await told(server, f"GET /batches/{batch['id']}")


async def results(server: Server, file: str | None) -> list[dict[str, Any]]:
    status, content = await call(server, f"GET /files/{file}/content")
    assert status == 200
    return [json.loads(each) for each in content.splitlines()]


def rows(count: int) -> list[dict[str, Any]]:
    return [line(f"r{number}") for number in range(count)]


async def stats(server: Server) -> dict[str, Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /_sim/stats HTTP/1.1\r\nConnection: close\r\n\r\n")
    said = await reader.read()
    writer.close()
    return json.loads(said.partition(b"\r\n\r\n")[2])


async def test_a_batch_goes_from_validation_to_its_results_in_an_arbitrary_order(plain: Server) -> None:
    batch = await create(plain, rows(40), metadata={"tag": "a"})
    assert (batch["status"], batch["metadata"], batch["output_file_id"]) == ("validating", {"tag": "a"}, None)
    seen = [(await after(plain, batch, seconds)) for seconds in (1, 5, 5.5, 2)]
    assert [each["status"] for each in seen] == ["validating", "in_progress", "finalizing", "completed"]
    assert seen[1]["request_counts"]["completed"] == 16
    assert seen[3]["request_counts"] == {"total": 40, "completed": 40, "failed": 0}
    assert (seen[3]["error_file_id"], seen[3]["completed_at"] is not None) == (None, True)
    lines = await results(plain, seen[3]["output_file_id"])
    names = [each["custom_id"] for each in lines]
    assert sorted(names) == sorted(f"r{number}" for number in range(40))
    assert names != sorted(names, key=lambda name: int(name[1:]))
    for each in lines:
        said = each["response"]["body"]["choices"][0]["message"]["content"]
        assert (each["response"]["status_code"], said) == (200, f"[simulated] Row {each['custom_id']}.")
    counted = await stats(plain)
    assert (counted["answered"], counted["batch_completions"], counted["completions_paid"]) == (0, 40, 40)
    assert counted["batch_input_tokens"] == seen[3]["usage"]["input_tokens"]
    assert max(counted["replies"].values()) == 1


async def test_the_sdk_of_openai_goes_all_the_way(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows(3)))
    async with (
        running(Settings()) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="k", max_retries=0) as client,
    ):
        with path.open("rb") as content:
            file = await client.files.create(
                file=content, purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
            )
        assert file.expires_at == file.created_at + 3600
        batch = await client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        await asyncio.sleep(15)
        assert [each.id async for each in client.batches.list(limit=1)] == [batch.id]
        batch = await client.batches.retrieve(batch.id)
        assert batch.status == "completed"
        content = await client.files.content(batch.output_file_id or "")
        assert len(content.text.splitlines()) == 3
        assert (await client.files.delete(file.id)).deleted


@pytest.mark.parametrize(("lines", "code", "number"), [
    ([line("a"), "{", line("b")], "invalid_json_line", 2),
    ([line("a"), line("a")], "duplicate_custom_id", 2),
    ([line("a", url="/v1/embeddings")], "mismatched_url", 1),
    ([line("a"), line("b", model="n")], "mismatched_model", 2),
    ([], "empty_file", None),
])  # fmt: skip
async def test_a_file_that_is_not_in_order_fails_at_validation_and_costs_nothing(
    plain: Server, lines: list[dict[str, Any] | str], code: str, number: int | None
) -> None:
    batch = await create(plain, lines)
    assert batch["status"] == "validating"
    failed = await after(plain, batch)
    assert (failed["status"], failed["output_file_id"]) == ("failed", None)
    (error,) = failed["errors"]["data"]
    assert (error["code"], error["line"]) == (code, number)
    assert (await stats(plain))["completions_paid"] == 0


async def test_a_file_of_too_many_lines_fails(plain: Server) -> None:
    name, rest = json.dumps(line("x0")).split("x0", 1)
    lines = [f"{name}x{number}{rest}" for number in range(50_001)]
    failed = await after(plain, await create(plain, lines))
    assert [error["code"] for error in failed["errors"]["data"]] == ["too_many_tasks"]


async def test_over_the_enqueued_tokens_a_batch_fails_and_the_same_file_goes_when_there_is_room() -> None:
    async with running(Settings(enqueued_tokens=150)) as server:
        file = await upload(server, rows(5))
        first, second = [await told(server, "POST /batches", asked(file)) for _ in range(2)]
        assert (await after(server, second))["errors"]["data"][0]["code"] == "token_limit_exceeded"
        assert (await after(server, first, 0))["status"] == "completed"
        assert (await after(server, await told(server, "POST /batches", asked(file))))["status"] == "completed"


async def test_what_cannot_be_created_is_refused(plain: Server) -> None:
    file = await upload(plain, rows(1))
    for wrong in ({"endpoint": "/v1/nothing"}, {"completion_window": "soon"}):
        status, said = await call(plain, "POST /batches", json.dumps(asked(file) | wrong).encode())
        assert (status, "error" in json.loads(said)) == (400, True)
    assert (await call(plain, "POST /files", *form(b"{}", "rows.txt")))[0] == 400
    assert (await call(plain, "POST /batches", b"["))[0] == 400
    assert (await told(plain, "GET /batches"))["data"] == []


async def test_a_list_has_pages_newest_first(plain: Server) -> None:
    made = [(await create(plain, rows(1)))["id"] for _ in range(5)]
    seen: list[str] = []
    page = await told(plain, "GET /batches?limit=2")
    seen += [each["id"] for each in page["data"]]
    while page["has_more"]:
        page = await told(plain, f"GET /batches?limit=2&after={page['last_id']}")
        seen += [each["id"] for each in page["data"]]
    assert seen == made[::-1]
    assert (await call(plain, "GET /batches?limit=0"))[0] == 400
    assert len((await told(plain, "GET /files?purpose=batch"))["data"]) == 5


async def test_another_key_sees_nothing(plain: Server) -> None:
    batch = await create(plain, rows(1))
    other = "Authorization: Bearer two\r\n"
    assert (await told(plain, "GET /batches", headers=other))["data"] == []
    assert (await call(plain, f"GET /batches/{batch['id']}", headers=other))[0] == 404
    assert (await call(plain, f"GET /files/{batch['input_file_id']}/content", headers=other))[0] == 404


async def test_a_cancelled_batch_keeps_what_was_done_and_lists_no_others(plain: Server) -> None:
    batch = await create(plain, rows(10))
    await asyncio.sleep(7.1)
    assert (await told(plain, f"POST /batches/{batch['id']}/cancel"))["status"] == "cancelling"
    ended = await after(plain, batch)
    assert (ended["status"], ended["request_counts"]["completed"]) == ("cancelled", 5)
    assert len(await results(plain, ended["output_file_id"])) == 5
    assert ended["error_file_id"] is None
    assert (await call(plain, f"POST /batches/{batch['id']}/cancel"))[0] == 409
    assert (await stats(plain))["completions_paid"] == 5


async def test_an_expired_batch_has_partial_results_and_says_which_rows_are_missing() -> None:
    async with running(Settings(batch_expire=0.4)) as server:
        ended = await after(server, await create(server, rows(10)))
        assert ended["status"] == "expired"
        assert len(await results(server, ended["output_file_id"])) == 4
        missing = await results(server, ended["error_file_id"])
        assert [each["error"]["code"] for each in missing] == ["batch_expired"] * 6
        assert (await stats(server))["completions_paid"] == 4


async def test_a_batch_that_takes_longer_than_its_day_expires() -> None:
    async with running(Settings(batch_validation=0, batch_seconds=2 * 86_400, time_scale=1000)) as server:
        batch = await create(server, rows(10))
        ended = await after(server, batch, 87)
        assert (ended["status"], ended["request_counts"]["completed"]) == ("expired", 5)
        assert ended["expires_at"] - ended["created_at"] in (87, 88)


async def test_rows_end_in_every_way_that_was_recorded() -> None:
    faults = (
        "status0@row=text:r0.", "400@row=text:r1.", "missing@row=text:r2.", "repeat@row=text:r3.",
        "foreign@row=text:r4.", "text-body@row=text:r5.", "nocontent@row=text:r6.", "500@row=text:r7.",
        "error-text@row=text:r9.", "error-object@row=text:r10.",
    )  # fmt: skip
    async with running(settings(*faults)) as server:
        ended = await after(server, await create(server, rows(11)))
        output = await results(server, ended["output_file_id"])
        lines = {each["custom_id"]: each for each in await results(server, ended["error_file_id"])}
        errors = {name: each["response"] for name, each in lines.items()}
        names = sorted(each["custom_id"] for each in output)
        assert names == ["foreign-1", "r3", "r3", "r4", "r5", "r6", "r8"]
        assert errors["r0"] == {"status_code": 0, "request_id": "", "body": {}}
        assert (errors["r1"]["status_code"], "error" in errors["r1"]["body"]) == (400, True)
        assert errors["r7"]["status_code"] == 500
        assert (errors["r9"], isinstance(lines["r9"]["error"], str)) == (None, True)
        assert (errors["r10"], lines["r10"]["error"]["code"]) == (None, "server_error")
        bodies = {each["custom_id"]: each["response"]["body"] for each in output}
        assert json.loads(bodies["r5"])["choices"]
        assert bodies["r6"]["choices"][0]["message"]["content"] is None
        assert ended["request_counts"] == {"total": 11, "completed": 6, "failed": 5}
        assert (await stats(server))["completions_paid"] == 6


@pytest.mark.parametrize(("empty", "output"), [("null", None), ("text", ""), ("file", "file-")])
async def test_where_all_rows_fail_the_output_is_null_or_nothing_or_empty(empty: str, output: str | None) -> None:
    async with running(settings("400@row=1", empty_files=empty)) as server:
        ended = await after(server, await create(server, rows(2)))
        assert (ended["status"], ended["request_counts"]["failed"]) == ("completed", 2)
        if output == "file-":
            assert await results(server, ended["output_file_id"]) == []
        else:
            assert ended["output_file_id"] == output


@pytest.mark.parametrize(
    ("fault", "status", "made"),
    [("close", 0, 1), ("502", 502, 1), ("empty", 200, 1), ("thrice", 200, 3), ("gateway", 500, 0), ("429", 429, 0),
     ("400", 400, 0), ("key", 401, 0), ("quota", 429, 0)],
)  # fmt: skip
async def test_an_answer_that_is_lost_is_of_a_call_that_was_done(fault: str, status: int, made: int) -> None:
    async with running(settings(f"{fault}@create=first")) as server:
        file = await upload(server, rows(1))
        got, _ = await call(server, "POST /batches", json.dumps(asked(file)).encode())
        assert got == status
        assert len((await told(server, "GET /batches"))["data"]) == made
        assert (await call(server, "POST /batches", json.dumps(asked(file)).encode()))[0] == 200
        assert server.stats.by_fault == {f"{fault}@create": 1}
        assert server.stats.batch_calls["create"] == 2


async def test_a_download_can_be_cut_and_read_again() -> None:
    async with running(settings("truncate@content=first")) as server:
        ended = await after(server, await create(server, rows(5)))
        path = f"GET /files/{ended['output_file_id']}/content"
        cut, whole = [(await call(server, path))[1] for _ in range(2)]
        assert 0 < len(cut) < len(whole)
        assert whole.startswith(cut)


async def test_a_page_can_lead_to_itself() -> None:
    async with running(settings("loop@list=1")) as server:
        batch = await create(server, rows(1))
        page = await told(server, "GET /batches")
        assert (page["has_more"], page["last_id"]) == (True, batch["id"])


async def test_a_new_batch_can_be_hidden_for_a_while() -> None:
    async with running(Settings(batch_listed=30, batch_found=5)) as server:
        batch = await create(server, rows(1))
        assert (await call(server, f"GET /batches/{batch['id']}"))[0] == 404
        await asyncio.sleep(6)
        assert (await call(server, f"GET /batches/{batch['id']}"))[0] == 200
        assert (await told(server, "GET /batches"))["data"] == []
        await asyncio.sleep(30)
        assert len((await told(server, "GET /batches"))["data"]) == 1


async def test_a_stuck_batch_never_ends_until_it_is_cancelled() -> None:
    async with running(settings("stuck@create=first")) as server:
        batch = await create(server, rows(1))
        assert (await after(server, batch, 200_000))["status"] == "in_progress"
        await told(server, f"POST /batches/{batch['id']}/cancel")
        assert (await after(server, batch))["status"] == "cancelled"


async def test_a_server_that_is_started_again_on_the_same_directory_goes_on(tmp_path: Path) -> None:
    where = Settings(state=str(tmp_path))
    async with running(where) as server:
        batch = await create(server, rows(4))
    async with running(where) as server:
        other = await create(server, rows(1))
        assert other["id"] > batch["id"]
        ended = await after(server, batch)
        assert ended["status"] == "completed"
    async with running(where) as server:
        assert len(await results(server, ended["output_file_id"])) == 4
        assert (await stats(server))["batch_completions"] == 5


def test_a_crash_ends_the_process_and_keeps_what_was_done(tmp_path: Path) -> None:
    from http.client import HTTPConnection, RemoteDisconnected  # noqa: PLC0415  # of this test alone

    told: list[int] = []
    for fault in (["crash@create=first"], []):
        with sim.spawn(sim.from_json({"state": str(tmp_path), "faults": fault})) as url:
            connection = HTTPConnection(url.split("/")[2], timeout=30)
            body, headers = form(json.dumps(line("a")).encode())
            fields = dict(each.split(": ") for each in headers.split("\r\n") if each)
            if fault:
                connection.request("POST", "/v1/files", body, fields)
                file = json.loads(connection.getresponse().read())["id"]
                connection.request("POST", "/v1/batches", json.dumps(asked(file)), fields)
                with pytest.raises((RemoteDisconnected, ConnectionResetError)):
                    connection.getresponse()
            else:
                connection.request("GET", "/v1/batches", headers=fields)
                told.append(len(json.loads(connection.getresponse().read())["data"]))
            connection.close()
    assert told == [1]


def messages(count: int, **params: Any) -> dict[str, Any]:
    return {
        "requests": [
            {
                "custom_id": f"r{number}",
                "params": {
                    "model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": f"Row r{number}."}], **params
                },
            }
            for number in range(count)
        ]
    }  # fmt: skip


ANTHROPIC = "x-api-key: one\r\nanthropic-version: 2023-06-01\r\n"


async def test_message_batches_have_their_requests_in_them_and_their_results_by_kind() -> None:
    async with running(settings("400@row=text:r1.", batch_seconds=10)) as server:
        batch = await told(server, "POST /messages/batches", messages(4, system="Translate it."), ANTHROPIC)
        assert (batch["type"], batch["processing_status"], batch["results_url"]) == (
            "message_batch",
            "in_progress",
            None,
        )
        assert batch["request_counts"]["processing"] == 4
        await asyncio.sleep(11)
        ended = await told(server, f"GET /messages/batches/{batch['id']}", headers=ANTHROPIC)
        assert ended["processing_status"] == "ended"
        assert ended["request_counts"] == {"processing": 0, "succeeded": 3, "errored": 1, "canceled": 0, "expired": 0}
        path = ended["results_url"].removeprefix("http://x/v1")
        status, content = await call(server, f"GET {path}", headers=ANTHROPIC)
        lines = {each["custom_id"]: each["result"] for each in map(json.loads, content.splitlines())}
        assert (status, len(lines), lines["r1"]["type"]) == (200, 4, "errored")
        assert lines["r1"]["error"]["error"]["message"]
        message = lines["r0"]["message"]
        assert message["content"] == [{"type": "text", "text": "[simulated] Rów r0."}]
        assert (message["stop_reason"], message["usage"]["service_tier"]) == ("end_turn", "batch")
        assert (await told(server, "GET /batches"))["data"] == []


async def test_message_batches_expire_and_are_cancelled_with_a_line_for_every_row() -> None:
    async with running(Settings(batch_seconds=10)) as server:
        batch = await told(server, "POST /messages/batches", messages(4), ANTHROPIC)
        await asyncio.sleep(5.1)
        path = f"/messages/batches/{batch['id']}"
        assert (await told(server, f"POST {path}/cancel", headers=ANTHROPIC))["processing_status"] == "canceling"
        assert (await call(server, f"GET {path}/results", headers=ANTHROPIC))[0] == 404
        await asyncio.sleep(5)
        _, content = await call(server, f"GET {path}/results", headers=ANTHROPIC)
        assert sorted(json.loads(each)["result"]["type"] for each in content.splitlines()) == [
            "canceled", "canceled", "succeeded", "succeeded",
        ]  # fmt: skip
        assert (await call(server, f"POST {path}/cancel", headers=ANTHROPIC))[0] == 400
        assert (await call(server, f"DELETE {path}", headers=ANTHROPIC))[0] == 200


@pytest.mark.parametrize("names", [["a", "a"], ["a b"], ["x" * 65], []])
async def test_custom_ids_of_message_batches_are_checked_at_once(plain: Server, names: list[str]) -> None:
    body = {"requests": [{"custom_id": name, "params": {}} for name in names]}
    status, said = await call(plain, "POST /messages/batches", json.dumps(body).encode(), ANTHROPIC)
    assert (status, json.loads(said)["type"]) == (400, "error")


@pytest.mark.parametrize("spelling", ["close@create=first", "status0@row=0.1", "502@content=first:2", "stuck@create=1"])
def test_a_fault_of_a_call_is_read_and_written_back(spelling: str) -> None:
    assert str(parse_fault(spelling)).startswith(spelling.partition("=")[0])
    assert parse_fault(str(parse_fault(spelling))) == parse_fault(spelling)


@pytest.mark.parametrize("spelling", ["close@make=first", "status0=1", "stuck@row=1", "thrice=1", "x@create=1"])
def test_a_fault_that_does_not_fit_its_call_is_refused(spelling: str) -> None:
    with pytest.raises(RefusedError) as refused:
        parse_fault(spelling)
    assert refused.value.hint


def test_a_batch_never_has_fewer_rows_done_later() -> None:
    batch = Batch(id="b", shape="openai", owner="o", created=0, started=2, ends=12, expires=99, listed=0, found=0,
                  cancelling=2, rows=7, tokens=1)  # fmt: skip
    done = [batch.done(step / 10) for step in range(200)]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 7)
