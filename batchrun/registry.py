"""The runs of a directory: where their journals are, which belongs to an output, and which one a user means.

Journals lie in `.batchrun/` beside the output (in the current directory for a stream, or where `--runs-dir` says).
There is no index to go stale: a run is its journal, and listing reads each one's meta.
"""

import os
import secrets
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from batchrun import journal
from batchrun.display import counted
from batchrun.errors import BusyError, DamagedError, RefusedError, StorageError
from batchrun.journal import Lock, Meta, Reader, Session
from batchrun.models import Totals
from batchrun.plan import patterns
from batchrun.plan.outputs import STREAM, is_device
from batchrun.steering import socket_of

DIRECTORY = ".batchrun"
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_PATIENCE = 20.0
_MOMENT = 0.2
"""Seconds for which a lock that is held is tried again: while another process makes a run, on a slow disk or after a
kill perhaps, or asks who holds one."""


class RunFile(NamedTuple):
    """A run by its journal; `meta` is what the journal says of it."""

    path: Path
    meta: Meta

    @property
    def id(self) -> str:
        """The run's id."""
        return self.meta.run

    @property
    def output(self) -> Path | None:
        """Where its output goes; None for a stream."""
        if self.meta.output == STREAM:
            return None
        return Path(os.path.normpath(self.path.parent / self.meta.output))

    @property
    def reference(self) -> str:
        """What a user types to mean this run from the current directory."""
        output = self.output
        if output is None or is_device(output):
            return self.id
        relative = os.path.relpath(output)
        return str(output) if relative.startswith("..") else relative

    @property
    def runs_dir(self) -> str | None:
        """The `--runs-dir` with which `reference` is found; None where that is the place looked at anyway."""
        usual = directory_for(STREAM if self.output is None else self.reference, None)
        return None if usual.resolve() == self.path.parent.resolve() else os.path.relpath(self.path.parent)


class Summary(NamedTuple):
    """A run as a listing shows it; `running` names the process that works on it, where one does."""

    run: RunFile
    totals: Totals
    sessions: list[Session]
    running: str | None
    damage: str | None


def directory_for(output: str, runs_dir: str | None) -> Path:
    """Where the journal of a run with this output lies; no directory is made among the system's devices."""
    if runs_dir is not None:
        return Path(runs_dir)
    return Path(DIRECTORY) if output == STREAM or is_device(output) else patterns.place(output).parent / DIRECTORY


def new_id(now: float) -> str:
    """A run id: the local time to the second, and four letters so that no two are alike."""
    letters = "".join(secrets.choice(_ALPHABET) for _ in range(4))
    return time.strftime("%Y%m%d-%H%M%S-", time.localtime(now)) + letters


def relative_output(output: str, directory: Path) -> str:
    """The output as the journal stores it: relative to the journal's directory, so that both can be moved."""
    return STREAM if output == STREAM else os.path.relpath(output, directory)


def listing(directory: Path) -> list[RunFile]:
    """The readable runs of a directory, newest first."""
    found: list[RunFile] = []
    for path in directory.glob("*.db"):
        try:
            found.append(_opened(path))
        except StorageError:
            continue
    return sorted(found, key=lambda run: run.meta.created, reverse=True)


def unreadable(directory: Path) -> dict[Path, StorageError]:
    """The journals of a directory that cannot be read, and why; not those that another process deletes meanwhile."""
    found: dict[Path, StorageError] = {}
    for path in sorted(directory.glob("*.db")):
        try:
            _opened(path)
        except StorageError as error:
            if os.path.lexists(path):
                found[path] = error
    return found


def _opened(path: Path) -> RunFile:
    with Reader.open(path) as reader:
        return RunFile(path, reader.meta)


def of_output(output: Path, directory: Path) -> RunFile | None:
    """The newest run whose output this is."""
    wanted = output.resolve()
    return next((run for run in listing(directory) if run.output and run.output.resolve() == wanted), None)


def refuse_damaged(output: Path, directory: Path) -> None:
    """Raises StorageError where a journal that cannot be read may be the one of this output: its replies were paid."""
    wanted = output.resolve()
    for path, error in unreadable(directory).items():
        said = _output_of_damaged(path)
        if said is None or Path(os.path.normpath(path.parent / said)).resolve() == wanted:
            raise error


def _output_of_damaged(path: Path) -> str | None:
    """What a damaged journal still says of its output, if anything."""
    try:
        with Reader.open(path, damaged=True) as reader:
            return reader.meta.output or None
    except (StorageError, ValueError):
        return None


