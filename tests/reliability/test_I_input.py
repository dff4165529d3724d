"""Inputs that are broken, huge or strange, given to the real program, and fuzzed."""

import asyncio
import gzip
import json
import os
import resource
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from program import Program
from waiting import PATIENCE
from wire import FaultServer

from batchrun.errors import BatchrunError
from batchrun.models import Invalid, Row
from batchrun.plan.sources import gather
from batchrun.rows import open_input

FUZZ = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
LINES = st.one_of(
    st.binary(max_size=60),
    st.dictionaries(st.text(max_size=8), st.one_of(st.text(), st.floats(), st.integers(), st.none()), max_size=4).map(
        lambda value: json.dumps(value).encode()
    ),
    st.sampled_from(
        [b'{"a": NaN}', b'{"a": 1e999}', b"[" * 3000, b'{"a": "\\ud800"}', b'{"a": "\xff"}', b"{}", b"\xef\xbb\xbf{}"]
    ),
)
REFUSED: dict[str, bytes] = {
    "I1 a bad line": b'{"text": "a"}\n{"text": \n',
    "I2 UTF-16": '{"text": "a"}'.encode("utf-16"),
    "I4 a lone surrogate": b'{"text": "\\ud800"}\n',
    "I4 bytes that are no UTF-8": b'{"text": "\xff"}\n',
    "I5 nested too deeply": b'{"text": ' + b"[" * 200_000 + b"]" * 200_000 + b"}\n",
    "I5 a number of 5,000 digits": b'{"text": ' + b"1" * 5000 + b"}\n",
    "I5 NaN": b'{"text": NaN}\n',
    "I6 empty": b"",
    "I6 blank": b"\n\n \n",
    "I8 a missing variable": b'{"text": "a"}\n{"other": "a"}\n',
    "I9 a duplicate id": b'{"id": "a", "text": "1"}\n{"id": "a", "text": "2"}\n',
    "I13 a cut archive": gzip.compress(b'{"text": "a"}\n' * 100)[:-20],
    "I14 a wrong method": b'{"custom_id": "a", "method": "GET", "url": "/v1/chat/completions", "body": {}}\n',
}
QUICK = {"I1 a bad line", "I5 nested too deeply", "I13 a cut archive"}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in REFUSED]
)
async def test_I1_to_I14_what_cannot_be_sent_is_refused_before_any_call(program: Program, name: str) -> None:
    (program.directory / "in.jsonl").write_bytes(REFUSED[name])
    async with FaultServer() as server:
        ran = await program.run(*program.send(server.base_url))
        assert not server.calls
    assert ran.code == 2, ran.err
    assert "Traceback" not in ran.err
    assert "unexpected" not in ran.err
    if name[:2] in ("I1", "I4", "I5", "I8", "I9") and "I13" not in name and "I14" not in name:
        assert "line " in ran.err


@pytest.mark.slow
async def test_I1_invalid_lines_can_be_skipped_and_no_row_shifts(program: Program) -> None:
    lines = [b'{"id": "a", "text": "1"}', b"no json", b'{"id": "b", "text": "2"}', b'{"id": "c", "text": "3"']
    (program.directory / "in.jsonl").write_bytes(b"\n".join(lines))
    async with FaultServer() as server:
        ran = await program.run(*program.send(server.base_url, "--skip-invalid"))
        assert server.prompts == {"1": 1, "2": 1}
    assert [row["id"] for row in program.output()] == ["a", "b"]
    assert "2 skipped" in ran.account
    assert ran.code in (0, 3), ran.err


@pytest.mark.slow
async def test_I5_a_line_of_50_MB_is_taken_or_refused_in_bounded_memory(program: Program) -> None:
    size = 50 * 1024 * 1024
    (program.directory / "in.jsonl").write_text(json.dumps({"text": "x" * size}) + "\n")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (10 * size + 2**31, 10 * size + 2**31))

    async with FaultServer() as server:
        with program.going(*program.send(server.base_url), preexec_fn=limit) as process:
            _, err = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
    assert process.returncode in (0, 2), err
    assert "Traceback" not in err
    assert "MemoryError" not in err


@pytest.mark.slow
def test_I7_many_rows_are_checked_fast_and_in_flat_memory(program: Program) -> None:
    rows = 200_000
    program.rows(f"row {number}" for number in range(rows))
    args = program.send("http://127.0.0.1:9/v1", "--dry-run", "--quiet")
    began = time.monotonic()
    code, memory = program.weigh(*args)
    rate = rows / (time.monotonic() - began)
    print(f"{rate:,.0f} rows/s with a prompt, start included (promised 40,000); {memory / 1e6:.0f} MB (promised 150)")
    assert code == 0
    assert rate >= 40_000 / 5
    assert memory <= 150e6


@pytest.mark.slow
async def test_I12_standard_input_and_pipes_are_spooled_and_can_be_resumed(program: Program) -> None:
    text = "".join(json.dumps({"id": f"r{number}", "text": f"row {number}"}) + "\n" for number in range(20))
    fifo = program.directory / "fifo"
    os.mkfifo(fifo)
    async with FaultServer() as server:
        sent = program.send(server.base_url)[2:]
        ran = await program.run("--input", "-", *sent, given=text)
        assert ran.code == 0, ran.err
        writing = asyncio.create_task(asyncio.to_thread(fifo.write_text, text))
        with program.going("--input", "fifo", *sent[:-1], "b.jsonl") as process:
            _, err = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
        if process.returncode == 2:
            fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
            os.close(fd)
        await asyncio.gather(writing, return_exceptions=True)
    assert len(program.done()) == 20
    assert process.returncode in (0, 2), err
    assert "Traceback" not in err


CONFLICTS = [
    ("--concurrency", "-1"), ("--concurrency", "0"), ("--timeout", "0"), ("--timeout", "none"), ("--rpm", "-5"),
    ("--json", "-o", "-"), ("--max-attempts", "0"), ("--conurrency", "3"), ("--set", "novalue"), ("--param", "x={"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("flags", CONFLICTS)
async def test_I16_flags_that_cannot_be_meant_are_refused(program: Program, flags: tuple[str, ...]) -> None:
    program.rows(["one"])
    async with FaultServer() as server:
        ran = await program.run(*program.send(server.base_url), *flags)
        assert ran.code == 2, ran.err
        assert "Traceback" not in ran.err
        assert not server.calls


@FUZZ
@given(lines=st.lists(LINES, max_size=6), suffix=st.sampled_from(["jsonl", "json", "csv", "tsv", "txt", "gz"]))
def test_I1_I5_I11_any_input_is_rows_invalid_lines_or_refused(tmp_path: Path, lines: list[bytes], suffix: str) -> None:
    path = tmp_path / f"in.{suffix}"
    path.write_bytes(b"\n".join(lines))
    try:
        found = list(open_input(str(path), id_column=None, has_prompt=True, spool=None))
    except BatchrunError:
        return
    assert all(isinstance(item, Row | Invalid) for item in found)


@FUZZ
@given(
    text=st.one_of(
        st.text(max_size=80),
        st.sampled_from(["[sim]\nrpm = 'x'", "concurrency = -1", "modle = 'x'", "a = [[[[", "x=1\n" * 50]),
    )
)
def test_I15_any_configuration_is_settings_or_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "batchrun.toml").write_text(text, encoding="utf-8", errors="replace")
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        found = gather({"input": "x.jsonl"})
    except BatchrunError as error:
        assert "batchrun.toml" in f"{error.message} {error.hint}"  # noqa: PT017  refusing is one of two right answers
    else:
        assert found.settings.input == "x.jsonl"
    finally:
        os.chdir(before)
