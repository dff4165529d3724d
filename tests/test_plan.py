"""The plan: its JSON, drift, durations, and how it is resolved from settings and facts."""

import contextlib
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.errors import BatchrunError, RefusedError, StorageError
from batchrun.models import Endpoint, Flag, Kind
from batchrun.plan import Plan, drift, drift_text, parse_duration, plan_from_json, plan_to_json
from batchrun.plan.names import nearest
from batchrun.plan.profiles import BUILT_IN
from batchrun.plan.resolve import Facts, check_provider, gather_for_resume, override, resolve
from batchrun.plan.sources import gather
from batchrun.prompts import Prompt, parse

PLAN = Plan(
    kind=Kind.ROWS,
    input="rows.jsonl",
    input_format="jsonl",
    id_column=None,
    prompt_name="translate",
    prompt_path="prompts/translate.prompty",
    prompt_source="Translate: {{ text }}\n",
    variables={"language": "Deutsch"},
    endpoint=Endpoint.CHAT,
    model="gpt-5.4-mini",
    params={"temperature": 0, "stop": ["\n"], "seed": 12345678901234567890123},
    output="rows.translate.jsonl",
    output_format="jsonl",
    output_column="output",
    output_fields=("a", "b"),
    profile="openai",
    base_url="https://api.openai.com/v1",
    dialect="openai",
    requests=BUILT_IN["openai"].takes_at("https://api.openai.com/v1"),
    media=BUILT_IN["openai"].media_at("https://api.openai.com/v1"),
    api_key_env="OPENAI_API_KEY",
    headers={"X-Team": "ü"},
    fail_on=frozenset({Flag.TRUNCATED, Flag.REFUSED}),
)
PROMPT = parse("Translate into {{ language }}: {{ text }}", path="prompts/translate.md")
FIELDS = """---
name: pick
model:
  id: model-of-prompt
  options: {temperature: 0.5}
outputs:
  type: object
  properties: {colour: {type: string}, size: {type: integer}}
---
user:
Pick from {{ text }}
"""


@pytest.fixture(autouse=True)
def _alone(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789")


def facts(kind: Kind = Kind.ROWS, columns: tuple[str, ...] = ("id", "text")) -> Facts:
    return Facts(source="data/rows.csv", stem="rows", kind=kind, format="csv", columns=columns, id_column="id")


def plan_of(
    kind: Kind = Kind.ROWS, using: Prompt | None = PROMPT, known: tuple[str, ...] = ("text",), /, **flags: object
) -> Plan:
    return resolve(gather(flags), facts(kind, known), using)


def test_a_plan_survives_the_journal_unchanged() -> None:
    assert plan_from_json(plan_to_json(PLAN)) == PLAN
    assert plan_to_json(plan_from_json(plan_to_json(PLAN))) == plan_to_json(PLAN)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"kind": "else"}', "null", plan_to_json(PLAN)[:-1] + ', "later": 1}']
)
def test_a_damaged_or_later_plan_is_a_storage_error(text: str) -> None:
    with pytest.raises(StorageError):
        plan_from_json(text)


DECIDING = {
    "kind",
    "endpoint",
    "model",
    "params",
    "prompt_source",
    "variables",
    "columns",
    "max_output_tokens",
    "detail",
}
OTHER = {
    "kind": Kind.BODIES,
    "endpoint": Endpoint.RESPONSES,
    "fail_on": frozenset[Flag](),
    "output_fields": (),
    **{name: {"other": "x"} for name in ("params", "variables", "columns", "headers")},
}


@pytest.mark.parametrize("name", [item.name for item in fields(Plan)])
def test_drift_is_a_change_of_what_decides_requests_and_of_nothing_else(name: str) -> None:
    changed = replace(PLAN, **{name: OTHER.get(name, "other")})
    assert drift(PLAN, changed) == ((name,) if name in DECIDING else ())