def find(reference: str, runs_dir: str | None) -> RunFile:
    """The run that is meant by a run id, a unique beginning of one, an output file, or `last`.

    Raises RefusedError where it is none or more than one; StorageError where its journal is damaged.
    """
    directory = directory_for(STREAM, runs_dir)
    if os.sep in reference or Path(reference).suffix:
        found = of_output(Path(reference), directory_for(reference, runs_dir))
        if found is not None:
            return found
        refuse_damaged(Path(reference), directory_for(reference, runs_dir))
    runs = listing(directory)
    if reference == "last":
        _raise_for_damaged_since(runs[0].id if runs else "", directory)
        if runs:
            return runs[0]
    matching = [run for run in runs if run.id.startswith(reference)]
    if len(matching) == 1:
        return matching[0]
    named = None if matching else of_output(Path(reference), directory)
    if named is not None:
        return named
    _raise_for_damaged(reference, directory)
    if matching:
        raise RefusedError(
            f"{reference} is the beginning of {len(matching)} runs: {', '.join(run.id for run in matching[:5])}",
            "give more of the id",
        )
    where = "no runs here" if not runs else f"no run {reference} here"
    hint = "`batchrun runs` lists them; a run is also found by its output file"
    if Path(reference).suffix == ".db" and Path(reference).is_file():
        hint = (
            f"a journal is found in {DIRECTORY} beside its output: mkdir -p {DIRECTORY} && mv {reference} {DIRECTORY}/"
        )
    raise RefusedError(f"{where} ({directory}/)", hint)


def journal_of(reference: str, runs_dir: str | None) -> Path:
    """The journal that is meant, whole or damaged. Raises RefusedError where it is none or more than one."""
    try:
        return find(reference, runs_dir).path
    except DamagedError as error:
        return error.journal


def _raise_for_damaged_since(run: str, directory: Path) -> None:
    """Ids begin with the time, so a damaged journal with a later one is the last run."""
    for path, error in unreadable(directory).items():
        if path.stem > run:
            raise error


def _raise_for_damaged(reference: str, directory: Path) -> None:
    for path, error in unreadable(directory).items():
        if path.stem.startswith(reference):
            raise error


def summary(run: RunFile) -> Summary:
    """A run's account, its sessions, and whether a process works on it now."""
    try:
        with Reader.open(run.path) as reader:
            return Summary(run, reader.totals, reader.sessions, _holder(run.path), None)
    except StorageError as error:
        return Summary(run, Totals(), [], None, error.message)


def summaries(directory: Path) -> list[Summary]:
    """The runs of a directory, newest first, without those that another process deletes meanwhile."""
    found = map(summary, listing(directory))
    return [each for each in found if each.damage is None or os.path.lexists(each.run.path)]


def ended_before(moment: float, directory: Path) -> list[RunFile]:
    """The runs that no process works on and whose last session ended, or began, before this Unix time."""
    return [
        each.run
        for each in summaries(directory)
        if each.running is None and each.damage is None and _last(each) < moment
    ]


def _last(found: Summary) -> float:
    last = found.sessions[-1] if found.sessions else None
    return found.run.meta.created if last is None else last.ended or last.started


def _holder(path: Path) -> str | None:
    """Who holds the run's lock; asking takes it for a moment."""
    if not path.with_suffix(".lock").exists():
        return None
    try:
        journal.lock(path).release()
    except BusyError as error:
        return error.message
    return None


def remove(run: RunFile) -> None:
    """Delete a run's journal; its output stays.

    Raises BusyError while a process works on it, RefusedError while the provider works on batches of it.
    """
    with held(run.path) as lock:
        refuse_in_batches(run)
        journal.delete(run.path)
        socket_of(run.path).unlink(missing_ok=True)
        shutil.rmtree(batch_folder(run), ignore_errors=True)
        lock.remove()


def batch_folder(run: RunFile) -> Path:
    """Where a run's files of requests and results are, on their way."""
    return run.path.with_suffix(".batches")


def refuse_in_batches(run: RunFile) -> None:
    """Raises RefusedError where a run has rows in batches: what is paid for them could not be collected any more."""
    count = summary(run).totals.in_batches
    if count:
        raise RefusedError(
            f"run {run.id} has {counted(count)} in batches at the provider",
            f"`batchrun resume {run.reference}` collects them, `batchrun batches {run.reference} cancel` ends them",
        )


@contextmanager
def choosing(directory: Path) -> Generator[None]:
    """No other process looks for, or makes, a run in this directory meanwhile: two commands must not make two runs."""
    choice = _locked_soon(directory / "registry.db", _PATIENCE)
    try:
        yield
    finally:
        choice.release()


def held(path: Path) -> Lock:
    """The lock of a run, to work on it; who only asks whether it is held has it for a moment. Raises BusyError."""
    return _locked_soon(path, _MOMENT)


def _locked_soon(path: Path, patience: float) -> Lock:
    deadline = time.monotonic() + patience
    while True:
        try:
            return journal.lock(path)
        except BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
