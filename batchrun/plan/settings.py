"""Every option of a run, with validation and default."""

import codecs
import os
import re
from collections.abc import Callable
from typing import Annotated, Any, cast
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from batchrun.documents.checks import NAMES
from batchrun.documents.plurals import code_of
from batchrun.documents.segment import Existing
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
AUTO_SPLIT = 2000
"""Tokens: the translation fits in 4,096, the smallest output limit in use."""
AUTO_REDUCE = 8000
"""Tokens: eight such replies fit into a context of 128,000."""
MOST_PROCESSES = 64
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
        raise ValueError(f"must be some of {names}, with a - before one to leave it out, not {value!r}") from None


def _checks(value: object) -> tuple[str, ...]:
    names = cast("list[object]", value) if isinstance(value, list | tuple) else [value]
    words = tuple(word.strip() for name in names for word in str(name).split(","))
    known = (*NAMES, NO_CHECK)
    if not set(words) <= set(known):
        raise ValueError(f"must be some of {', '.join(known)}, not {value!r}")
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
    code = code_of(str(value))
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


def _tiers(value: object) -> tuple[str, ...]:
    names = cast("list[object]", value) if isinstance(value, list | tuple) else str(value).split(",")
    words = ("standard" if word == "default" else word for word in (str(name).strip().lower() for name in names))
    tiers = tuple(dict.fromkeys(words))
    if not all(re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", name) for name in tiers) or "batch" in tiers:
        raise ValueError(
            f"must be service tiers, such as flex or flex,standard (--batch is for batches), not {value!r}"
        )
    return tiers


def _addresses(value: object) -> object:
    if not isinstance(value, list | tuple):  # one address
        return value
    given = tuple(cast("list[object]", value))
    if not given or not all(type(one) is str for one in given):
        raise ValueError("must be an address, or a list of addresses")
    return given[0] if len(given) == 1 else given


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
    if value is None or text == "auto":
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


def _senders(value: object) -> int | str | None:
    text = str(value).strip().lower()
    if value is None:
        return None
    try:
        return text if text == NODE else _count(1)(value)
    except ValueError:
        raise ValueError(
            f"must be a whole number, or node for one on each node of the cluster, not {value!r}"
        ) from None


def _filled(value: object) -> object:
    if isinstance(value, str) and (not value.strip() or "\0" in value):
        raise ValueError("must not be empty")
    return value


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


Text = Annotated[str, BeforeValidator(_filled)]
Duration = Annotated[float, BeforeValidator(_duration)]
Rate = Annotated[float, BeforeValidator(_rate)]
Dollars = Annotated[float, BeforeValidator(_dollars)]
Table = Annotated[dict[str, str], NoDecode]


class Settings(BaseSettings):
    """Durations are seconds, rates per minute; None is "not chosen"."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_prefix_target="all", env_ignore_empty=True, frozen=True, extra="forbid"
    )

    input: Text | None = None
    prompt: Text | None = None
    output: Text | None = None
    format: Annotated[str, BeforeValidator(_one_of(*FORMATS))] | None = None
    model: Text | None = None
    profile: Text = DEFAULT
    base_url: Annotated[str | tuple[str, ...] | None, NoDecode, BeforeValidator(_addresses)] = None
    pool: Text | None = None
    fallback: Text | None = None
    pool_policy: Annotated[str, BeforeValidator(_one_of(*POLICIES))] | None = None
    endpoint: Annotated[Endpoint, BeforeValidator(_endpoint)] | None = None
    params: Annotated[dict[str, Any], NoDecode] = {}
    headers: Table = {}
    variables: Table = Field(default={}, alias="set")
    columns: Table = {}
    sim: Annotated[dict[str, Any], NoDecode] = {}  # only from a file or a variable
    id_column: Text | None = None
    sheet: Text | None = None
    encoding: Annotated[str, BeforeValidator(_encoding)] | None = None
    path: Text | None = None
    output_column: Text | None = None
    lane_column: Text | None = None
    detail: Annotated[str, BeforeValidator(_one_of("low", "high", "auto"))] | None = None
    existing: Annotated[Existing, BeforeValidator(_one_of(*Existing))] = Existing.KEEP
    split: Annotated[int, BeforeValidator(_tokens(AUTO_SPLIT))] | None = None
    reduce: Annotated[int, BeforeValidator(_tokens(AUTO_REDUCE))] | None = None
    target_language: Annotated[str, BeforeValidator(_language)] | None = None
    check: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_checks)] = ()

    concurrency: Annotated[int, BeforeValidator(_count(1))] = 256
    concurrency_fixed: bool = False
    queue_gauges: Annotated[str, BeforeValidator(_one_of("auto", "on", "off"))] = "auto"
    max_bytes_in_flight: Annotated[int, BeforeValidator(parse_size)] = 48_000_000
    processes: Annotated[int, BeforeValidator(_processes)] = 1
    senders: Annotated[int | str | None, NoDecode, BeforeValidator(_senders)] = None
    rpm: Rate | None = None
    tpm: Rate | None = None
    max_attempts: Annotated[int, BeforeValidator(_count(1))] = 5
    timeout: Duration = 600.0
    drain: Annotated[float, BeforeValidator(parse_duration)] = 60.0
    max_wait: Duration | None = None
    give_up_after: Duration = 600.0
    stop_after: Duration | None = None
    limit: Annotated[int, BeforeValidator(_count(0))] | None = None
    sample: Annotated[int, BeforeValidator(_count(1))] | None = None
    skip_invalid: bool = False
    blank: Annotated[Blank, BeforeValidator(_one_of(*Blank))] | None = None
    fail_on: Annotated[frozenset[Flag], NoDecode, BeforeValidator(_flags)] = frozenset({Flag.EMPTY})
    schema_retries: Annotated[int, BeforeValidator(_count(0))] = 2
    retry_truncated: Annotated[int, BeforeValidator(_count(0))] = 0
    keep_thinking: bool = False
    dedupe: bool = False
    batch: bool = False
    batch_detach: bool = False
    batch_tail: Annotated[str, BeforeValidator(_one_of("live", "batch"))] = "live"
    batch_min: Annotated[int, BeforeValidator(_count(0))] = 100
    batch_first: Annotated[int, BeforeValidator(_count(1))] = 100
    reuse: Text | None = None
    cache: Annotated[str, BeforeValidator(_one_of("auto", "off"))] = "auto"
    tier: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_tiers)] = ()
    tier_patience: Duration = 600.0
    finish_by: Annotated[float, NoDecode, BeforeValidator(parse_time)] | None = None
    max_cost: Dollars | None = None
    max_total_tokens: Annotated[int, BeforeValidator(_count(1))] | None = None
    max_requests: Annotated[int, BeforeValidator(_count(1))] | None = None
    max_output_tokens: Annotated[int, BeforeValidator(_count(1))] | None = None
    reserve: Dollars | None = None

    post: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_functions)] = ()
    workers: Annotated[int | str | None, NoDecode, BeforeValidator(_workers)] = None
    ray: Annotated[str, BeforeValidator(_cluster)] | None = None
    post_timeout: Duration = 60.0
    post_concurrency: Annotated[int, BeforeValidator(_count(1))] = 16

    dry_run: bool = False
    fresh: bool = False
    update: bool = False
    yes: bool = False
    insecure_http: bool = False
    ca_file: Text | None = None
    runs_dir: Text | None = None

    as_json: bool = Field(default=False, alias="json")
    quiet: bool = False
    no_progress: bool = False
    verbose: bool = False
    log_file: Text | None = None
    metrics_file: Text | None = None
    otel: bool = False
    notify: Text | None = None
    notify_url: Annotated[str, BeforeValidator(_webhook)] | None = Field(default=None, repr=False)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """`gather` reads the sources itself, to name the one that is wrong."""
        return (init_settings,)


OPTIONS = tuple(field.alias or name for name, field in Settings.model_fields.items())