def test_drift_names_what_changed() -> None:
    changed = replace(PLAN, model="gpt-5.4", params={"temperature": 1, "stop": ["\n"]})
    assert drift_text(PLAN, changed) == "the model (gpt-5.4-mini → gpt-5.4) and parameters (seed, temperature)"
    assert drift_text(PLAN, PLAN) == ""
    assert drift_text(PLAN, replace(PLAN, prompt_source="new\nprompt")) == "the prompt"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("2h", 7200), ("1h30m", 5400), ("500ms", 0.5), ("1d", 86400), (" 1.5H ", 5400), (7, 7), (0.5, 0.5)],
)  # fmt: skip
def test_durations_are_read_as_people_write_them(text: object, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "none", "never", "inf", "nan", "-5", "-5s", "5 minutes", "1m1h", "1h1h", "m", "1e3", "٣s", True, None, float("nan"), float("inf"), "99999999d"]
)  # fmt: skip
def test_no_duration_is_for_ever_or_a_guess(text: object) -> None:
    with pytest.raises(ValueError, match=r"must be"):
        parse_duration(text)


@given(st.integers(0, 99), st.integers(0, 99), st.floats(0, 99).map(lambda seconds: round(seconds, 3)))
def test_the_parts_of_a_duration_add_up(hours: int, minutes: int, seconds: float) -> None:
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == pytest.approx(3600 * hours + 60 * minutes + seconds)


@pytest.mark.parametrize(
    ("name", "found"), [("opnai", "openai"), ("max-atempts", "max_attempts"), ("MODLE", "model"), ("zzz", None)]
)
def test_the_nearest_name_is_found_across_spellings(name: str, found: str | None) -> None:
    assert nearest(name, ["openai", "max_attempts", "model"]) == found


def test_defaults_of_settings_and_plan_agree() -> None:
    plan, settings = plan_of(), gather({}).settings
    defaults = {
        item.name: item.default
        for item in fields(Plan)
        if hasattr(settings, item.name) and isinstance(item.default, int | float | bool)
    }
    assert defaults.items() >= {"concurrency": 256, "timeout": 600.0, "schema_retries": 2}.items()
    for name, default in defaults.items():
        assert getattr(plan, name) == getattr(settings, name) == default, name


def test_outputs_are_named_after_input_and_prompt() -> None:
    assert plan_of(format="jsonl").output == "rows.translate.jsonl"
    assert plan_of().output == "rows.translate.csv", "the format of the input, a CSV file"
    assert plan_of(format="parquet").output == "rows.translate.parquet"
    assert plan_of(Kind.BATCH, None).output == "rows.results.jsonl"
    assert plan_of(Kind.BODIES, None, ("messages",)).output == "rows.output.jsonl"


@pytest.mark.parametrize(
    ("flags", "form"),
    [
        ({"output": "a.csv"}, "csv"),
        ({"output": "a.PARQUET"}, "parquet"),
        ({"output": "a.tsv"}, "tsv"),
        ({"output": "a.xlsx"}, "xlsx"),
        ({"output": "-"}, "jsonl"),
        ({"output": "/dev/null"}, "jsonl"),
        ({"output": "a.txt", "format": "csv"}, "csv"),
    ],
)
def test_the_format_follows_the_suffix_unless_it_is_chosen(flags: dict[str, str], form: str) -> None:
    assert plan_of(**flags).output_format == form


REFUSED = [
    (Kind.ROWS, None, {}, "rows need a prompt"),
    (Kind.ROWS, PROMPT, {"output": "a.txt"}, "the format of a.txt is unknown"),
    (Kind.ROWS, PROMPT, {"output": "data/rows.csv"}, "would overwrite the input data/rows.csv"),
    (Kind.ROWS, PROMPT, {"output": "-", "format": "xlsx"}, "cannot be written to standard output"),
    (Kind.ROWS, PROMPT, {"output_column": "text"}, "already has a column text"),
    (Kind.ROWS, PROMPT, {"profile": "groq"}, "no model is chosen"),
    (Kind.ROWS, PROMPT, {"profile": "azure", "model": "m"}, "profile azure has no base URL"),
    (Kind.BATCH, None, {"prompt": "translate"}, "--prompt does not apply"),
    (Kind.BATCH, None, {"model": "m"}, "--model does not apply"),
    (Kind.BATCH, None, {"params": ["a=1"]}, "--param does not apply"),
    (Kind.BATCH, None, {"set": ["a=1"]}, "--set does not apply"),
    (Kind.BATCH, None, {"columns": ["a=b"]}, "--column does not apply"),
    (Kind.BATCH, None, {"output": "a.csv"}, "written as JSONL"),
    (Kind.BODIES, None, {"set": ["a=1"]}, "--set does not apply"),
]


