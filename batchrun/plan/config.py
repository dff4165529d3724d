"""Reads `batchrun.toml` of the user and of the current directory; the latter may not select commands, code or clusters."""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from batchrun import user_directories
from batchrun.errors import RefusedError
from batchrun.plan.names import unknown
from batchrun.plan.pools import PoolTable, parsed
from batchrun.plan.profiles import BUILT_IN, KEY_SOURCES, PRICES, Profile, find_profile

NAME = "batchrun.toml"
ONLY_FLAGS = frozenset({"dry_run", "fresh", "insecure_http", "update", "yes"})
TABLES = frozenset({"columns", "headers", "params", "set", "sim"})
_PATHS = frozenset({"api_key_file", "ca_file", "log_file", "metrics_file", "runs_dir"})
_LOOKS_LIKE_KEY = re.compile(r"(\w*api_?)?(key|token|secret)|password")
OF_PROFILES = {
    *("base_url", "model", "dialect", "requests", "media", "params", "headers", "endpoint", "rpm", "tpm"),
    *("concurrency", "concurrency_fixed", "queue_gauges", "max_bytes_in_flight", "timeout", "max_attempts"),
    *("max_wait", "give_up_after", "ca_file", "max_output_tokens", "tier_factors", "quota"),
    *KEY_SOURCES,
    *PRICES,
}


class ConfigFile(NamedTuple):
    """Options have underscores."""

    path: Path
    options: Mapping[str, Any]
    profiles: Mapping[str, Mapping[str, Any]]
    app: Mapping[str, Any]
    answers: tuple[Mapping[str, Any], ...] = ()
    batches: Mapping[str, Mapping[str, Any]] = {}
    pools: Mapping[str, PoolTable] = {}


def _user_file() -> Path | None:
    folder = user_directories.configuration()
    return None if folder is None else folder / NAME


def _user_file_text() -> str:
    return str(_user_file() or f"$XDG_CONFIG_HOME/batchrun/{NAME}")


def runs_directory() -> str | None:
    """Raises RefusedError."""
    names = [os.environ.get("BATCHRUN_RUNS_DIR"), *(file.options.get("runs_dir") for file in read_files(None))]
    return next((str(name) for name in names if name), None)


def read_files(options: Iterable[str] | None, folder: Path | None = None) -> tuple[ConfigFile, ...]:
    """The nearer file first; `options` None reads only profiles and `runs_dir`. Raises RefusedError."""
    here = (folder or Path.cwd()) / NAME
    user = _user_file()
    known = None if options is None else frozenset(options) - ONLY_FLAGS
    found = [(here, False)] if here != user else []
    found += [] if user is None else [(user, True)]
    files = [_read(path, known, trusted=trusted) for path, trusted in found]
    return tuple(file for file in files if file is not None)


def _read(path: Path, known: frozenset[str] | None, *, trusted: bool) -> ConfigFile | None:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RefusedError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{path} is not valid TOML: {error}") from error
    profiles = _tables(table.pop("profiles", {}), f"profiles in {path}")
    app = _app(table.pop("app", {}), path)
    answers = _answers(table.pop("answers", []), path)
    pools = _tables(table.pop("pools", {}), f"pools in {path}")
    own_pools = {name: parsed(own, f"[pools.{name}] of {path}") for name, own in pools.items()}
    batches = _batches(table.pop("batches", {}), path)
    if known is None:
        options = _plain({key: value for key, value in table.items() if key in ("runs_dir", "runs-dir")}, path)
    else:
        options = _options(table, known, path)
    if "notify" in options and not trusted:
        raise RefusedError(
            f"notify in {path}: the file of a directory may not select which commands run",
            f"use --notify, or set it in {_user_file_text()}",
        )
    on_cluster = str(options.get("workers", "")).strip().lower().startswith("ray") or "senders" in options
    if not trusted and ("ray" in options or on_cluster):
        raise RefusedError(
            f"ray in {path}: the file of a directory may not select where requests and replies are sent",
            f"use --workers ray or --senders, and --ray HOST:PORT, or set them in {_user_file_text()}",
        )
    if "post" in options:
        options["post"] = _functions(options["post"], path, trusted=trusted)
    own_profiles = {name: _profile(name, own, path, trusted) for name, own in profiles.items()}
    return ConfigFile(path, options, own_profiles, app, answers, batches, own_pools)


