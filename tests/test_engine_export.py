"""The output and the errors file of a journal: order, additions, formats, and what is not a regular file."""

import csv
import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from engine import WITH_SCHEMA, Provider, Stage, garbage, ok, reply_body, status

from batchrun.engine.export import Exported, Streamer, columns_of, export, replaced
from batchrun.errors import StorageError
from batchrun.journal import IntakeRow, Journal, Reader
from batchrun.models import Endpoint, Kind, State
from batchrun.plan.outputs import errors_path, partial_path

BAD = status(400, "context_length_exceeded", {"x-request-id": "req_bad"})


def written(stage: Stage, output: Path, *, errors: bool = True, **changes: Any) -> Exported:
    with Reader.open(stage.path) as reader:
        plan = replace(stage.plan, **changes)
        return export(plan, reader, output, errors=errors_path(output) if errors else None)


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def staged(directory: Path, texts: list[str], **plan: Any) -> Stage:
    """A journal with these very rows."""
    stage = Stage(directory, 0, **plan)
    journal = Journal.open(stage.path)
    journal.ingest(IntakeRow(n, f"k{n}", f"r{n}", text) for n, text in enumerate(texts, 1))
    journal.close()
    return stage


async def test_done_rows_are_written_in_input_order_and_failed_ones_beside_them(tmp_path: Path) -> None:
    stage, out = Stage(tmp_path, 30), tmp_path / "out.jsonl"
    await stage.play(Provider({"row 1": [status(503), ok()], "row 7": [BAD]}))
    assert written(stage, out) == Exported((out,), 29, tmp_path / "out.errors.jsonl", 1)
    rows = lines(out)
    assert [row["id"] for row in rows] == [f"id-{n}" for n in range(1, 31) if n != 7]
    assert rows[0] == {"id": "id-1", "text": "row 1", "output": "ROW 1"}
    (failed,) = lines(tmp_path / "out.errors.jsonl")
    assert failed["id"] == "id-7"
    assert failed["_batchrun"]["cause"] == "too long for the model"
    assert failed["_batchrun"]["line"] == 7
    assert failed["_batchrun"]["permanent"] is True


async def test_a_row_survives_to_the_byte(tmp_path: Path) -> None:
    text = '{ "id" : 1.0,  "text":"row 1", "n":1E400, "big":123456789012345678901234567890 , "id2":"\\u00e9" }'
    stage, out = staged(tmp_path, [text]), tmp_path / "out.jsonl"
    await stage.play(Provider())
    written(stage, out)
    assert out.read_text(encoding="utf-8") == text[:-1] + ',"output":"ROW 1"}\n'


async def test_with_a_schema_its_fields_are_the_columns(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 1, prompt_source=WITH_SCHEMA, output_fields=("score",))
    await stage.play(Provider(usual=ok('{"score": 7}')))
    written(stage, tmp_path / "out.jsonl")
    assert lines(tmp_path / "out.jsonl")[0] == {"id": "id-1", "text": "row 1", "score": 7}
    written(stage, tmp_path / "whole.jsonl", output_fields=(), output_column="all")
    assert lines(tmp_path / "whole.jsonl")[0]["all"] == {"score": 7}


async def test_integers_of_a_reply_keep_all_their_digits(tmp_path: Path) -> None:
    long = 123456789012345678901234567890
    stage = Stage(tmp_path, 1, prompt_source=WITH_SCHEMA, output_fields=("score",))
    await stage.play(Provider(usual=ok(f'{{"score": {long}}}')))
    written(stage, tmp_path / "out.jsonl")
    assert lines(tmp_path / "out.jsonl")[0]["score"] == long
    written(stage, tmp_path / "whole.jsonl", output_fields=(), output_column="all")
    assert lines(tmp_path / "whole.jsonl")[0]["all"] == {"score": long}


async def test_a_second_export_without_failures_takes_the_errors_file_away(tmp_path: Path) -> None:
    stage, out = Stage(tmp_path, 3), tmp_path / "out.jsonl"
    await stage.play(Provider({"row 2": [status(500)]}), max_attempts=1)
    written(stage, out)
    assert errors_path(out).exists()
    journal = Journal.open(stage.path)
    journal.reopen()
    journal.close()
    await stage.play(Provider())
    assert written(stage, out).errors is None
    assert not errors_path(out).exists()
    assert len(lines(out)) == 3


