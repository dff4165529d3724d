"""Makes a plan from settings, input and prompt, or for `resume`."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from batchrun import documents
from batchrun.errors import InputError, RefusedError
from batchrun.models import Endpoint, Flag, Kind
from batchrun.plan import signed_settings
from batchrun.plan.address import check_base_url, check_secrecy, is_loopback
from batchrun.plan.keys import Key, find_key
from batchrun.plan.lanes import LIMITS, headers_of, lanes_of, pooled
from batchrun.plan.outputs import (
    DOCUMENT,
    check_clash,
    check_not_input,
    default_format,
    default_output,
    document_format,
    is_document,
    output_fields,
    output_format,
    target_language,
)
from batchrun.plan.pools import JOINED
from batchrun.plan.profiles import PRICES, Profile
from batchrun.plan.record import Plan
from batchrun.plan.settings import NO_CHECK, Settings
from batchrun.plan.sources import FLAGS, Gathered, gather
from batchrun.plan.tables import expand_headers, secrets_of
from batchrun.rows.table import COMMAS, Table
from batchrun.secrecy import Mask

if TYPE_CHECKING:  # Jinja2 and the readers of tables: not to refuse a wrong key
    from batchrun.prompts import Prompt
    from batchrun.rows import Input

_LIMITS = (
    *("concurrency", "concurrency_fixed", "queue_gauges", "max_bytes_in_flight", "processes", "rpm", "tpm"),
    *("max_attempts", "timeout", "drain", "max_wait", "give_up_after", "stop_after", "limit", "sample"),
    *("skip_invalid", "blank", "fail_on", "schema_retries", "retry_truncated", "existing", "split", "reduce"),
    *("check", "keep_thinking", "dedupe", "batch", "batch_detach", "batch_tail", "batch_min", "batch_first", "cache"),
    *("tier", "tier_patience", "finish_by", "ca_file", "max_cost", "max_total_tokens", "max_requests"),
    *("max_output_tokens", "reserve", "post", "post_timeout", "post_concurrency"),
)
_OF_ONE_COMMAND = ("limit", "sample", "stop_after", "finish_by")
_OF_PROMPTS = {"prompt": "--prompt", "model": "--model", "params": "--param", "set": "--set", "columns": "--column"}
_AUTHENTICATION = {"authorization", "api-key", "x-api-key"}


class Facts(NamedTuple):
    source: str
    stem: str
    kind: Kind
    format: str
    columns: tuple[str, ...] = ()
    id_column: str | None = None
    table: Table = COMMAS


def facts_of(source: str, rows: "Input") -> Facts:
    return Facts(
        source=source,
        stem=rows.stem,
        kind=rows.kind,
        format=rows.format,
        columns=rows.columns,
        id_column=rows.id_column,
        table=rows.table,
    )


@dataclass(frozen=True, slots=True)
class Access:
    """Never stored. `mask` has every secret."""

    key: Key | None
    headers: Mapping[str, str] = field(repr=False)
    mask: Mask = field(repr=False)
    lanes: tuple["Access", ...] = field(default=(), repr=False)


def resolve(gathered: Gathered, facts: Facts, prompt: "Prompt | None") -> Plan:
    """Raises RefusedError."""
    _check_kind(gathered, facts, prompt)
    settings, profile = gathered.settings, gathered.profile
    rows = facts.kind is Kind.ROWS
    plan = Plan(
        kind=facts.kind,
        input=facts.source,
        input_format=facts.format,
        id_column=facts.id_column,
        prompt_name=prompt.name if prompt else None,
        prompt_path=prompt.path if prompt else None,
        prompt_source=prompt.source if prompt else None,
        variables=_of_prompt("set", settings.variables, gathered, prompt) if rows else {},
        columns=_of_prompt("columns", settings.columns, gathered, prompt) if rows else {},
        **_request(settings, profile, facts, prompt),
        **_output(gathered, facts, prompt),
        **_provider(gathered),
        answers=gathered.answers,
        batches=gathered.batches,
        detail=settings.detail,
        **{name: getattr(settings, name) for name in _LIMITS if name not in ("fail_on", "check")},
        fail_on=_fail_on(gathered, facts),
        check=_checks(settings, prompt),
        timeout_chosen="timeout" in gathered.sources,
        concurrency_chosen="concurrency" in gathered.sources,
        target_language=target_language(settings.target_language, settings.variables) if rows else None,
        **signed_settings.post_of_new_run(settings),
        **signed_settings.senders_of_new_run(settings),
    )

    def model_of(member: Profile) -> str | None:
        own = member.model if member is gathered.fallback else None
        return own or _model(settings, member, facts, prompt)

    return pooled(plan, gathered, model_of)


def _check_kind(gathered: Gathered, facts: Facts, prompt: "Prompt | None") -> None:
    if facts.kind is Kind.ROWS and prompt is None:
        raise RefusedError("rows need a prompt", "add --prompt NAME; `batchrun prompts` lists what is installed")
    unfit = {Kind.ROWS: (), Kind.BATCH: tuple(_OF_PROMPTS), Kind.BODIES: ("prompt", "set", "columns")}[facts.kind]
    for option in unfit:
        if gathered.typed(option):
            what = "OpenAI Batch requests are" if facts.kind is Kind.BATCH else "request bodies are"
            raise RefusedError(
                f"{what} sent unchanged: {_OF_PROMPTS[option]} does not apply", f"omit {_OF_PROMPTS[option]}"
            )
    if gathered.typed("endpoint") and facts.kind is Kind.BATCH:
        raise RefusedError("the `url` of each OpenAI Batch request selects the endpoint", "omit --endpoint")


def _of_prompt(option: str, table: Mapping[str, str], gathered: Gathered, prompt: "Prompt | None") -> dict[str, str]:
    # variables of a file only if the prompt has them
    if prompt is None:
        return {}
    known = prompt.variables | prompt.inputs.keys()
    return {name: text for name, text in table.items() if name in known or gathered.typed(f"{option}.{name}")}


def _request(settings: Settings, profile: Profile, facts: Facts, prompt: "Prompt | None") -> dict[str, Any]:
    # the settings win over the prompt, the prompt over the profile
    if facts.kind is Kind.BATCH:
        return {"endpoint": Endpoint.CHAT, "model": None, "params": {}}
    of_prompt: Iterable[str] = prompt.options if prompt else ()
    params = {name: value for name, value in profile.params.items() if name not in of_prompt} | settings.params
    if settings.tier and "service_tier" in params:
        raise RefusedError("--tier and the parameter service_tier both choose the service tier", "omit one of them")
    endpoint = settings.endpoint
    if prompt is not None:
        endpoint = endpoint or prompt.endpoint
    elif endpoint is None:
        of_bodies = {"messages": Endpoint.CHAT, "input": Endpoint.RESPONSES}
        endpoint = next((of_bodies[name] for name in facts.columns if name in of_bodies), None)
    return {"endpoint": endpoint or Endpoint.CHAT, "model": _model(settings, profile, facts, prompt), "params": params}


def _model(settings: Settings, profile: Profile, facts: Facts, prompt: "Prompt | None") -> str | None:
    if facts.kind is Kind.BATCH:
        return None
    model = settings.model or (prompt and prompt.model) or profile.model
    if prompt and model is None:
        raise RefusedError(
            f"no model is chosen, and profile {profile.name} has no default",
            "add --model NAME, or model = to the prompt",
        )
    return model


def _output(gathered: Gathered, facts: Facts, prompt: "Prompt | None") -> dict[str, Any]:
    settings = gathered.settings
    name = prompt.name if prompt else None
    if is_document(facts.format):
        return _document_output(settings, facts, prompt)
    form = settings.format or default_format(facts.kind, facts.format)
    output = settings.output or default_output(facts.stem, facts.kind, name, form)
    check_not_input(output, [facts.source, prompt.path if prompt else None])
    column = settings.output_column or "output"
    schema = prompt.outputs if prompt else None
    members = output_fields(schema, column_chosen=settings.output_column is not None)
    lane = settings.lane_column
    if lane is not None and facts.kind is Kind.BATCH:
        raise RefusedError("OpenAI's result files have no columns", "omit --lane-column")
    if lane in (*members, column):
        raise RefusedError(f"--lane-column {lane} is a column of the reply", "choose another name")
    if facts.kind is not Kind.BATCH:
        new = (*members, column) if settings.post else members or (column,)
        check_clash(new if lane is None else (*new, lane), facts.columns)
    return {
        "lane_column": lane,
        "output": output,
        "output_format": output_format(output, settings.format, facts.kind),
        "output_column": column,
        "output_fields": members,
        "csv_delimiter": facts.table.delimiter,
        "csv_marked": facts.table.marked,
    }


def _fail_on(gathered: Gathered, facts: Facts) -> frozenset[Flag]:
    # documents and combined texts also fail cut or refused replies
    whole = is_document(facts.format) or gathered.settings.reduce is not None
    if whole and "fail_on" not in gathered.sources:
        return frozenset(Flag) - {Flag.ODD, Flag.NUMBERS}
    return gathered.settings.fail_on


def _checks(settings: Settings, prompt: "Prompt | None") -> tuple[str, ...]:
    named = prompt.checks if prompt is not None else ()
    unknown = [name for name in named if name not in (*documents.NAMES, NO_CHECK)]
    if prompt is not None and unknown:
        known = ", ".join((*documents.NAMES, NO_CHECK))
        raise RefusedError(f"{prompt.path}: there is no check `{unknown[0]}`", f"use some of {known}")
    return settings.check or named


def _document_output(settings: Settings, facts: Facts, prompt: "Prompt | None") -> dict[str, Any]:
    members = output_fields(prompt.outputs if prompt else None, column_chosen=settings.output_column is not None)
    if len(members) > 1:
        raise RefusedError(
            f"the prompt has {len(members)} outputs, but a segment has one translation",
            "use a prompt with one output or none, or rows as the output: --format rows",
        )
    form = "jsonl" if settings.format == "rows" else settings.format or Path(facts.source).suffix.lstrip(".")
    output = settings.output or default_output(facts.stem, facts.kind, prompt.name if prompt else None, form)
    check_not_input(output, [facts.source, prompt.path if prompt else None])
    form = document_format(output, settings.format)
    if settings.lane_column is not None and form == DOCUMENT:
        raise RefusedError("a document has no columns", "omit --lane-column, or use --format rows")
    return {
        "lane_column": settings.lane_column,
        "output": output,
        "output_format": form,
        "output_column": settings.output_column or "output",
        "output_fields": members,
    }


def _provider(gathered: Gathered) -> dict[str, Any]:
    profile, base_url = gathered.profile, _base_url(gathered)
    return {
        "profile": profile.name,
        "base_url": base_url,
        "dialect": profile.dialect_at(base_url),
        "requests": profile.takes_at(base_url),
        "media": profile.media_at(base_url),
        "api_key_env": profile.api_key_env,
        "headers": headers_of(gathered, profile),
        "simulated": profile.simulated,
        **{name: getattr(profile, name) for name in (*PRICES, "tier_factors")},
    }


def _base_url(gathered: Gathered) -> str:
    profile, chosen = gathered.profile, gathered.settings.base_url
    if profile.simulated:
        return ""
    chosen = profile.base_url if gathered.members else chosen[0] if isinstance(chosen, tuple) else chosen
    if chosen:
        return check_base_url(chosen)
    hint = f"add base_url to [profiles.{profile.name}] of batchrun.toml, or --base-url URL"
    if profile.name == "azure":
        hint = f"set AZURE_OPENAI_ENDPOINT=https://RESOURCE.openai.azure.com, or {hint}"
    raise RefusedError(f"profile {profile.name} has no base URL", hint)


def check_provider(gathered: Gathered) -> Access:
    """Called before any input is read. Raises RefusedError."""
    if gathered.settings.ca_file is not None and not Path(gathered.settings.ca_file).is_file():
        raise RefusedError(f"no such file of certificate authorities: {gathered.settings.ca_file}", "correct --ca-file")
    lanes = lanes_of(gathered, lambda _: None)
    places = [(gathered.profile, _base_url(gathered), gathered.settings.headers)]
    return _accesses(gathered, places, lanes)


def access(plan: Plan, gathered: Gathered) -> Access:
    """Raises RefusedError."""
    return _accesses(gathered, [(gathered.profile, plan.base_url, plan.headers)], plan.lanes)


def _accesses(
    gathered: Gathered,
    places: Sequence[tuple[Profile, str, Mapping[str, str]]],
    lanes: Iterable[Mapping[str, Any]],
) -> Access:
    known = (gathered.profile, *gathered.members, gathered.fallback)
    profiles = {profile.name: profile for profile in known if profile is not None}
    of_lanes = [(profiles[lane["profile"]], lane["base_url"], lane["headers"]) for lane in lanes]
    found = [_access(gathered, *place) for place in of_lanes or places]
    if not of_lanes:
        return found[0]
    mask = Mask()
    for one in found:
        mask.also(one.mask)
    return replace(found[0], mask=mask, lanes=tuple(found))


def _access(gathered: Gathered, profile: Profile, base_url: str, headers: Mapping[str, str]) -> Access:
    hidden = [gathered.settings.notify_url or ""]
    if profile.simulated:
        return Access(None, {}, Mask(hidden))
    own = bool(_AUTHENTICATION & {name.lower() for name in headers})
    optional = own or profile.key_optional or is_loopback(base_url) or gathered.settings.dry_run
    key = find_key(profile, needed=not optional)
    secrets = secrets_of(headers, os.environ)
    check_secrecy(base_url, secret=bool(key or secrets), insecure_http=gathered.settings.insecure_http)
    mask = Mask([*hidden, *secrets, *([key.value] if key else [])])
    return Access(key, expand_headers(headers, os.environ), mask)


def gather_for_resume(plan: Plan, flags: Mapping[str, Any]) -> Gathered:
    """The key is that of this machine's profile, never from the journal."""
    if plan.fallback is not None:
        flags = {"fallback": plan.fallback, **flags}
    if plan.pool is not None and not flags.keys() & {"pool", "profile", "base_url"}:
        return gather({"pool": plan.pool, **flags})
    if "pool" in flags:
        return gather(flags)
    return gather({"profile": plan.profile, **flags})