def app_settings() -> dict[str, Any]:
    files = [file.app for file in reversed(read_files(None))]
    keys = {name: key for app in files for name, key in app.get("keys", {}).items()}
    return {**{name: value for app in files for name, value in app.items()}, "keys": keys}


def _app(table: Any, path: Path) -> dict[str, Any]:
    _tables_of_values(table, f"app in {path}")
    own = _plain(table, path)
    for key in own.keys() - {"theme", "keys"}:
        raise unknown("key", key, {"theme", "keys"}, f" in [app] of {path}")
    _tables_of_values(own.get("keys", {}), f"keys in [app] of {path}")
    for name, key in [("theme", own.get("theme", "")), *own.get("keys", {}).items()]:
        if not isinstance(key, str):
            raise RefusedError(f"{name} in [app] of {path} must be text")
    return own


def _answers(lines: Any, path: Path) -> tuple[Mapping[str, Any], ...]:
    if not lines:
        return ()
    from batchrun.retry import compiled  # noqa: PLC0415  only where there are such lines

    if not isinstance(lines, list) or not all(isinstance(line, dict) for line in cast("list[object]", lines)):
        raise RefusedError(f"answers in {path} must be tables", "write [[answers]] on a line, then NAME = VALUE lines")
    own = tuple(cast("list[dict[str, Any]]", lines))
    for number, line in enumerate(own, 1):
        try:
            compiled(line)
        except ValueError as error:
            raise RefusedError(
                f"[[answers]] {number} of {path}: {error}", "docs/configuration.md has an example"
            ) from None
    return own


def _batches(value: Any, path: Path) -> Mapping[str, Mapping[str, Any]]:
    tables = _tables(value, f"batches in {path}")
    if tables:
        from batchrun.lanes.vendors import check_vendor  # noqa: PLC0415  only where there are such tables

        for dialect, own in tables.items():
            try:
                check_vendor(own)
            except ValueError as error:
                where = f"[batches.{dialect}] of {path}"
                raise RefusedError(f"{where}: {error}", "docs/batch.md has an example") from None
    return tables


def _options(table: Mapping[str, Any], known: frozenset[str], path: Path) -> dict[str, Any]:
    options = _plain(table, path)
    for key, value in options.items():
        if key in ONLY_FLAGS:
            raise RefusedError(f"{key} in {path}: it applies to one command only", f"use --{key.replace('_', '-')}")
        if key not in known:
            raise _unknown_key(key, known, path)
        if key in TABLES:
            _tables_of_values(value, f"{key} in {path}")
    return options


def _functions(value: Any, path: Path, *, trusted: bool) -> Any:
    if not trusted:
        raise RefusedError(
            f"post in {path}: the file of a directory may not select which code runs",
            f"use --post, or set it in {_user_file_text()}",
        )
    from batchrun.post import located  # noqa: PLC0415  only where there is post-processing

    names = cast("list[object]", value) if isinstance(value, list) else [value]
    return [located(str(name), path.parent) for name in names]


def _profile(name: str, table: Mapping[str, Any], path: Path, trusted: bool) -> dict[str, Any]:
    where = f"[profiles.{name}] of {path}"
    own = _plain(table, path)
    for key in own:
        if key not in OF_PROFILES:
            raise _unknown_key(key, OF_PROFILES, where)
    _check_types(own, where)
    if "api_key_command" in own and not trusted:
        raise RefusedError(
            f"api_key_command in {where}: the file of a directory may not select which commands run",
            f"move the profile to {_user_file_text()}",
        )
    return own