async def test_the_errors_file_is_input_again(tmp_path: Path) -> None:
    from batchrun.rows import open_input  # noqa: PLC0415

    stage, out = Stage(tmp_path, 2), tmp_path / "out.jsonl"
    await stage.play(Provider({"row 2": [BAD], "row 1": [ok()]}))
    written(stage, out)
    (again,) = open_input(str(errors_path(out)), has_prompt=True)
    assert again.text == '{"id": "id-2", "text": "row 2"}'


def batch_stage(directory: Path) -> Stage:
    texts = [
        json.dumps(
            {
                "custom_id": f"k{n}",
                "url": Endpoint.CHAT,
                "body": {"messages": [{"role": "user", "content": f"row {n}"}]},
            }
        )
        for n in (1, 2, 3)
    ]
    return staged(directory, texts, kind=Kind.BATCH, prompt_source=None, prompt_name=None, prompt_path=None)


async def test_batch_results_are_openai_s_to_the_letter(tmp_path: Path) -> None:
    stage, out = batch_stage(tmp_path), tmp_path / "out.jsonl"
    provider = Provider({"row 2": [BAD], "row 3": [garbage(b"<html>")]})
    await stage.play(provider, max_attempts=1)
    written(stage, out)
    (done,) = lines(out)
    assert list(done) == ["id", "custom_id", "response", "error"]
    assert done["id"].startswith("batch_req_")
    assert (done["custom_id"], done["error"]) == ("k1", None)
    assert list(done["response"]) == ["status_code", "request_id", "body"]
    assert (done["response"]["status_code"], done["response"]["request_id"]) == (200, "req_1")
    assert done["response"]["body"]["choices"][0]["message"]["content"] == "ROW 1"
    refused, html = lines(errors_path(out))
    assert list(refused) == ["id", "custom_id", "response", "error"]
    assert refused["response"]["status_code"] == 400
    assert refused["response"]["body"]["error"]["code"] == "context_length_exceeded"
    assert refused["error"] is None
    assert html["response"]["body"] == "<html>"


ODD = b"\xef\xbb\xbf" + reply_body("half").replace(b"half", b"\\ud83d half").replace(b"7", b"NaN")


@pytest.mark.parametrize("batch", [False, True])
async def test_a_reply_that_is_not_quite_json_is_paid_once_and_kept_to_the_byte(tmp_path: Path, *, batch: bool) -> None:
    stage, out = batch_stage(tmp_path) if batch else Stage(tmp_path, 3), tmp_path / "out.jsonl"
    provider = Provider({"row 2": [garbage(ODD)]})
    await stage.play(provider)
    assert provider.counts == {"row 1": 1, "row 2": 1, "row 3": 1}
    written(stage, out)
    row = [orjson.loads(line) for line in out.read_bytes().splitlines()][1]
    said = row["response"]["body"]["choices"][0]["message"]["content"] if batch else row["output"]
    assert said == "\ufffd half"
    assert (stage.records[1].body or "").encode() == ODD
    assert stage.totals.without_usage == 1


async def test_csv_has_the_columns_of_all_rows(tmp_path: Path) -> None:
    texts = ['{"text": "row 1", "a": 1}', '{"text": "row 2", "b": "=2"}', '{"c": null, "text": "row 3"}']
    stage, out = staged(tmp_path, texts, output_format="csv"), tmp_path / "out.csv"
    await stage.play(Provider())
    written(stage, out)
    table = list(csv.reader(io.StringIO(out.read_text(encoding="utf-8"), newline="")))
    assert table[0] == ["text", "a", "b", "c", "output"]
    assert table[1:] == [
        ["row 1", "1", "", "", "ROW 1"],
        ["row 2", "", "'=2", "", "ROW 2"],
        ["row 3", "", "", "", "ROW 3"],
    ]


async def test_csv_in_a_stream_has_them_too(tmp_path: Path) -> None:
    stage = staged(tmp_path, ['{"text": "row 1"}', '{"text": "row 2", "b": 2}'], output_format="csv")
    await stage.play(Provider())
    out = io.BytesIO()
    with Reader.open(stage.path) as reader:
        streamer = Streamer(stage.plan, reader.export_rows, out, columns_of(stage.plan, reader))
        streamer.advance()
        streamer.close()
    assert out.getvalue().decode() == "text,b,output\r\nrow 1,,ROW 1\r\nrow 2,2,ROW 2\r\n"