def test_variables_of_a_file_are_for_the_prompts_that_have_them() -> None:
    Path("batchrun.toml").write_text('[set]\nlanguage = "French"\ntone = "dry"\n[columns]\nnote = "remarks"\n')
    plan = plan_of(Kind.ROWS, PROMPT, set=["text=x"])
    assert (plan.variables, plan.columns) == ({"language": "French", "text": "x"}, {})
    assert plan_of(Kind.ROWS, PROMPT, set=["tone=dry"]).variables["tone"] == "dry"


@pytest.mark.parametrize(("kind", "prompt", "flags", "message"), REFUSED)
def test_what_does_not_fit_is_refused(
    kind: Kind, prompt: Prompt | None, flags: dict[str, object], message: str
) -> None:
    with pytest.raises(RefusedError) as refused:
        plan_of(kind, prompt, **flags)
    assert message in refused.value.message


@pytest.mark.parametrize(
    ("source", "output", "refused"),
    [
        ("notes", "notes/out.jsonl", True),
        ("notes", "notes/deep/out.jsonl", True),
        (".", "out.jsonl", True),
        ("notes", "notes/.out/out.jsonl", False),
        ("notes", "out.jsonl", False),
        ("notes/*", "notes/out.jsonl", True),
        ("notes/*.errors.jsonl", "notes/out.jsonl", True),
        ("notes/*.txt", "notes/out.jsonl", False),
        ("*.jsonl", "notes/out.jsonl", False),
        ("notes/*", "-", False),
    ],
)
def test_an_output_that_would_be_a_row_the_next_time_is_refused(source: str, output: str, refused: bool) -> None:
    Path("notes/deep").mkdir(parents=True)
    facts = Facts(source=source, stem="notes", kind=Kind.ROWS, format="files", columns=("text",))
    gathered = gather({"set": ["language=x"], "output": output})
    with pytest.raises(RefusedError, match="would be read as part of") if refused else contextlib.nullcontext():
        resolve(gathered, facts, PROMPT)


def test_a_model_in_the_configuration_does_not_stop_a_batch_file() -> None:
    Path("batchrun.toml").write_text('model = "m"\n[params]\ntemperature = 1\n')
    plan = plan_of(Kind.BATCH, None)
    assert (plan.model, plan.params) == (None, {})


def test_model_and_parameters_come_from_settings_then_prompt_then_profile() -> None:
    prompt = parse(FIELDS, path="pick.prompty")
    Path("batchrun.toml").write_text(
        '[profiles.own]\nbase_url="https://h/v1"\nmodel="of-profile"\nparams={temperature=1, seed=7}\n'
    )
    assert plan_of(Kind.ROWS, prompt, profile="own").model == "model-of-prompt"
    assert plan_of(profile="own").model == "of-profile"
    assert plan_of(Kind.ROWS, prompt, profile="own", model="typed").model == "typed"
    assert plan_of(Kind.ROWS, prompt, profile="own").params == {"seed": 7}
    assert plan_of(profile="own").params == {"temperature": 1, "seed": 7}
    assert plan_of(profile="own", params=["temperature=0"]).params == {"temperature": 0, "seed": 7}


def test_an_output_schema_adds_its_fields_unless_a_column_is_chosen() -> None:
    prompt = parse(FIELDS, path="pick.prompty")
    assert plan_of(Kind.ROWS, prompt).output_fields == ("colour", "size")
    assert plan_of(Kind.ROWS, prompt, output_column="whole").output_fields == ()
    with pytest.raises(RefusedError, match="already has a column size"):
        plan_of(Kind.ROWS, prompt, ("text", "size"))
    assert plan_of(Kind.ROWS, prompt, ("text", "size"), output_column="whole").output_column == "whole"