def _check_types(own: Mapping[str, Any], where: str) -> None:
    for key in ("base_url", "model", "dialect", "api_key_env", "api_key_file", "quota"):
        if not isinstance(own.get(key, ""), str):
            raise RefusedError(f"{key} in {where} must be text")
    for key in PRICES:
        if isinstance(own.get(key, 0), bool) or not isinstance(own.get(key, 0), int | float) or own.get(key, 0) < 0:
            raise RefusedError(f"{key} in {where} must be a number, 0 or more: USD per million tokens, or a factor")
    factors = own.get("tier_factors", {})
    _tables_of_values(factors, f"tier_factors in {where}")
    if not all(type(factor) in (int, float) and factor >= 0 for factor in factors.values()):
        raise RefusedError(f"tier_factors in {where} must be numbers, such as {{flex = 0.5, priority = 2}}")
    for key in ("params", "headers", "requests", "media"):
        _tables_of_values(own.get(key, {}), f"{key} in {where}")
    if "requests" in own:
        from batchrun.prompts import check_takes  # noqa: PLC0415  only where a profile has them

        try:
            check_takes(own["requests"])
        except ValueError as error:
            raise RefusedError(f"requests in {where}: {error}", "docs/configuration.md has an example") from None
    if "media" in own:
        from batchrun import media  # noqa: PLC0415  only where a profile has it

        try:
            media.check_takes(own["media"])
        except ValueError as error:
            raise RefusedError(f"media in {where}: {error}", "docs/media.md has an example") from None
    if not re.fullmatch(r"[A-Za-z_]\w*", own.get("api_key_env", "A"), re.ASCII):
        raise RefusedError(
            f"api_key_env in {where} is not the name of an environment variable",
            "state the name of the variable that has the key, not the key itself",
        )
    _check_command(own.get("api_key_command", ["x"]), where)
    if len(own.keys() & set(KEY_SOURCES)) > 1:
        raise RefusedError(f"{where} has more than one of {', '.join(KEY_SOURCES)}", "keep one")


def _check_command(command: Any, where: str) -> None:
    if (
        not isinstance(command, list)
        or not command
        or not all(isinstance(word, str) for word in cast("list[Any]", command))
    ):
        raise RefusedError(
            f"api_key_command in {where} must be a list of words",
            'for example ["pass", "show", "openai"]; it runs without a shell',
        )


def _plain(table: Mapping[str, Any], path: Path) -> dict[str, Any]:
    # keys with underscores, and absolute paths
    plain: dict[str, Any] = {}
    for spelled, value in table.items():
        key = spelled.replace("-", "_")
        if key in plain:
            raise RefusedError(f"{key} appears twice in {path}, with a dash and with an underscore", "keep one of them")
        plain[key] = value
    for key in plain.keys() & _PATHS:
        if isinstance(plain[key], str):
            plain[key] = str(path.parent / Path(plain[key]).expanduser())
    return plain


def _tables(value: Any, where: str) -> dict[str, dict[str, Any]]:
    _tables_of_values(value, where)
    for name, own in value.items():
        _tables_of_values(own, f"{name} of {where}")
    return value


def _tables_of_values(value: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise RefusedError(f"{where} must be a table", "write [name] on a line, then NAME = VALUE lines")


def _unknown_key(key: str, known: Iterable[str], where: object) -> RefusedError:
    if _LOOKS_LIKE_KEY.fullmatch(key) or key in KEY_SOURCES:
        return RefusedError(
            f"{key} in {where}: keys are not allowed in configuration files",
            "state where the key is: api_key_env, api_key_file or api_key_command in a [profiles.NAME] table",
        )
    return unknown("key", key, known, f" in {where}")


def profile_tables(files: Iterable[ConfigFile]) -> dict[str, dict[str, Any]]:
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
    """Raises RefusedError."""
    tables = profile_tables(read_files(None))
    return [find_profile(name, tables) for name in dict.fromkeys([*BUILT_IN, *tables])]


def one_profile(name: str) -> Profile:
    return find_profile(name, profile_tables(read_files(None)))
