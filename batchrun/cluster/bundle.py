"""The folder that actors work in: copies of the user's functions and of batchrun.

Files beside a function go along, but none that may hold replies or keys: no hidden ones, no `batchrun.toml`; from a
directory with runs, and the current one, only Python files.
"""

import importlib.util
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import batchrun
from batchrun.errors import RefusedError

LARGEST = 100_000_000  # bytes of users' files at most
MOST = 10_000
_JOURNAL = b"BRJL"  # at byte 68 of a journal: the application id of an SQLite file
_LEFT_OUT = ("__pycache__", "node_modules", "site-packages", "batchrun.toml")


def fill(folder: Path, specs: Sequence[str], hidden: Sequence[str] = ()) -> tuple[str, ...]:
    """Without installed packages; returns the functions' names.

    Raises RefusedError for files that are too many or too large, or hold a value of `hidden`.
    """
    own = Path(batchrun.__file__).parent
    shutil.copytree(own, folder / own.name, ignore=shutil.ignore_patterns("__pycache__", "_prompts", "tui"))
    copied: dict[Path, str] = {}
    budget = _Budget(hidden)
    names: list[str] = []
    for spec in specs:
        where, _, name = spec.rpartition(":")
        if where.endswith(".py"):
            source = Path(where).resolve()
            if source.parent not in copied:
                copied[source.parent] = f"functions-{len(copied)}"
                _copy(source.parent, folder / copied[source.parent], budget)
            names.append(f"{copied[source.parent]}/{source.name}:{name}")
            continue
        names.append(spec)
        package = _package(where) if where else None
        if package is not None and package not in copied:
            copied[package] = package.name
            if package.is_dir():
                _copy(package, folder / package.name, budget)
            else:
                budget.copy(package, folder / package.name)
    return tuple(names)


def _package(name: str) -> Path | None:
    # the outermost package; None if installed, or Python's own
    found = importlib.util.find_spec(name.partition(".")[0])
    place = found and (next(iter(found.submodule_search_locations or ()), None) or found.origin)
    if not place or not os.path.exists(place):
        return None
    path = Path(place).resolve()
    installed = {"site-packages", "dist-packages"} & set(path.parts) or path.is_relative_to(Path(os.__file__).parent)
    return None if installed or path == Path(batchrun.__file__).parent else path


class _Budget:
    def __init__(self, hidden: Sequence[str]) -> None:
        self._hidden = [value.encode() for value in hidden if value]
        self._bytes = 0
        self._files = 0

    def copy(self, source: Path, target: Path) -> None:
        # Journals are left out.
        self._files += 1
        self._bytes += source.stat().st_size
        if self._files > MOST or self._bytes > LARGEST:
            raise RefusedError(
                f"{source.parent}: the files beside the function are too many or too large to send to a cluster "
                f"(more than {LARGEST // 1_000_000} MB or {MOST:,} files)",
                "move the function, and the files it needs, to a directory of their own",
            )
        data = source.read_bytes()
        if data[68:72] == _JOURNAL:
            return
        if any(value in data for value in self._hidden):
            raise RefusedError(
                f"{source} contains the API key, and would be sent to the cluster with the function",
                "move the function to a directory of its own",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def _copy(source: Path, target: Path, budget: _Budget) -> None:
    # without hidden files, environments, and links to folders
    only_code = [Path.cwd()]
    for at, folders, files in os.walk(source):
        here = Path(at)
        if ".batchrun" in folders:
            only_code.append(here)
        folders[:] = [name for name in folders if _is_taken(name) and not (here / name / "pyvenv.cfg").exists()]
        plain = not any(here.is_relative_to(folder) for folder in only_code)
        for name in files:
            if _is_taken(name) and (plain or name.endswith(".py")) and (here / name).is_file():
                budget.copy(here / name, target / here.relative_to(source) / name)


def _is_taken(name: str) -> bool:
    return (
        not name.startswith(".")
        and name not in _LEFT_OUT
        and not name.endswith((".pyc", ".db-wal", ".db-shm", ".db-texts"))
    )