@pytest.mark.parametrize(
    ("columns", "endpoint"),
    [
        (("messages",), Endpoint.CHAT),
        (("input",), Endpoint.RESPONSES),
        (("prompt", "input"), Endpoint.RESPONSES),
        (("input", "messages"), Endpoint.RESPONSES),
        (("id", "messages", "input"), Endpoint.CHAT),
    ],
)
def test_the_first_of_bare_bodies_tells_the_endpoint(columns: tuple[str, ...], endpoint: Endpoint) -> None:
    assert plan_of(Kind.BODIES, None, columns).endpoint is endpoint
    assert plan_of(Kind.BODIES, None, columns, endpoint="embeddings").endpoint is Endpoint.EMBEDDINGS


def test_going_on_takes_typed_flags_and_nothing_else_of_today() -> None:
    Path("batchrun.toml").write_text('concurrency = 3\nrpm = 5\nbase_url = "https://else/v1"\n')
    changed = override(PLAN, gather_for_resume(PLAN, {"concurrency": "8", "timeout": "1m"}))
    assert changed == replace(PLAN, concurrency=8, timeout=60.0, timeout_chosen=True)


def test_going_on_is_not_held_to_the_limit_of_the_earlier_command() -> None:
    short = replace(PLAN, limit=10, sample=5, stop_after=60.0, batch_detach=True)
    assert override(short, gather_for_resume(short, {})) == replace(PLAN, api_key_env="OPENAI_API_KEY")
    assert override(short, gather_for_resume(short, {"limit": "20"})).limit == 20
    assert override(short, gather_for_resume(short, {"batch_detach": True})).batch_detach


def test_going_on_under_another_profile_moves_to_its_address() -> None:
    changed = override(PLAN, gather_for_resume(PLAN, {"profile": "groq"}))
    assert (changed.profile, changed.base_url, changed.api_key_env) == (
        "groq",
        "https://api.groq.com/openai/v1",
        "GROQ_API_KEY",
    )
    assert changed.model == PLAN.model


def test_going_on_under_another_profile_takes_its_headers_and_limits_and_leaves_those_of_the_other() -> None:
    Path("batchrun.toml").write_text(
        '[profiles.one]\nbase_url = "https://one/v1"\nmodel = "m"\nrpm = 11\n'
        'headers = {X-Token = "${ONE_TOKEN}"}\n'
        '[profiles.two]\nbase_url = "https://two/v1"\nmodel = "m"\nrpm = 22\nmax_output_tokens = 9\nheaders = {X-Team = "b"}\n'
    )
    plan = plan_of(profile="one", tpm="5")
    moved = override(plan, gather_for_resume(plan, {"profile": "two"}))
    assert (moved.base_url, moved.headers, moved.rpm, moved.tpm) == ("https://two/v1", {"X-Team": "b"}, 22, 5)
    assert drift(plan, moved) == ()
    again = override(plan, gather_for_resume(plan, {}))
    assert (again.headers, again.rpm) == ({"X-Token": "${ONE_TOKEN}"}, 11)


def test_simulated_and_real_replies_never_meet() -> None:
    with pytest.raises(RefusedError, match="real replies"):
        override(PLAN, gather_for_resume(PLAN, {"profile": "sim"}))


def test_a_simulated_run_needs_no_key_and_has_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    gathered = gather({"profile": "sim"})
    assert check_provider(gathered).key is None
    plan = resolve(gathered, facts(), PROMPT)
    assert (plan.simulated, plan.base_url, plan.model) == (True, "", "simulated")


def test_a_missing_key_names_the_two_ways_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(BatchrunError) as refused:
        check_provider(gather({}))
    assert "OPENAI_API_KEY" in refused.value.message
    assert "--profile sim" in str(refused.value.hint)
    assert check_provider(gather({"dry_run": True})).key is None
    assert check_provider(gather({"base_url": "http://127.0.0.1:8000/v1"})).key is None
