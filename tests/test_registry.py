"""The runs of a directory: found by id, by a beginning of one, by output, or as the last."""

import shutil
import threading
from pathlib import Path

import pytest

from batchrun import journal, registry
from batchrun.errors import BusyError, DamagedError, RefusedError, StorageError
from batchrun.journal import IntakeRow, Journal, Meta, Reader
from batchrun.models import Totals


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(run: str, output: str = "out.jsonl", created: float = 1.0, directory: str = ".batchrun") -> Path:
    path = Path(directory) / f"{run}.db"
    relative = registry.relative_output(output, path.parent)
    meta = Meta(run=run, created=created, plan="{}", prompt=None, simulated=False, output=relative)
    with_rows = Journal.create(path, meta)
    with_rows.ingest([IntakeRow(1, "a", "r", "{}")])
    with_rows.close()
    return path


def test_a_run_is_found_by_whatever_names_it() -> None:
    made("20260101-000000-aaaa", "one.jsonl", 1.0)
    made("20260102-000000-bbbb", "two", 2.0)
    for reference in ("20260102-000000-bbbb", "20260102", "two", "./two", "last"):
        assert registry.find(reference, None).id.endswith("bbbb"), reference
    assert registry.find("one.jsonl", None).id.endswith("aaaa")
    assert [run.id[-4:] for run in registry.listing(Path(".batchrun"))] == ["bbbb", "aaaa"]


def test_a_beginning_of_two_runs_names_both() -> None:
    made("20260101-000000-aaaa")
    made("20260101-000000-bbbb")
    with pytest.raises(RefusedError, match=r"2 runs: .*aaaa") as caught:
        registry.find("20260101", None)
    assert caught.value.hint == "type more of the id"


@pytest.mark.parametrize("reference", ["last", "nope", "nope.jsonl", "a/nope.jsonl"])
def test_a_run_that_is_not_there_is_refused(reference: str) -> None:
    with pytest.raises(RefusedError, match="no run"):
        registry.find(reference, None)


def test_a_journal_that_was_carried_here_is_told_its_place() -> None:
    shutil.copy(made("20260101-000000-aaaa", directory="elsewhere/.batchrun"), "copy.db")
    with pytest.raises(RefusedError, match="no runs here") as caught:
        registry.find("copy.db", None)
    assert "mkdir -p .batchrun && mv copy.db .batchrun/" in str(caught.value.hint)
    Path(".batchrun").mkdir()
    shutil.move("copy.db", ".batchrun")
    assert registry.find("last", None).id.endswith("aaaa")


def test_of_two_runs_with_one_output_the_newest_counts() -> None:
    made("r1", created=1.0)
    made("r2", created=2.0)
    found = registry.of_output(Path("out.jsonl"), Path(".batchrun"))
    assert found is not None
    assert found.id == "r2"


def test_output_and_journal_can_be_moved_together() -> None:
    Path("a").mkdir()
    made("r1", "a/out.jsonl", directory="a/.batchrun")
    shutil.move("a", "b")
    found = registry.find("b/out.jsonl", None)
    assert found.output is not None
    assert found.output.resolve() == Path("b/out.jsonl").resolve()
    assert found.reference == "b/out.jsonl"


def test_an_output_elsewhere_is_named_in_full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made("r1", str(tmp_path / "out.jsonl"), directory=str(tmp_path / ".batchrun"))
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert Path(registry.find(str(tmp_path / "out.jsonl"), None).reference).is_absolute()


def test_a_stream_s_run_is_meant_by_its_id() -> None:
    made("r1", "-")
    found = registry.find("last", None)
    assert (found.output, found.reference) == (None, "r1")


def test_journals_lie_beside_their_output_but_not_beside_devices() -> None:
    assert registry.directory_for("a/b.jsonl", None) == Path("a/.batchrun")
    assert registry.directory_for("-", None) == Path(".batchrun")
    assert registry.directory_for("/dev/null", None) == Path(".batchrun")
    assert registry.directory_for("a/b.jsonl", "runs") == Path("runs")


def test_a_damaged_journal_is_left_out_of_the_list_and_named_when_it_is_meant() -> None:
    made("r1", "one.jsonl")
    made("r2", "two.jsonl").write_bytes(b"rubbish" * 1000)
    assert [run.id for run in registry.listing(Path(".batchrun"))] == ["r1"]
    assert [path.stem for path in registry.unreadable(Path(".batchrun"))] == ["r2"]
    with pytest.raises(StorageError, match="r2"):
        registry.find("r2", None)
    with pytest.raises(StorageError, match="r2"):
        registry.refuse_damaged(Path("other.jsonl"), Path(".batchrun"))


def test_a_damaged_journal_that_still_names_another_output_is_in_nobody_s_way() -> None:
    path = made("r1", "one.jsonl")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 8192])
    registry.refuse_damaged(Path("other.jsonl"), Path(".batchrun"))
    with pytest.raises(StorageError):
        registry.refuse_damaged(Path("one.jsonl"), Path(".batchrun"))


