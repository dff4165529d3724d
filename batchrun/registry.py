"""The runs of a directory, and which one an output or a reference means.

Journals are in `.batchrun/` beside the output (in the current directory for a stream, or in `--runs-dir`).
"""

import os
import secrets
import shutil
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from batchrun import journal, steering
from batchrun.display import counted
from batchrun.errors import BusyError, DamagedError, RefusedError, StorageError
from batchrun.journal import Lock, Meta, Reader, Session
from batchrun.models import Totals
from batchrun.plan.outputs import STREAM, is_device, one_path

DIRECTORY = ".batchrun"
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_CHOOSING_SECONDS = 20.0
# for a lock: while another process makes a run; and while one checks who holds it
_HELD_SECONDS = 0.2


class RunFile(NamedTuple):
    path: Path
    meta: Meta

    @property
    def id(self) -> str:
        return self.meta.run

    @property
    def output(self) -> Path | None:
        if self.meta.output == STREAM:
            return None
        return Path(os.path.normpath(self.path.parent / self.meta.output))

    @property
    def reference(self) -> str:
        """What a user types for it in the current directory."""
        output = self.output
        if output is None or is_device(output):
            return self.id
        relative = os.path.relpath(output)
        return str(output) if relative.startswith("..") else relative

    @property
    def runs_dir(self) -> str | None:
        """The `--runs-dir` that `reference` needs, None for the default."""
        usual = directory_for(STREAM if self.output is None else self.reference, None)
        return None if usual.resolve() == self.path.parent.resolve() else os.path.relpath(self.path.parent)


class Summary(NamedTuple):
    # `running` names the process that works on it
    run: RunFile
    totals: Totals
    sessions: list[Session]
    running: str | None
    damage: str | None


def directory_for(output: str, runs_dir: str | None) -> Path:
    # never among the system's devices
    if runs_dir is not None:
        return Path(runs_dir)
    return Path(DIRECTORY) if output == STREAM or is_device(output) else one_path(output).parent / DIRECTORY


def new_id(now: float) -> str:
    """Local time to the second, and four random letters."""
    letters = "".join(secrets.choice(_ALPHABET) for _ in range(4))
    return time.strftime("%Y%m%d-%H%M%S-", time.localtime(now)) + letters


def relative_output(output: str, directory: Path) -> str:
    # to the journal's directory, so that both can be moved
    return STREAM if output == STREAM else os.path.relpath(output, directory)


def listing(directory: Path) -> list[RunFile]:
    """Newest first, without unreadable ones."""
    found: list[RunFile] = []
    for path in directory.glob("*.db"):
        try:
            found.append(_opened(path))
        except StorageError:
            continue
    return sorted(found, key=lambda run: run.meta.created, reverse=True)


def unreadable(directory: Path) -> dict[Path, StorageError]:
    # without those that another process deletes meanwhile
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
    wanted = output.resolve()
    return next((run for run in listing(directory) if run.output and run.output.resolve() == wanted), None)


def refuse_damaged(output: Path, directory: Path) -> None:
    """Raises StorageError if a damaged journal may be this output's."""
    wanted = output.resolve()
    for path, error in unreadable(directory).items():
        meta = _meta_of_damaged(path)
        named = meta and meta.output
        if not named or Path(os.path.normpath(path.parent / named)).resolve() == wanted:
            raise error


def _meta_of_damaged(path: Path) -> Meta | None:
    try:
        with Reader.open(path, damaged=True) as reader:
            return reader.meta
    except (StorageError, ValueError):
        return None


def find(reference: str, runs_dir: str | None) -> RunFile:
    """By an id, its unique beginning, an output file, or `last`.

    Raises RefusedError, StorageError.
    """
    directory = directory_for(STREAM, runs_dir)
    if os.sep in reference or Path(reference).suffix:
        found = of_output(Path(reference), directory_for(reference, runs_dir))
        if found is not None:
            return found
        refuse_damaged(Path(reference), directory_for(reference, runs_dir))
    runs = listing(directory)
    if reference == "last":
        newest = runs[0].id if runs else ""
        _raise_for_damaged(directory, lambda run: run > newest)  # ids begin with the time: it is the last run
        if runs:
            return runs[0]
    matching = [run for run in runs if run.id.startswith(reference)]
    if len(matching) == 1:
        return matching[0]
    named = None if matching else of_output(Path(reference), directory)
    if named is not None:
        return named
    _raise_for_damaged(directory, lambda run: run.startswith(reference))
    if matching:
        raise RefusedError(
            f"{reference} is the beginning of {len(matching)} runs: {', '.join(run.id for run in matching[:5])}",
            "type more of the id",
        )
    where = "no runs here" if not runs else f"no run {reference} here"
    hint = "`batchrun runs` lists them; a run is also found by its output file"
    if not runs:
        hint = "start one with `batchrun run`; a run elsewhere is found by its output, or with --runs-dir"
    if Path(reference).suffix == ".db" and Path(reference).is_file():
        hint = (
            f"a journal is found in {DIRECTORY} beside its output: mkdir -p {DIRECTORY} && mv {reference} {DIRECTORY}/"
        )
    raise RefusedError(f"{where} ({directory}/)", hint)


