"""Every option of a run, with validation and default."""

# ruff: noqa: RUF009  a field is made by a function

import codecs
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from batchrun import documents
from batchrun.documents import Existing
from batchrun.models import Blank, Endpoint, Flag
from batchrun.plan.durations import parse_duration, parse_size, parse_time
from batchrun.plan.pools import POLICIES
from batchrun.plan.profiles import DEFAULT
from batchrun.plan.record import fail_on

PREFIX = "BATCHRUN_"
FORMATS = ("jsonl", "csv", "tsv", "parquet", "xlsx", "rows")
NO_CHECK = "none"
RAY = "ray"
NODE = "node"
# tokens of a piece: its translation fits in 4,096, the smallest output limit in use
AUTO_SPLIT = 2000
# tokens of a request: eight such replies fit into a context of 128,000
AUTO_REDUCE = 8000
MOST_PROCESSES = 64
Named = TypeVar("Named", bound=StrEnum)
_ENDPOINTS = {endpoint.rsplit("/", 1)[1]: endpoint for endpoint in Endpoint} | {"chat": Endpoint.CHAT}


def _duration(value: object) -> float:
    seconds = parse_duration(value)
    if seconds == 0:
        raise ValueError("must be longer than 0")
    return seconds


def _count(least: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        text = str(value).strip()
        if (
            isinstance(value, bool)
            or not (text.isascii() and text.removeprefix("-").isdecimal())
            or len(text) > 18
            or int(text) < least
        ):
            raise ValueError(f"must be a whole number of at least {least}, not {value!r}")
        return int(text)

    return check


def _rate(value: object) -> float:
    try:
        rate = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else 0.0
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1e12:
        raise ValueError(f"must be a number above 0 (per minute), not {value!r}")
    return rate


def _dollars(value: object) -> float:
    try:
        amount = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else -1.0
    except ValueError:
        amount = -1.0
    if not 0 <= amount < 1e9:
        raise ValueError(f"must be an amount of US dollars, not {value!r}")
    return amount


def _endpoint(value: object) -> Endpoint:
    name = str(value).strip().lower().removeprefix("/").removeprefix("v1/")
    if name not in _ENDPOINTS and name != "chat/completions":
        raise ValueError(f"must be one of chat, responses, embeddings, completions, transcriptions, not {value!r}")
    return _ENDPOINTS.get(name, Endpoint.CHAT)


def _flags(value: object) -> frozenset[Flag]:
    if isinstance(value, frozenset):
        return cast("frozenset[Flag]", value)
    names = cast("list[object]", value) if isinstance(value, list | tuple) else str(value).split(",")
    words = [str(name).strip().lower() for name in names]
    try:
        return fail_on(words)
    except ValueError:
        names = ", ".join(Flag)
        given = ",".join(words)
        raise ValueError(f"must be some of {names}, with a - before one to leave it out, not {given!r}") from None


def _checks(value: object) -> tuple[str, ...]:
    names = cast("list[object]", value) if isinstance(value, list | tuple) else [value]
    words = tuple(word.strip() for name in names for word in str(name).split(","))
    known = (*documents.NAMES, NO_CHECK)
    if not set(words) <= set(known):
        raise ValueError(f"must be some of {', '.join(known)}, not {','.join(words)!r}")
    return words


def _tokens(auto: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        text = str(value).strip().removesuffix("tokens").rstrip(" -")
        try:
            return auto if text == "auto" else _count(50)(text)
        except ValueError:
            raise ValueError(f"must be auto, or a number of tokens of at least 50, not {value!r}") from None

    return check


def _language(value: object) -> str:
    code = documents.code_of(str(value))
    if code is None:
        raise ValueError(f"must be a language by code or by name, such as de or German, not {value!r}")
    return code


def _one_of(*names: str) -> Callable[[object], str]:
    listed = " or ".join([", ".join(names[:-1]), names[-1]])

    def checked(value: object) -> str:
        if value not in names:
            raise ValueError(f"must be {listed}, not {value!r}")
        return str(value)

    return checked


def _member(kind: type[Named]) -> Callable[[object], Named]:
    check = _one_of(*kind)
    return lambda value: kind(check(value))


def _tiers(value: object) -> tuple[str, ...]:
    names = cast("list[object]", value) if isinstance(value, list | tuple) else str(value).split(",")
    words = ("standard" if word == "default" else word for word in (str(name).strip().lower() for name in names))
    tiers = tuple(dict.fromkeys(words))
    if not all(re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", name) for name in tiers) or "batch" in tiers:
        raise ValueError(
            f"must be service tiers, such as flex or flex,standard (--batch is for batches), not {value!r}"
        )
    return tiers


def _addresses(value: object) -> str | tuple[str, ...]:
    if isinstance(value, str):
        return value
    if not isinstance(value, list | tuple):
        raise ValueError("must be an address, or a list of addresses")
    given = tuple(cast("list[object]", value))
    if not given or not all(type(one) is str for one in given):
        raise ValueError("must be an address, or a list of addresses")
    addresses = cast("tuple[str, ...]", given)
    return addresses[0] if len(addresses) == 1 else addresses


def _encoding(value: object) -> str:
    try:
        name = codecs.lookup(str(value)).name
        "".encode(name)
    except (LookupError, ValueError):  # unknown, or no encoding of text
        raise ValueError(f"must be an encoding of text, such as cp1252, utf-16 or shift_jis, not {value!r}") from None
    return name


def _functions(value: object) -> tuple[str, ...]:
    names = cast("list[object]", value) if isinstance(value, list | tuple) else str(value).split(",")
    words = tuple(str(name).strip() for name in names)
    if not all(words):
        raise ValueError("must name a function: FILE.py:name, package.module:name, or a built-in one")
    from batchrun.post import located  # noqa: PLC0415  only where there is post-processing

    return tuple(map(located, words))


def _workers(value: object) -> int | str | None:
    text = str(value).strip().lower()
    if text == "auto":
        return None
    try:
        if text.startswith(RAY):
            return text if text == RAY else f"{RAY}:{_count(1)(text.removeprefix(f'{RAY}:'))}"
        return _count(0)(value)
    except ValueError:
        raise ValueError(
            f"must be auto, a whole number of processes, 0 for none, or ray or ray:N for a cluster, not {value!r}"
        ) from None


def _cluster(value: object) -> str:
    text = str(value).strip()
    host, colon, port = text.rpartition(":")
    if text != "auto" and not (colon and host and port.isdecimal() and text.isprintable() and " " not in text):
        raise ValueError(f"must be HOST:PORT, the address of the cluster's head, or auto, not {value!r}")
    return text


def _processes(value: object) -> int:
    number = _count(1)(value)
    if number > MOST_PROCESSES:
        raise ValueError(f"must be at most {MOST_PROCESSES}, not {number}")
    if number > 1 and not hasattr(os, "fork"):
        raise ValueError("must be 1 on this system, where a process cannot inherit a socket")
    return number


def _senders(value: object) -> int | str:
    text = str(value).strip().lower()
    try:
        return text if text == NODE else _count(1)(value)
    except ValueError:
        raise ValueError(
            f"must be a whole number, or node for one on each node of the cluster, not {value!r}"
        ) from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    if not value.strip() or "\0" in value:
        raise ValueError("must not be empty")
    return value


_SWITCH = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1", "1.0"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0", "0.0"), False),
}


