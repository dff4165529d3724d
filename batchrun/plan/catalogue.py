"""All profiles, built-in and configured."""

from collections.abc import Iterable
from typing import Any

from batchrun.plan.config import ConfigFile, read_files
from batchrun.plan.profiles import BUILT_IN, KEY_SOURCES, Profile, find_profile


def profile_tables(files: Iterable[ConfigFile]) -> dict[str, dict[str, Any]]:
    """The `[profiles.NAME]` tables of all files; the nearer file's entries win."""
    tables: dict[str, dict[str, Any]] = {}
    for file in files:
        for name, table in file.profiles.items():
            tables[name] = nearer_first(tables.get(name, {}), table)
    return tables


def nearer_first(near: dict[str, Any], far: Any) -> dict[str, Any]:
    """Both tables merged, with one source of the key."""
    placed = any(source in near for source in KEY_SOURCES)
    rest = {name: value for name, value in far.items() if not (placed and name in KEY_SOURCES)}
    return {**rest, **near}


def every_profile() -> list[Profile]:
    """All profiles, the built-in ones first. Raises RefusedError for an invalid configuration file."""
    tables = profile_tables(read_files(None))
    return [find_profile(name, tables) for name in dict.fromkeys([*BUILT_IN, *tables])]


def one_profile(name: str) -> Profile:
    """A profile. Raises RefusedError with the nearest name."""
    return find_profile(name, profile_tables(read_files(None)))