async def test_a_stream_is_in_input_order_and_writes_each_row_once(tmp_path: Path) -> None:
    stage, out = Stage(tmp_path, 6), io.BytesIO()
    await stage.play(Provider({"row 2": [BAD]}), limit=3)
    with Reader.open(stage.path) as reader:
        streamer = Streamer(stage.plan, reader.export_rows, out)
        assert [streamer.advance(), streamer.advance()] == [2, 0]
        await stage.play(Provider(), limit=5)
        assert [streamer.advance(), streamer.advance(all_rows=True)] == [2, 0]
    assert [json.loads(line)["id"] for line in out.getvalue().splitlines()] == ["id-1", "id-3", "id-4", "id-5"]


async def test_a_full_disk_leaves_the_output_as_it_was(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 2)
    await stage.play(Provider())
    with pytest.raises(StorageError, match="cannot be written") as caught:
        written(stage, Path("/dev/full"), errors=False)
    assert "batchrun export" in (caught.value.hint or "")


async def test_an_output_that_fails_half_way_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, out = Stage(tmp_path, 2), tmp_path / "out.jsonl"
    await stage.play(Provider())
    out.write_text("before")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("batchrun.engine.export.os.fsync", fail)
    with pytest.raises(StorageError, match="No space left"):
        written(stage, out)
    assert out.read_text() == "before"
    assert {name for name in os.listdir(tmp_path) if "out" in name} == {"out.jsonl"}


@pytest.mark.parametrize("state", State)
async def test_a_stream_stops_at_a_row_that_is_not_final(state: State, tmp_path: Path) -> None:
    stage, out = Stage(tmp_path, 3), io.BytesIO()
    await stage.play(Provider())
    with Reader.open(stage.path) as reader:
        first, second, third = reader.export_rows()
        records = [first, second._replace(state=state), third]
        streamer = Streamer(stage.plan, lambda after: [row for row in records if (row.position or 0) > after], out)
        streamer.advance()
        final = state in (State.DONE, State.FAILED, State.SKIPPED)
        assert b"row 3" in out.getvalue() or not final
        records[1] = second
        streamer.advance()
    written = [json.loads(line)["id"] for line in out.getvalue().splitlines()]
    assert written == (["id-1", "id-3"] if final and state is not State.DONE else ["id-1", "id-2", "id-3"])


async def test_a_pipe_is_written_to_and_never_renamed_over(tmp_path: Path) -> None:
    stage, fifo = Stage(tmp_path, 2), tmp_path / "fifo"
    await stage.play(Provider())
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    written(stage, fifo, errors=False)
    assert len(os.read(reader, 65536).splitlines()) == 2
    os.close(reader)
    assert fifo.is_fifo()


async def test_a_device_that_leads_to_a_file_is_never_renamed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As /dev/stdout is in `batchrun -o /dev/stdout >>file`."""
    stage, device = Stage(tmp_path, 2), tmp_path / "dev" / "stdout"
    await stage.play(Provider())
    os.mkdir(device.parent)
    os.symlink(tmp_path / "file", device)
    monkeypatch.setattr("batchrun.plan.outputs._DEVICES", {str(device.parent)})
    (tmp_path / "file").write_text('"kept"\n')
    written(stage, device, errors=False)
    assert lines(tmp_path / "file")[0] == "kept"
    assert len(lines(tmp_path / "file")) == 3
    assert os.listdir(device.parent) == ["stdout"]
    assert os.readlink(device) == str(tmp_path / "file")


async def test_the_mode_of_an_output_is_kept(tmp_path: Path) -> None:
    stage, out = Stage(tmp_path, 1), tmp_path / "out.jsonl"
    await stage.play(Provider())
    out.write_text("")
    out.chmod(0o640)
    written(stage, out)
    assert out.stat().st_mode & 0o777 == 0o640


def test_the_files_beside_an_output_have_plain_names() -> None:
    assert errors_path(Path("a/b.csv")) == Path("a/b.errors.jsonl")
    assert partial_path(Path("a/b.csv")) == Path("a/b.csv.partial")


def test_an_output_is_written_where_the_system_has_no_fchmod_as_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "fchmod", raising=False)
    with replaced(tmp_path / "out.jsonl") as stream:
        stream.write(b"{}\n")
    assert (tmp_path / "out.jsonl").read_bytes() == b"{}\n"