def journal_of(reference: str, runs_dir: str | None) -> Path:
    """Also a damaged one. Raises RefusedError."""
    try:
        return find(reference, runs_dir).path
    except DamagedError as error:
        return error.journal


def deletable(reference: str, runs_dir: str | None) -> RunFile:
    """Also a damaged run, by its whole id. Raises RefusedError, StorageError."""
    try:
        return find(reference, runs_dir)
    except DamagedError as error:
        path, name = error.journal, error.journal.stem
        if reference != name:
            hint = f"`batchrun rm {name}` deletes it; `batchrun export {name}` writes the part that can be read."
            raise DamagedError(error.message, hint, path) from error
        unknown = Meta(run=name, created=0, plan="{}", prompt=None, simulated=False, output=STREAM)
        return RunFile(path, replace(_meta_of_damaged(path) or unknown, run=name))


def _raise_for_damaged(directory: Path, is_meant: Callable[[str], bool]) -> None:
    for path, error in reversed(unreadable(directory).items()):  # the newest first
        if is_meant(path.stem):
            raise error


def steer(run: RunFile, request: Mapping[str, Any]) -> dict[str, Any]:
    """As `steering.send`."""
    try:
        return steering.send(run.path, request)
    except steering.NotSendingError:
        if _holder(run.path) is None:
            raise
    raise RefusedError(
        f"run {run.id} is not sending requests now: it is starting or ending",
        f"try again in a moment; `batchrun show {run.id} --follow` shows what it does",
    )


def summary(run: RunFile) -> Summary:
    try:
        with Reader.open(run.path) as reader:
            return Summary(run, reader.totals, reader.sessions, _holder(run.path), None)
    except StorageError as error:
        return Summary(run, Totals(), [], None, error.message)


def summaries(directory: Path) -> list[Summary]:
    found = map(summary, listing(directory))
    return [each for each in found if each.damage is None or os.path.lexists(each.run.path)]


def ended_before(when: float, directory: Path) -> list[RunFile]:
    """`when` is in Unix time; none with a working process."""
    found: list[RunFile] = []
    for each in summaries(directory):
        last = each.sessions[-1] if each.sessions else None
        at = each.run.meta.created if last is None else last.ended or last.started
        if each.running is None and each.damage is None and at < when:
            found.append(each.run)
    return found


def _holder(path: Path) -> str | None:
    # The run's lock is taken briefly.
    if not path.with_suffix(".lock").exists():
        return None
    try:
        journal.lock(path).release()
    except BusyError as error:
        return error.message
    return None


def remove(run: RunFile) -> None:
    """Its output stays. Raises BusyError, or RefusedError while it has batches."""
    with held(run.path) as lock:
        refuse_in_batches(run)
        journal.delete(run.path)
        steering.remove(run.path)
        shutil.rmtree(batch_folder(run), ignore_errors=True)
        lock.remove()


def batch_folder(run: RunFile) -> Path:
    return run.path.with_suffix(".batches")


def refuse_in_batches(run: RunFile) -> None:
    """Raises RefusedError: paid results would be lost."""
    found = summary(run)
    if found.damage is None:
        count = found.totals.in_batches
        hint = f"`batchrun resume {run.reference}` collects them, `batchrun batches {run.reference} cancel` ends them"
    else:
        count = _in_batches_of_damaged(run.path)
        hint = f"a copy of the journal can collect them; without one, delete {run.path} and the files beside it"
    if count:
        raise RefusedError(f"run {run.id} has {counted(count)} in batches at the provider", hint)


def _in_batches_of_damaged(path: Path) -> int:
    try:
        with Reader.open(path, damaged=True) as reader:
            return reader.totals.in_batches
    except (StorageError, ValueError):
        return 0


@contextmanager
def choosing(directory: Path) -> Generator[None]:
    # Two commands must not make two runs.
    choice = _locked_within(directory / "registry.db", _CHOOSING_SECONDS)
    try:
        yield
    finally:
        choice.release()


def held(path: Path) -> Lock:
    """Raises BusyError."""
    return _locked_within(path, _HELD_SECONDS)


def _locked_within(path: Path, seconds: float) -> Lock:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return journal.lock(path)
        except BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