def override(plan: Plan, gathered: Gathered) -> Plan:
    """Another profile brings its address, limits and prices; headers go only to the host they were meant for.

    Raises RefusedError for mixing simulated and real replies, and for `post` chosen elsewhere.
    """
    if gathered.profile.simulated != plan.simulated:
        other = "simulated" if plan.simulated else "real"
        raise RefusedError(
            f"this run has {other} replies; profile {gathered.profile.name} would mix them with others",
            f"resume with --profile {plan.profile}, or start another run with another --output",
        )
    moved = gathered.profile.name != plan.profile
    typed = {name for name, source in gathered.sources.items() if source == FLAGS}
    brought = {name for name, source in gathered.sources.items() if moved and source.startswith("profile ")}
    brought.discard("max_output_tokens")  # a part of the requests, which stay what they are
    changes: dict[str, Any] = dict.fromkeys(_OF_ONE_COMMAND) | {"batch_detach": False}
    changes |= {name: getattr(gathered.settings, name) for name in _LIMITS if name in typed | brought}
    if "timeout" in typed | brought:
        changes["timeout_chosen"] = True
    if "concurrency" in typed | brought:
        changes["concurrency_chosen"] = True
    changes |= signed_settings.post_on_resume(plan, gathered.settings, typed)
    changes |= signed_settings.senders_on_resume(plan, gathered.settings, typed)
    changes["api_key_env"] = gathered.profile.api_key_env
    if moved or "base_url" in typed:
        changes |= {"profile": gathered.profile.name, "base_url": _base_url(gathered)}
        changes |= {name: getattr(gathered.profile, name) for name in (*PRICES, "tier_factors")}
    if moved or "headers" in typed:
        changes["headers"] = gathered.settings.headers
    changes["dialect"] = gathered.profile.dialect_at(changes.get("base_url", plan.base_url))
    changes["requests"] = gathered.profile.takes_at(changes.get("base_url", plan.base_url))
    changes["answers"], changes["batches"] = gathered.answers, gathered.batches
    changes["media"] = gathered.profile.media_at(changes.get("base_url", plan.base_url))
    changes["lanes"] = tuple(
        {**lane, **{name: changes[name] for name in LIMITS if name in changes}} for lane in plan.lanes
    )
    if moved or {"base_url", "pool"} & typed or plan.pool is not None or gathered.settings.fallback != plan.fallback:
        changes |= {"lanes": (), "pool": None, "fallback": None}
    return _pooled_for_resume(replace(plan, **changes), plan, gathered)


def _pooled_for_resume(plan: Plan, before: Plan, gathered: Gathered) -> Plan:
    # lanes may change, but not to a new model
    known = set((before.model or "").split(JOINED))

    def model_of(profile: Profile) -> str | None:
        if profile is gathered.fallback:
            return profile.model or before.model
        if before.model is None or len(known) == 1:
            return before.model
        model = profile.model or ""
        if model not in known:
            raise RefusedError(
                f"{profile.name} has the model {model or '(none)'}, but this run has {before.model}",
                "repeat the run's own command with another --output",
            )
        return model

    pooled_plan = pooled(plan, gathered, model_of)
    if not pooled_plan.lanes and plan.model is not None and JOINED in plan.model:
        raise RefusedError(f"this run is for the models {plan.model}", "resume it with --pool")
    return replace(pooled_plan, model=before.model)


def check_input(settings: Settings) -> str:
    """Raises InputError."""
    if settings.input is None:
        raise InputError("there is no input", "add --input FILE, a directory, a glob, or - for standard input")
    return settings.input