def _switch(value: object) -> bool:
    # as TOML, an environment variable or a flag has it
    found = _SWITCH.get(str(value).lower())
    if found is None:
        raise ValueError("must be true or false")
    return found


def _table(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("must be a table")
    return dict(cast("dict[str, Any]", value))


def _webhook(value: object) -> str:
    url = str(value).strip()
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not url.isprintable() or " " in url:
        raise ValueError("must be an https:// address (http:// on this machine)")
    return url


def _option(check: Callable[[Any], Any], default: Any = None, *, name: str = "", secret: bool = False) -> Any:
    # a field with its check, which raises ValueError, and the option's name where Python has another use for it
    metadata = {"check": check, "name": name}
    if type(default) is dict:
        return field(default_factory=dict[str, Any], metadata=metadata)
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Checked by `settings_of`. Durations are seconds, rates per minute; None is "not chosen"."""

    input: str | None = _option(_text)
    prompt: str | None = _option(_text)
    output: str | None = _option(_text)
    format: str | None = _option(_one_of(*FORMATS))
    model: str | None = _option(_text)
    profile: str = _option(_text, DEFAULT)
    base_url: str | tuple[str, ...] | None = _option(_addresses)
    pool: str | None = _option(_text)
    fallback: str | None = _option(_text)
    pool_policy: str | None = _option(_one_of(*POLICIES))
    endpoint: Endpoint | None = _option(_endpoint)
    params: dict[str, Any] = _option(_table, {})
    headers: dict[str, str] = _option(_table, {})
    variables: dict[str, str] = _option(_table, {}, name="set")
    columns: dict[str, str] = _option(_table, {})
    sim: dict[str, Any] = _option(_table, {})  # only from a file or a variable
    id_column: str | None = _option(_text)
    sheet: str | None = _option(_text)
    encoding: str | None = _option(_encoding)
    path: str | None = _option(_text)
    output_column: str | None = _option(_text)
    lane_column: str | None = _option(_text)
    detail: str | None = _option(_one_of("low", "high", "auto"))
    existing: Existing = _option(_member(Existing), Existing.KEEP)
    split: int | None = _option(_tokens(AUTO_SPLIT))
    reduce: int | None = _option(_tokens(AUTO_REDUCE))
    target_language: str | None = _option(_language)
    check: tuple[str, ...] = _option(_checks, ())

    concurrency: int = _option(_count(1), 256)
    concurrency_fixed: bool = _option(_switch, False)
    queue_gauges: str = _option(_one_of("auto", "on", "off"), "auto")
    max_bytes_in_flight: int = _option(parse_size, 48_000_000)
    processes: int = _option(_processes, 1)
    senders: int | str | None = _option(_senders)
    rpm: float | None = _option(_rate)
    tpm: float | None = _option(_rate)
    max_attempts: int = _option(_count(1), 5)
    timeout: float = _option(_duration, 600.0)
    drain: float = _option(parse_duration, 60.0)
    max_wait: float | None = _option(_duration)
    give_up_after: float = _option(_duration, 600.0)
    stop_after: float | None = _option(_duration)
    limit: int | None = _option(_count(0))
    sample: int | None = _option(_count(1))
    skip_invalid: bool = _option(_switch, False)
    blank: Blank | None = _option(_member(Blank))
    fail_on: frozenset[Flag] = _option(_flags, frozenset({Flag.EMPTY}))
    schema_retries: int = _option(_count(0), 2)
    retry_truncated: int = _option(_count(0), 0)
    keep_thinking: bool = _option(_switch, False)
    dedupe: bool = _option(_switch, False)
    batch: bool = _option(_switch, False)
    batch_detach: bool = _option(_switch, False)
    batch_tail: str = _option(_one_of("live", "batch"), "live")
    batch_min: int = _option(_count(0), 100)
    batch_first: int = _option(_count(1), 100)
    reuse: str | None = _option(_text)
    cache: str = _option(_one_of("auto", "off"), "auto")
    tier: tuple[str, ...] = _option(_tiers, ())
    tier_patience: float = _option(_duration, 600.0)
    finish_by: float | None = _option(parse_time)
    max_cost: float | None = _option(_dollars)
    max_total_tokens: int | None = _option(_count(1))
    max_requests: int | None = _option(_count(1))
    max_output_tokens: int | None = _option(_count(1))
    reserve: float | None = _option(_dollars)

    post: tuple[str, ...] = _option(_functions, ())
    workers: int | str | None = _option(_workers)
    ray: str | None = _option(_cluster)
    post_timeout: float = _option(_duration, 60.0)
    post_concurrency: int = _option(_count(1), 16)

    dry_run: bool = _option(_switch, False)
    fresh: bool = _option(_switch, False)
    update: bool = _option(_switch, False)
    yes: bool = _option(_switch, False)
    insecure_http: bool = _option(_switch, False)
    ca_file: str | None = _option(_text)
    runs_dir: str | None = _option(_text)

    as_json: bool = _option(_switch, False, name="json")
    quiet: bool = _option(_switch, False)
    no_progress: bool = _option(_switch, False)
    verbose: bool = _option(_switch, False)
    log_file: str | None = _option(_text)
    metrics_file: str | None = _option(_text)
    otel: bool = _option(_switch, False)
    notify: str | None = _option(_text)
    notify_url: str | None = _option(_webhook, secret=True)


_FIELDS = {item.metadata["name"] or item.name: item for item in fields(Settings)}
OPTIONS = tuple(_FIELDS)


class InvalidSettingsError(ValueError):
    """Pairs of an option and what it must be."""

    def __init__(self, found: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{option} {message}" for option, message in found))
        self.found = found


def settings_of(values: Mapping[str, Any]) -> Settings:
    """Raises InvalidSettingsError with every wrong one."""
    wrong = [(option, "is not an option") for option in values.keys() - _FIELDS.keys()]
    checked: dict[str, Any] = {}
    for option, item in _FIELDS.items():
        if option not in values or (values[option] is None and item.default is None):
            continue
        try:
            checked[item.name] = item.metadata["check"](values[option])
        except ValueError as error:
            wrong.append((option, str(error)))
    if wrong:
        raise InvalidSettingsError(wrong)
    return Settings(**checked)