def test_a_damaged_run_is_deleted_by_its_whole_id_alone() -> None:
    made("20260101-000000-aaaa", "one.jsonl")
    made("20260102-000000-bbbb", "two.jsonl").write_bytes(b"rubbish" * 1000)
    for reference in ("last", "20260102", "two.jsonl"):
        with pytest.raises(DamagedError) as caught:
            registry.deletable(reference, None)
        assert (caught.value.hint or "").startswith("`batchrun rm 20260102-000000-bbbb` deletes it")
    made("20260101-120000-cccc", "three.jsonl").write_bytes(b"rubbish" * 1000)
    with pytest.raises(DamagedError, match="bbbb"):
        registry.deletable("last", None)
    registry.remove(registry.deletable("20260101-120000-cccc", None))
    found = registry.deletable("20260102-000000-bbbb", None)
    assert (found.id, found.reference) == ("20260102-000000-bbbb", "20260102-000000-bbbb")
    registry.remove(found)
    assert [path.name for path in Path(".batchrun").glob("*.db")] == ["20260101-000000-aaaa.db"]


def test_a_damaged_run_with_open_batches_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    path = made("r1", "one.jsonl")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 8192])
    monkeypatch.setattr("batchrun.registry.Reader.totals", Totals(in_batches=2))
    with pytest.raises(RefusedError, match="run r1 has 2 rows in batches at the provider"):
        registry.remove(registry.deletable("r1", None))
    assert path.exists()


def test_a_summary_says_who_works_on_a_run() -> None:
    made("r1")
    found = registry.find("r1", None)
    assert registry.summary(found).running is None
    with journal.lock(found.path):
        assert "process" in (registry.summary(found).running or "")
        with pytest.raises(BusyError):
            registry.remove(found)
    registry.remove(found)
    assert list(Path(".batchrun").iterdir()) == [Path(".batchrun/.gitignore")]


def test_a_run_without_a_socket_is_starting_or_ending_while_a_process_works_on_it() -> None:
    path = made("20260101-000000-aaaa")
    run = registry.find("last", None)
    with journal.lock(path), pytest.raises(RefusedError, match="not sending requests now: it is starting or ending"):
        registry.steer(run, {"command": "pause"})
    with pytest.raises(RefusedError) as refused:
        registry.steer(run, {"command": "pause"})
    assert refused.value.message == f"run {run.id} is not sending requests"


def test_only_one_at_a_time_chooses_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchrun.registry._CHOOSING_SECONDS", 0.05)
    journal.prepare(Path(".batchrun"))
    with registry.choosing(Path(".batchrun")), pytest.raises(BusyError), registry.choosing(Path(".batchrun")):
        pass
    with registry.choosing(Path(".batchrun")):
        pass


def test_ids_sort_by_time_and_differ() -> None:
    ids = {registry.new_id(1e9) for _ in range(50)}
    assert len(ids) > 45
    assert registry.new_id(1e9) < registry.new_id(1e9 + 86400)


def test_who_only_asks_whether_a_run_is_held_keeps_nobody_from_deleting_it() -> None:
    path = made("20260101-000000-aaaa")
    (run,) = registry.listing(path.parent)
    asking = journal.lock(path)
    threading.Timer(0.05, asking.release).start()
    registry.remove(run)
    assert not path.exists()
    assert not path.with_suffix(".lock").exists()


def test_a_journal_that_another_process_deletes_is_nobody_s_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is left at any moment of a deletion, a second run in the same directory goes on."""
    directory, output = Path(".batchrun"), Path("out.jsonl")
    held = Journal.open(made("20260101-000000-aaaa"))  # keeps the log beside the journal
    unlink, deleted = Path.unlink, list[str]()

    def looked_at(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok=missing_ok)
        deleted.append(path.suffix)
        assert registry.unreadable(directory) == {}, path
        assert registry.summaries(directory) == [], path
        registry.refuse_damaged(output, directory)

    assert registry.of_output(output, directory) is not None
    monkeypatch.setattr(Path, "unlink", looked_at)
    journal.delete(Path(".batchrun/20260101-000000-aaaa.db"))
    assert deleted[:3] == [".db", ".db-wal", ".db-shm"]
    monkeypatch.undo()
    held.close()


def test_a_journal_deleted_while_it_is_opened_is_said_to_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = made("20260101-000000-aaaa"), Path.absolute

    def then_gone(found: Path) -> Path:
        absolute = opened(found)
        found.unlink(missing_ok=True)
        return absolute

    monkeypatch.setattr(Path, "absolute", then_gone)
    with pytest.raises(StorageError, match="deleted or moved while it was read"):
        Reader.open(path)
    assert registry.unreadable(Path(".batchrun")) == {}
