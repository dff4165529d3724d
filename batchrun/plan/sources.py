"""Where settings come from, strongest first: flags, `BATCHRUN_*` variables, `batchrun.toml` of the current directory,
the user's, the profile, built-in ones. Tables are merged by entry.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from batchrun.display import printable
from batchrun.errors import RefusedError
from batchrun.plan.config import ONLY_FLAGS, TABLES, profile_tables, read_files
from batchrun.plan.names import unknown
from batchrun.plan.options import FLAG_OF
from batchrun.plan.pools import POLICIES, members_of
from batchrun.plan.profiles import DEFAULT, Profile, find_profile
from batchrun.plan.settings import OPTIONS, PREFIX, InvalidSettingsError, Settings, settings_of
from batchrun.plan.tables import check_headers, check_params, pairs, parse_param, texts

FLAGS = "flags"
ENVIRONMENT = "environment"


class Layer(NamedTuple):
    source: str
    values: Mapping[str, Any]

    def name_of(self, option: str) -> str:
        if self.source == FLAGS:
            return FLAG_OF.get(option, "--" + option.replace("_", "-"))
        return PREFIX + option.upper() if self.source == ENVIRONMENT else f"{option} in {self.source}"


class Gathered(NamedTuple):
    settings: Settings
    profile: Profile
    sources: Mapping[str, str]  # of every option and table entry (`set.language`)
    answers: tuple[Mapping[str, Any], ...] = ()
    batches: Mapping[str, Mapping[str, Any]] = {}
    members: tuple[Profile, ...] = ()  # of a pool; `profile` is the first
    policy: str = POLICIES[0]
    fallback: Profile | None = None

    def typed(self, option: str) -> bool:
        return self.sources.get(option) in (FLAGS, ENVIRONMENT)


def gather(flags: Mapping[str, Any], folder: Path | None = None) -> Gathered:
    """`folder` has the nearer `batchrun.toml`. Raises RefusedError."""
    flags_and_variables = [flag_layer(flags), environment_layer()]
    files = read_files(OPTIONS, folder)
    layers = [*flags_and_variables, *(Layer(str(file.path), file.options) for file in files)]
    _refuse_undecoded(layers)
    merged, _ = merge(settle(layers))
    tables = profile_tables(files)
    pools = {name: pool for file in reversed(files) for name, pool in file.pools.items()}
    pool = merged.get("pool")
    members = () if not pool else members_of(str(pool), pools, tables)
    profile = members[0] if members else find_profile(str(merged.get("profile", DEFAULT)), tables)
    layers.append(
        Layer(
            f"profile {profile.name}",
            {**profile.defaults, **({} if profile.base_url is None else {"base_url": profile.base_url})},
        )
    )
    settled = settle(layers)
    merged, sources = merge(settled)
    answers = tuple(line for file in files for line in file.answers)
    batches = {name: own for file in reversed(files) for name, own in file.batches.items()}
    settings = validate(merged, settled)
    fallback = None if settings.fallback is None else find_profile(settings.fallback, tables)
    policy = settings.pool_policy or (pools[str(pool)].policy if members else None) or POLICIES[0]
    gathered = Gathered(settings, profile, sources, answers, batches, members, policy, fallback)
    _check(gathered, settled)
    return gathered


def _refuse_undecoded(layers: Iterable[Layer]) -> None:
    # lone surrogates (PEP 383) fit neither into requests nor the journal
    for layer in layers:
        for option, value in layer.values.items():
            for text in _texts(value):
                try:
                    text.encode()
                except UnicodeEncodeError:
                    raise RefusedError(
                        f"{layer.name_of(option)} is not UTF-8: {printable(text, 80)}",
                        "write it in UTF-8; for a file name, rename the file or use a relative path",
                    ) from None


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str | Path):
        yield str(value)
    elif isinstance(value, Mapping):
        for pair in cast("Mapping[object, object]", value).items():
            yield from _texts(pair)
    elif isinstance(value, list | tuple | set | frozenset):
        for each in cast("Iterable[object]", value):
            yield from _texts(each)


def flag_layer(flags: Mapping[str, Any]) -> Layer:
    values = dict(flags)
    for option, separators in (("params", "="), ("headers", "=:"), ("set", "="), ("columns", "=")):
        if option in values and not isinstance(values[option], dict):
            values[option] = pairs(values[option], Layer(FLAGS, {}).name_of(option), separators)
    if "params" in values:
        values["params"] = {name: parse_param(name, text) for name, text in values["params"].items()}
    if "headers" in values:
        values["headers"] = {name: value.strip() for name, value in values["headers"].items()}
    return Layer(FLAGS, values)


def environment_layer() -> Layer:
    """Raises RefusedError for an unknown variable."""
    known = frozenset(OPTIONS) - ONLY_FLAGS
    values: dict[str, Any] = {}
    for variable, value in os.environ.items():
        option = variable.removeprefix(PREFIX).lower()
        if not variable.startswith(PREFIX):
            continue
        if option in known:
            if value:
                values[option] = _object(option, value) if option in TABLES else value
            continue
        if re.search("key|token|secret", option):
            raise RefusedError(f"{variable} is not used", "set OPENAI_API_KEY, or the variable of the profile")
        if option in ONLY_FLAGS:
            raise RefusedError(f"{variable}: it applies to one command only", f"use --{option.replace('_', '-')}")
        raise unknown("variable", variable, [PREFIX + option.upper() for option in known])
    return Layer(ENVIRONMENT, values)


def _object(option: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise RefusedError(f"{PREFIX}{option.upper()} must be a JSON object", """for example '{"NAME": "value"}'""")
    return cast("dict[str, Any]", value)


_EXCLUDE = (
    ("pool", "profile"),
    ("pool", "base_url"),
    ("quiet", "verbose"),
    ("fresh", "update"),
    ("limit", "sample"),
    ("json", "output"),
)
_OFF = frozenset({"", "0", "false", "f", "no", "n", "off"})


def settle(layers: Iterable[Layer]) -> list[Layer]:
    """Without what a stronger layer excludes. Raises RefusedError if two of one layer exclude each other."""
    settled: list[Layer] = []
    chosen: set[str] = set()
    named_profile = False
    for layer in layers:
        active = {
            option
            for option, value in layer.values.items()
            if (value == "-" if option == "output" else str(value).strip().lower() not in _OFF)
        }
        dropped = {option for pair in _EXCLUDE for option in _excluded(pair, active, chosen, layer)}
        # A base URL weaker than the profile's name belongs to another choice: `sim` must never reach it.
        if named_profile and not layer.source.startswith("profile "):
            dropped.add("base_url")
        settled.append(
            Layer(layer.source, {name: value for name, value in layer.values.items() if name not in dropped})
        )
        chosen |= active - dropped
        named_profile = named_profile or "profile" in layer.values
    return settled


def _excluded(pair: tuple[str, str], active: set[str], chosen: set[str], layer: Layer) -> list[str]:
    first, second = pair
    if first in active and second in active:
        names = layer.name_of(first), layer.name_of(second) + (" -" if second == "output" else "")
        raise RefusedError(f"{names[0]} and {names[1]} exclude each other", "keep one of them")
    return [mine for mine, other in (pair, (second, first)) if mine in active and other in chosen]


def merge(layers: Iterable[Layer]) -> tuple[dict[str, Any], dict[str, str]]:
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for layer in layers:
        for option, value in layer.values.items():
            if option in TABLES:
                sources = {f"{option}.{name}": layer.source for name in value} | sources
            if option not in merged:
                merged[option], sources[option] = value, layer.source
            elif option in TABLES:
                taken = {_entry(option, name) for name in merged[option]}
                weaker = {name: item for name, item in value.items() if _entry(option, name) not in taken}
                merged[option] = {**weaker, **merged[option]}
    return merged, sources


def _entry(option: str, name: str) -> str:
    # names of headers ignore case (RFC 9110, 5.1)
    return name.lower() if option == "headers" else name


def validate(values: Mapping[str, Any], layers: Iterable[Layer]) -> Settings:
    """Raises RefusedError with every wrong value and its source."""
    checked = dict(values)
    for option in ("headers", "set", "columns"):
        if option in checked:
            checked[option] = texts(checked[option], _place(option, layers))
    try:
        return settings_of(checked)
    except InvalidSettingsError as error:
        raise RefusedError(
            "; ".join(f"{_place(option, layers)}: {message}" for option, message in error.found)
        ) from None


def _place(option: str, layers: Iterable[Layer]) -> str:
    return next((layer.name_of(option) for layer in layers if option in layer.values), option)


def _check(gathered: Gathered, layers: Iterable[Layer]) -> None:
    settings, profile = gathered.settings, gathered.profile
    check_params({**profile.params, **settings.params})
    check_headers(settings.headers)
    if settings.sim:
        from batchrun.sim import from_json  # noqa: PLC0415  a server, loaded only where it is configured

        try:
            from_json(settings.sim)
        except RefusedError as error:
            raise RefusedError(f"{_place('sim', layers)}: {error.message}", error.hint) from error
    if profile.simulated and settings.base_url:
        raise RefusedError("profile sim starts its own server: it has no base URL", "omit --base-url")
