"""Runs over pictures: what is sent, what the journal has, and what a changed or missing file means."""

import base64
import io
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from batches import Night
from pictures import folder, png
from waiting import PATIENCE

from batchrun import registry
from batchrun.engine.execute import execute
from batchrun.engine.request_files import write_requests
from batchrun.engine.resume import prepare_resume
from batchrun.engine.row_files import copy_with_files
from batchrun.engine.start import DriftError, Prepared, prepare
from batchrun.errors import ExitCode, InputError, RefusedError
from batchrun.events import AttemptStarted, Event, RunEnded
from batchrun.journal import Reader
from batchrun.models import Row
from batchrun.plan import plan_from_json
from batchrun.plan.profiles import find_profile
from batchrun.plan.resolve import access
from batchrun.plan.sources import gather
from batchrun.prompts import parse
from batchrun.report import row_text
from batchrun.report.pages import show_row
from batchrun.sim import Server, Settings
from batchrun.sim.server import running
from batchrun.tui import draft

EXAMPLES = Path(__file__).parent.parent / "examples"
PROMPT = """---
name: caption
inputs:
  path: {kind: image}
---
Describe it. {{ path }}
"""


@pytest.fixture(autouse=True)
def _alone(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    folder(Path("pictures"))
    Path("caption.prompty").write_text(PROMPT)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running(Settings(record=True)) as found:
        yield found


def flags(server: Server, **more: Any) -> dict[str, Any]:
    base = {"input": "pictures/*.png", "prompt": "caption.prompty", "output": "out.jsonl", "model": "m"}
    return {**base, "base_url": server.base_url, **more}


async def finished(prepared: Prepared, gathered: Any) -> tuple[RunEnded, list[Event]]:
    events: list[Event] = []
    ended = await execute(prepared, access(prepared.plan, gathered), events.append, on_start=lambda run: None)
    return ended, events


async def ran(server: Server, **more: Any) -> RunEnded:
    gathered = gather(flags(server, **more))
    ended, _ = await finished(prepare(gathered, lambda event: None), gathered)
    return ended


async def resumed(server: Server, **more: Any) -> tuple[RunEnded, list[Event]]:
    prepared, gathered = prepare_resume("last", {"base_url": server.base_url, **more}, failed=False)
    return await finished(prepared, gathered)


def outputs() -> list[str]:
    return [json.loads(line).get("output", "") for line in Path("out.jsonl").read_text().splitlines()]


async def test_pictures_of_a_pattern_are_sent_and_the_journal_has_only_what_they_are(server: Server) -> None:
    ended = await ran(server)
    assert ended.exit_code is ExitCode.OK
    assert [text.partition(" pixels")[0] for text in outputs()] == [
        f"[simulated] a PNG picture of {10 + n} x 5" for n in range(3)
    ]
    journal = next(Path(".batchrun").glob("*.db"))
    with Reader.open(journal) as reader:
        found = reader._connection.execute("SELECT row, number, input, path, size, type FROM files").fetchall()
    size = len(png(10, 5))
    assert found[0] == (1, 1, "path", "../pictures/0.png", size, "image/png")
    assert b"iVBORw0KGgo" not in journal.read_bytes()  # how every PNG begins in base64


async def test_a_directory_and_one_picture_are_inputs_too(server: Server) -> None:
    assert (await ran(server, input="pictures")).totals.done == 3
    assert (await ran(server, input="pictures/1.png", output="one.jsonl")).totals.done == 1


async def test_missing_and_unreadable_files_are_named_with_their_line_before_any_call(server: Server) -> None:
    names = ["pictures/0.png", "gone.png", "caption.prompty"]
    Path("in.csv").write_text("path\n" + "\n".join(names) + "\n")
    with pytest.raises(InputError) as refused:
        prepare(gather(flags(server, input="in.csv")), lambda event: None)
    assert "line 3: `path`: there is no file gone.png" in refused.value.message
    assert "caption.prompty is of an unknown type" in refused.value.message
    assert server.stats.calls == 0


async def test_a_changed_picture_is_drift_and_a_moved_one_is_not(server: Server) -> None:
    Path("in.jsonl").write_text('{"id": 1, "path": "pictures/0.png"}\n{"id": 2, "path": "pictures/1.png"}\n')
    await ran(server, input="in.jsonl")
    Path("pictures/0.png").rename("moved.png")
    Path("in.jsonl").write_text('{"id": 1, "path": "moved.png"}\n{"id": 2, "path": "pictures/1.png"}\n')
    await ran(server, input="in.jsonl")
    assert server.stats.calls == 2
    Path("moved.png").write_bytes(png(99, 99))
    with pytest.raises(DriftError, match="1 row now has a different request"):
        await ran(server, input="in.jsonl")
    await ran(server, input="in.jsonl", update=True)
    assert server.stats.calls == 3
    assert "99 x 99" in outputs()[0]


async def test_resume_leaves_rows_whose_files_changed_pending_and_names_them(server: Server) -> None:
    await ran(server, max_requests=1)
    whole = Path("pictures/1.png").read_bytes()
    Path("pictures/1.png").write_bytes(png(50, 50))
    Path("pictures/2.png").rename("elsewhere.png")
    with pytest.raises(RefusedError) as refused:
        prepare_resume("last", {}, failed=False)
    assert "2 rows cannot be sent, and stay pending" in refused.value.message
    assert "line 2: " in refused.value.message
    assert "1.png has changed" in refused.value.message
    assert "line 3: " in refused.value.message
    Path("pictures/1.png").write_bytes(whole)
    ended, events = await resumed(server, max_requests=9)
    assert ended.exit_code is ExitCode.ROWS_FAILED
    assert (ended.totals.done, ended.totals.pending) == (2, 1)
    assert any("1 row cannot be sent, and stays pending: line 3" in str(event) for event in events)
    Path("elsewhere.png").rename("pictures/2.png")
    ended, _ = await resumed(server, max_requests=9)
    assert (ended.exit_code, ended.totals.done) == (ExitCode.OK, 3)


@pytest.mark.parametrize("content", [None, png(50, 50)], ids=["missing", "changed"])
async def test_a_file_that_changes_during_the_run_leaves_its_row_pending_and_named(
    server: Server, content: bytes | None
) -> None:
    gathered = gather(flags(server))
    prepared = prepare(gathered, lambda event: None)
    Path("pictures/1.png").unlink()
    if content is not None:
        Path("pictures/1.png").write_bytes(content)
    ended, events = await finished(prepared, gathered)
    assert (ended.exit_code, ended.totals.done, ended.totals.pending) == (ExitCode.ROWS_FAILED, 2, 1)
    assert (ended.totals.failed, ended.totals.unknown, ended.totals.possibly_billed, server.stats.calls) == (0, 0, 0, 2)
    (note,) = ended.notes
    assert note.startswith("1 row cannot be sent, and stays pending: line 2: ")
    assert len([event for event in events if isinstance(event, AttemptStarted)]) == 2
    assert len(outputs()) == 2
    Path("pictures/1.png").write_bytes(png(11, 5))
    ended, _ = await resumed(server)
    assert (ended.exit_code, ended.totals.done) == (ExitCode.OK, 3)


async def test_dedupe_compares_contents(server: Server) -> None:
    Path("pictures/copy.png").write_bytes(Path("pictures/0.png").read_bytes())
    ended = await ran(server, dedupe=True)
    assert (ended.totals.done, ended.totals.deduplicated, server.stats.calls) == (4, 1, 3)


async def test_encoded_files_count_against_the_bytes_in_flight(server: Server) -> None:
    gathered = gather(flags(server, max_bytes_in_flight="150"))
    peak = 0

    def look(run: Any) -> None:
        taken = run._queue.take

        def take() -> Any:
            nonlocal peak
            state = taken()
            peak = max(peak, run._queue._out)
            return state

        run._queue.take = take

    prepared = prepare(gathered, lambda event: None)
    ended = await execute(prepared, access(prepared.plan, gathered), lambda event: None, on_start=look)
    assert (ended.totals.done, peak) == (3, 1)


@pytest.mark.looptime
async def test_batches_have_the_content_of_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("batchrun.engine.run.TICK", 60.0)
    prompt = {"prompt_source": PROMPT.replace("path", "text"), "prompt_path": "p.prompty", "media": takes()}
    async with running(Settings()) as server:
        stage = Night(tmp_path, server, ["pictures/0.png", "pictures/1.png"], **prompt)
        story = await stage.go_on()
        assert story.ending.exit_code is ExitCode.OK
        assert [answer[:44] for answer in stage.answers()] == [
            f"[simulated] a PNG picture of {n} x 5 pixels, " for n in (10, 11)
        ]


def takes() -> dict[str, Any]:
    return find_profile("openai", {}).media_at("")


async def test_request_files_have_the_content_of_files_too(server: Server) -> None:
    await ran(server, max_requests=1)
    run = registry.find("last", None)
    written = write_requests(run, Path("requests"))
    parts = json.loads(written[0].path.read_text().splitlines()[0])["body"]["messages"][0]["content"]
    assert base64.b64decode(parts[1]["image_url"]["url"].partition("base64,")[2]) == png(11, 5)
    Path("pictures/2.png").unlink()
    with pytest.raises(RefusedError, match=r"line 3: .*2\.png cannot be read"):
        write_requests(run, Path("requests"))


async def test_a_journal_with_its_files_goes_on_elsewhere(server: Server, tmp_path: Path) -> None:
    await ran(server, max_requests=1)
    elsewhere = tmp_path / "elsewhere" / ".batchrun"
    elsewhere.mkdir(parents=True)
    missing = copy_with_files(registry.find("last", None).path, elsewhere / "moved.db")
    assert (missing, len(list((elsewhere / "moved.files").iterdir()))) == ([], 3)
    shutil.rmtree("pictures")
    with pytest.raises(RefusedError, match="2 rows cannot be sent"):
        prepare_resume("last", {}, failed=False)
    prepared, gathered = prepare_resume("last", {"runs_dir": str(elsewhere), "max_requests": 9}, failed=False)
    ended, _ = await finished(prepared, gathered)
    assert (ended.exit_code, ended.totals.done) == (ExitCode.OK, 3)


async def test_files_that_cannot_be_taken_along_are_named(server: Server, tmp_path: Path) -> None:
    await ran(server, max_requests=1)
    Path("pictures/2.png").unlink()
    with Reader.open(registry.find("last", None).path) as reader:
        shown = row_text.of_record(plan_from_json(reader.meta.plan), reader.row(line=3), None)
        said: Any = io.StringIO()
        show_row(registry.find("last", None), "3", as_json=True, out=said)
    assert "data:image/png;base64,sha256:" in shown  # as it was, though its file is gone
    assert [file["path"] for file in json.loads(said.getvalue())["files"]] == ["../pictures/2.png"]
    missing = copy_with_files(registry.find("last", None).path, tmp_path / "copy.db")
    assert [said.partition(" cannot")[0] for said in missing] == [str(Path("pictures/2.png").absolute())]
    with pytest.raises(RefusedError, match="exists already"):
        copy_with_files(registry.find("last", None).path, tmp_path / "copy.db")


SPEECH = """---
model: {apiType: transcription, options: {language: en}}
inputs:
  path: {kind: audio}
---
{{ path }}
"""


async def test_recordings_become_texts_by_the_endpoint_for_transcriptions(server: Server) -> None:
    Path("talks").mkdir()
    for number in range(2):
        Path(f"talks/{number}.ogg").write_bytes(b"OggS" + bytes([number]) * (5 + number))
    Path("transcribe.prompty").write_text(SPEECH)
    server.change(faults=["503=first"])
    ended = await ran(server, input="talks", prompt="transcribe.prompty")
    assert (ended.exit_code, ended.totals.done, server.stats.answered) == (ExitCode.OK, 2, 2)
    assert outputs() == [f"[simulated] OGG audio, {size} bytes" for size in (9, 10)]
    assert ended.totals.input_tokens == 200
    Path("talks/1.ogg").write_bytes(b"OggS another")
    with pytest.raises(DriftError):
        await ran(server, input="talks", prompt="transcribe.prompty")


async def test_recordings_are_refused_for_batches_before_anything_is_sent(server: Server) -> None:
    Path("a.ogg").write_bytes(b"OggS")
    Path("transcribe.prompty").write_text(SPEECH)
    own = {"input": "a.ogg", "prompt": "transcribe.prompty"}
    with pytest.raises(RefusedError, match="do not accept /v1/audio/transcriptions"):
        await ran(server, **own, batch=True)
    assert not list(Path(".batchrun").glob("*.db"))
    await ran(server, **own, limit=0)
    with pytest.raises(RefusedError, match="do not accept /v1/audio/transcriptions"):
        prepare_resume("last", {"batch": True}, failed=False)
    assert server.stats.calls == 0


async def test_a_recording_of_another_type_is_for_transcriptions_alone(server: Server) -> None:
    Path("a.ogg").write_bytes(b"OggS")
    Path("ask.prompty").write_text(SPEECH.replace("{apiType: transcription, options: {language: en}}", "m"))
    with pytest.raises(
        InputError, match=r"a\.ogg is OGG by its content; the provider accepts these audio types: WAV, MP3"
    ):
        await ran(server, input="a.ogg", prompt="ask.prompty")


async def test_a_profile_states_how_large_files_may_be(server: Server) -> None:
    Path("batchrun.toml").write_text("[profiles.openai]\nmedia = {image_bytes = 20}\n")
    with pytest.raises(InputError, match="the provider accepts image files of"):
        await ran(server)
    Path("batchrun.toml").write_text("[profiles.openai]\nmedia = {request_bytes = 100}\n")
    with pytest.raises(InputError, match="the request has"):
        await ran(server)


async def test_the_app_shows_the_request_of_a_picture() -> None:
    flags = {"profile": "sim"}
    head = draft.read_head("pictures/*.png", flags, has_prompt=True)
    assert head.columns == ("path", "name")
    asked = draft.RequestParts(parse(PROMPT, path="caption.prompty"), head.kind, "m", {}, {}, head.name)
    shown = draft.preview(asked, next(row for row in head.rows if isinstance(row, Row)))
    assert "data:image/png;base64,sha256:" in shown.text
    assert draft.read_head(".", flags, has_prompt=True).columns == ("path", "name", "text")


def test_the_example_writes_a_caption_for_each_picture_of_a_folder() -> None:
    words = [
        "-i",
        f"{EXAMPLES}/pictures/*.png",
        "-p",
        f"{EXAMPLES}/caption.prompty",
        "-P",
        "sim",
        "-o",
        "out.jsonl",
        "-q",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "batchrun", *words], capture_output=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row["name"] for row in rows] == ["chessboard.png", "circle.png", "sunset.png"]
    assert "PNG picture of 96 x 48 pixels" in rows[2]["caption"]
    assert rows[2]["alt"]


async def test_a_budget_holds_for_pictures_that_can_be_counted(server: Server) -> None:
    budget = {"max_cost": "1", "max_output_tokens": "10"}
    Path("batchrun.toml").write_text("[profiles.openai]\ninput_price = 1.0\noutput_price = 1.0\n")
    with pytest.raises(RefusedError, match="the cost of images, audio, files and tools"):
        await ran(server, model="gpt-99", **budget)
    Path("batchrun.toml").write_text(
        "[profiles.openai]\ninput_price = 1.0\noutput_price = 1.0\n"
        "[profiles.openai.media.tokens]\nhow = 'tiles'\nbase = 1000\neach = 1\nside = 512\nfit = 2048\nshort = 768\n"
    )
    assert (await ran(server, model="gpt-99", **budget)).totals.done == 3
    ended = await ran(server, model="gpt-99", fresh=True, max_cost="0.0009", max_output_tokens="10")
    assert (ended.exit_code, ended.totals.done) == (ExitCode.BUDGET, 0)  # a text alone would take a third of it
