"""The plan, its JSON in the journal, and drift."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, cast

from batchrun.errors import StorageError
from batchrun.models import Blank, Endpoint, Flag, Kind
from batchrun.providers import ANY


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything a run depends on, as journaled. Durations are seconds, prices and costs USD.

    Only the fields of `_DRIFT` decide requests. `headers` refer to the environment as `${NAME}`: there is no secret.
    """

    kind: Kind
    input: str
    input_format: str
    id_column: str | None
    prompt_name: str | None
    prompt_path: str | None
    prompt_source: str | None
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    endpoint: Endpoint
    model: str | None
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])

    output: str
    output_format: str
    output_column: str
    output_fields: tuple[str, ...] = ()  # columns of an output schema; empty: the whole value in `output_column`
    csv_delimiter: str = ","  # that of a CSV input
    csv_marked: bool = False  # whether it begins with a byte order mark

    profile: str
    base_url: str  # empty for the embedded simulator
    api_key_env: str | None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    ca_file: str | None = None
    simulated: bool = False
    dialect: str = ANY
    answers: tuple[Mapping[str, Any], ...] = ()  # the user's rules, in the form of `providers/answers.toml`
    requests: Mapping[str, Any] = field(default_factory=dict[str, Any])
    media: Mapping[str, Any] = field(default_factory=dict[str, Any])
    input_price: float | None = None
    output_price: float | None = None
    cached_price: float | None = None
    cache_write_price: float | None = None
    request_price: float | None = None
    batch_factor: float | None = None
    tier_factors: Mapping[str, float] = field(default_factory=dict[str, float])

    pool: str | None = None
    pool_policy: str = "soonest"
    fallback: str | None = None
    lane_column: str | None = None  # output column with the lane that answered
    lanes: tuple[Mapping[str, Any], ...] = ()  # each member's own fields; the plan itself has the first's

    concurrency: int = 256
    concurrency_fixed: bool = False
    max_bytes_in_flight: int = 48_000_000
    processes: int = 1
    senders: int | str | None = None  # a number, or `node` for one on each node of the cluster
    senders_ray: str | None = None
    senders_seal: str | None = None
    rpm: float | None = None
    tpm: float | None = None
    max_attempts: int = 5
    timeout: float = 600.0
    drain: float = 60.0
    max_wait: float | None = None
    give_up_after: float = 600.0
    stop_after: float | None = None
    limit: int | None = None
    sample: int | None = None
    skip_invalid: bool = False
    blank: Blank | None = None
    existing: str = "keep"
    target_language: str | None = None
    split: int | None = None
    reduce: int | None = None
    check: tuple[str, ...] = ()
    fail_on: frozenset[Flag] = frozenset({Flag.EMPTY})
    schema_retries: int = 2
    retry_truncated: int = 0
    keep_thinking: bool = False
    dedupe: bool = False
    batch: bool = False
    batch_detach: bool = False
    batch_tail: str = "live"
    batch_min: int = 100
    batch_first: int = 100
    cache: str = "auto"
    tier: tuple[str, ...] = ()  # the preferred one first
    tier_patience: float = 600.0
    timeout_chosen: bool = False  # whether the user chose `timeout`
    concurrency_chosen: bool = True
    queue_gauges: str = "off"
    finish_by: float | None = None  # Unix seconds
    batches: Mapping[str, Any] = field(default_factory=dict[str, Any])
    max_cost: float | None = None
    max_total_tokens: int | None = None
    max_requests: int | None = None
    max_output_tokens: int | None = None
    detail: str | None = None  # of pictures
    reserve: float | None = None  # per request

    post: tuple[str, ...] = ()  # files with absolute paths
    workers: int | None = None  # None: auto; with `ray`, the address of a cluster, all of it
    ray: str | None = None
    post_timeout: float = 60.0
    post_concurrency: int = 16
    post_seal: str | None = None  # signature over `post` and `ray`, see `plan.signed_settings`


def fail_on(names: Iterable[str]) -> frozenset[Flag]:
    """`empty` and these, without those after a `-`. Raises ValueError."""
    chosen = {Flag.EMPTY}
    for name in names:
        flag = Flag(name.removeprefix("-"))
        (chosen.discard if name.startswith("-") else chosen.add)(flag)
    return frozenset(chosen)


def fail_on_names(flags: frozenset[Flag]) -> list[str]:
    left_out = [] if Flag.EMPTY in flags else [f"-{Flag.EMPTY}"]
    return left_out + sorted(flags - {Flag.EMPTY})


_READERS: dict[str, Callable[[Any], Any]] = {
    "kind": Kind,
    "endpoint": Endpoint,
    "blank": lambda name: None if name is None else Blank(name),
    "fail_on": fail_on,
    "answers": tuple,
    "lanes": tuple,
    "output_fields": tuple,
    "check": tuple,
    "post": tuple,
    "tier": tuple,
}
_DRIFT = {
    "kind": "the kind of input",
    "endpoint": "the endpoint",
    "model": "the model",
    "params": "parameters",
    "prompt_source": "the prompt",
    "variables": "variables",
    "columns": "the columns of variables",
    "max_output_tokens": "--max-output-tokens",
    "detail": "--detail",
}


def plan_to_json(plan: Plan) -> str:
    """Equal plans have equal texts."""
    values = {item.name: getattr(plan, item.name) for item in fields(plan)}
    values["fail_on"] = fail_on_names(plan.fail_on)
    return json.dumps(values, ensure_ascii=False, allow_nan=False, default=dict)


def plan_from_json(text: str) -> Plan:
    """Raises StorageError."""
    try:
        values = json.loads(text)
        read = {name: _READERS[name](value) if name in _READERS else value for name, value in values.items()}
        return Plan(**read)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(
            f"the plan in the journal cannot be read: {error}",
            "the journal is damaged or was written by another version of batchrun",
        ) from error


def drift(old: Plan, new: Plan) -> tuple[str, ...]:
    return tuple(name for name in _DRIFT if getattr(old, name) != getattr(new, name))


def drift_text(old: Plan, new: Plan) -> str:
    parts = [_DRIFT[name] + _detail(getattr(old, name), getattr(new, name)) for name in drift(old, new)]
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def _detail(old: Any, new: Any) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        before, after = cast("dict[str, Any]", old), cast("dict[str, Any]", new)
        names = sorted(name for name in before.keys() | after.keys() if before.get(name, ...) != after.get(name, ...))
        return f" ({', '.join(names)})"
    if isinstance(old, str) and isinstance(new, str) and len(old) + len(new) <= 100 and "\n" not in old + new:
        return f" ({old} → {new})"
    return ""
