"""Settings: which source wins, and that anything unknown or wrong is refused with its place and the nearest name."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrun import user_directories
from batchrun.documents.segment import Existing
from batchrun.errors import RefusedError
from batchrun.models import Blank, Endpoint, Flag
from batchrun.plan import signed_settings
from batchrun.plan.config import OF_PROFILES, ONLY_FLAGS, every_profile
from batchrun.plan.durations import parse_time
from batchrun.plan.profiles import BUILT_IN, Profile
from batchrun.plan.settings import OPTIONS, InvalidSettingsError, settings_of
from batchrun.plan.sources import ENVIRONMENT, FLAGS, Layer, gather, merge, settle
from batchrun.prompts import available


@pytest.fixture(autouse=True)
def here(alone: None, tmp_path: Path) -> Path:
    (tmp_path / "config/batchrun").mkdir(parents=True)
    return tmp_path


def user_file(here: Path, text: str) -> None:
    (here / "config/batchrun/batchrun.toml").write_text(text)


def refusal(**flags: Any) -> str:
    with pytest.raises(RefusedError) as refused:
        gather(flags)
    return f"{refused.value.message} | {refused.value.hint}"


def without_home(*_: object, **__: object) -> Path:
    raise RuntimeError("could not determine the home directory")


WITHOUT_HOME: list[Callable[..., Path]] = [without_home, lambda *_, **__: Path("~/.config/batchrun")]


@pytest.mark.parametrize("usual", WITHOUT_HOME)
def test_a_user_without_a_home_directory_has_no_file(
    here: Path, usual: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr(user_directories, "user_config_path", usual)
    (here / "~/.config/batchrun").mkdir(parents=True)
    (here / "~/.config/batchrun/batchrun.toml").write_text("rpm = 7\n")  # the directory's, not the user's
    assert gather({}).settings.rpm is None
    (here / "batchrun.toml").write_text('notify = "beep"\n')
    assert refusal().endswith("or set it in $XDG_CONFIG_HOME/batchrun/batchrun.toml")
    (here / "~/.config/batchrun/prompts").mkdir()
    (here / "~/.config/batchrun/prompts/mine.txt").write_text("{{ text }}")
    assert "translate" in {found.name for found in available()}
    assert "mine" not in {found.name for found in available()}


@pytest.mark.parametrize("usual", WITHOUT_HOME)
def test_a_user_without_a_home_directory_signs_nothing(
    here: Path, usual: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(user_directories, "user_state_path", usual)
    assert signed_settings.sign(["f.py:f"]) is None
    assert not (here / "~").exists()


# Two values for every source, each different from all others and from the default.
SOURCES = ("flags", "environment", "here", "user", "profile")
VALUES = {
    "concurrency": [11, 12, 13, 14, 15],
    "timeout": ["11s", "12s", "13s", "14s", "15s"],
    "rpm": [11, 12, 13, 14, 15],
    "endpoint": ["chat", "responses", "embeddings", "completions", "chat"],
    "max_attempts": [11, 12, 13, 14, 15],
    "ca_file": [f"/{name}.pem" for name in SOURCES],
}


ENDPOINTS = {
    "chat": Endpoint.CHAT,
    "responses": Endpoint.RESPONSES,
    "embeddings": Endpoint.EMBEDDINGS,
    "completions": Endpoint.COMPLETIONS,
}


def _expected(option: str, value: Any) -> Any:
    if option == "timeout":
        return float(value.removesuffix("s"))
    return ENDPOINTS[value] if option == "endpoint" else value


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(sorted(VALUES)), st.sets(st.sampled_from(SOURCES), min_size=1), min_size=1))
def test_the_strongest_source_that_sets_a_value_wins(said: dict[str, set[str]]) -> None:
    def by(source: str) -> dict[str, Any]:
        return {option: VALUES[option][SOURCES.index(source)] for option, sources in said.items() if source in sources}

    home = Path(os.environ["XDG_CONFIG_HOME"])
    Path("batchrun.toml").write_text(_toml(by("here")))
    own = _toml(by("user")) + "[profiles.own]\nbase_url = 'https://h/v1'\n" + _toml(by("profile"))
    (home / "batchrun/batchrun.toml").write_text(own)
    environment = {f"BATCHRUN_{option.upper()}": str(value) for option, value in by("environment").items()}
    with mock.patch.dict(os.environ, environment):
        found = gather({"profile": "own", **by("flags")})
    for option, sources in said.items():
        strongest = next(source for source in SOURCES if source in sources)
        value = VALUES[option][SOURCES.index(strongest)]
        assert getattr(found.settings, option) == _expected(option, value), (option, sources)
        assert found.typed(option) == (strongest in ("flags", "environment"))


def _toml(values: dict[str, Any]) -> str:
    return "".join(f"{option} = {value!r}\n" for option, value in values.items())


def test_tables_are_merged_entry_by_entry(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user_file(here, '[set]\nlanguage = "de"\ntone = "dry"\nyear = 2026\n[headers]\nX-Team = "a"\nX-RUN = 6\n')
    (here / "batchrun.toml").write_text('[set]\ntone = "warm"\n[params]\nseed = 1\ntemperature = 1\n')
    monkeypatch.setenv("BATCHRUN_PARAMS", '{"temperature": 0.5, "stop": ["x"]}')
    found = gather(
        {"set": ["language=fr", "empty=", "sum=a=b"], "params": ["stop=null"], "headers": ["X-Run: 7"]}
    ).settings
    assert found.variables == {"language": "fr", "empty": "", "sum": "a=b", "tone": "warm", "year": "2026"}
    assert found.params == {"seed": 1, "temperature": 0.5, "stop": None}
    assert found.headers == {"X-Team": "a", "X-Run": "7"}


def test_dashes_and_underscores_are_the_same_in_files(here: Path) -> None:
    (here / "batchrun.toml").write_text(
        'max-attempts = 7\nstop_after = "1h30m"\nfail-on = ["truncated"]\nlog-file = "x.log"\n'
    )
    found = gather({}).settings
    assert (found.max_attempts, found.stop_after, found.fail_on) == (7, 5400.0, {Flag.TRUNCATED, Flag.EMPTY})
    assert found.log_file == str(here / "x.log")


def test_a_simulated_run_is_configured_by_the_simulators_own_names(here: Path) -> None:
    (here / "batchrun.toml").write_text('[sim]\nlatency = "0.3-0.8"\nrpm = 60\n')
    assert gather({"profile": "sim"}).settings.sim == {"latency": "0.3-0.8", "rpm": 60}
    (here / "batchrun.toml").write_text("[sim]\nlatncy = 1\n")
    assert "did you mean latency?" in refusal(profile="sim")


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHRUN_MODEL", "")
    assert gather({}).settings.model is None


def test_no_env_file_and_no_parent_directory_is_read(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "batchrun.toml").write_text("concurrency = 3\n")
    (here / "sub").mkdir()
    monkeypatch.chdir(here / "sub")
    (here / "sub/.env").write_text("BATCHRUN_MODEL=evil\nOPENAI_BASE_URL=https://evil/v1\n")
    found = gather({}).settings
    assert (found.concurrency, found.model, found.base_url) == (256, None, "https://api.openai.com/v1")


WRONG = [
    ({"concurrency": "-5"}, "--concurrency: must be a whole number of at least 1"),
    ({"concurrency": "0"}, "--concurrency"),
    ({"concurrency": "1.5"}, "--concurrency"),
    ({"timeout": "0"}, "--timeout: must be longer than 0"),
    ({"timeout": "none"}, "--timeout: must be a finite duration"),
    ({"max_wait": "never"}, "--max-wait"),
    ({"rpm": "0"}, "--rpm: must be a number above 0"),
    ({"tpm": "nan"}, "--tpm"),
    ({"limit": "-1"}, "--limit"),
    ({"schema_retries": "-1"}, "--schema-retries"),
    ({"fail_on": "truncatd"}, "--fail-on: must be some of truncated, refused, filtered, odd, empty"),
    ({"endpoint": "chatter"}, "--endpoint"),
    ({"format": "xml"}, "--format: must be jsonl, csv, tsv, parquet, xlsx or rows"),
    ({"model": ""}, "--model: must not be empty"),
    ({"params": ["temperature"]}, "--param must be NAME=JSON"),
    ({"params": ["a=1", "a=2"]}, "--param a appears twice"),
    ({"params": ["a=True"]}, "did you mean a=true?"),
    ({"params": ["a=NaN"]}, "not a JSON value"),
    ({"params": ["a={"]}, "not a JSON value"),
    ({"params": ["model=x"]}, "use --model"),
    ({"params": ["stream=true"]}, "stream cannot be switched on"),
    ({"profile": "opnai"}, "did you mean openai?"),
    ({"profile": "sim", "base_url": "https://h/v1"}, "has no base URL"),
    ({"json": True, "output": "-"}, "--json and --output - exclude each other"),
    ({"fresh": True, "update": True}, "--fresh and --update"),
    ({"quiet": True, "verbose": True}, "--quiet and --verbose"),
    ({"limit": "1", "sample": "1"}, "--limit and --sample"),
    ({"headers": ["Authorization: Bearer abc"]}, "looks like a secret"),
    ({"headers": ["X-Api-Key=abc"]}, "${MY_VARIABLE}"),
    ({"headers": ["Cookie: a=b"]}, "looks like a secret"),
    ({"headers": ["Host: h"]}, "belongs to the connection"),
    ({"headers": ["X-A: a\nX-B: b"]}, "cannot be sent"),
    ({"headers": ["X A: b"]}, "header name not allowed"),
    ({"headers": ["X-A: 1", "x-a: 2"]}, "header x-a appears twice"),
]


@pytest.mark.parametrize(("flags", "text"), WRONG)
def test_a_wrong_flag_is_refused_in_plain_words(flags: dict[str, Any], text: str) -> None:
    assert text in refusal(**flags)


def test_a_bare_word_is_a_text_parameter() -> None:
    params = gather({"params": ["reasoning_effort=low", "stop=[1]", 'user="7"', "n=2"]}).settings.params
    assert params == {"reasoning_effort": "low", "stop": [1], "user": "7", "n": 2}


WRONG_FILES = [
    ("concurency = 1", "unknown key in", "did you mean concurrency?"),
    ("timeout = 0", "timeout in", "must be longer than 0"),
    ("concurrency = true", "concurrency in", "whole number"),
    ("model = 5", "model in", "must be text"),
    ("quiet = 'maybe'", "quiet in", "must be true or false"),
    ("max-attempts = 3\nmax_attempts = 4", "max_attempts appears twice in", ""),
    ("[profiles.x]\nmax-attempts = 3\nmax_attempts = 4", "max_attempts appears twice in", ""),
    ("profile = 'sim'\n[sim]\nrpm = 'x'", "sim in", "Invalid value of the setting rpm"),
    ("fresh = true", "applies to one command only", "--fresh"),
    ("api_key = 'sk-secret'", "keys are not allowed in configuration files", "api_key_env"),
    ("api_key_env = 'X'", "keys are not allowed", "[profiles.NAME]"),
    ("params = 1", "must be a table", ""),
    ("[set]\na = [1]", "a in set in ", "must be text"),
    ("[profiles]\nx = 1", "must be a table", ""),
    ("[profiles.x]\nbase_ulr = 'h'", "unknown key in [profiles.x]", "did you mean base_url?"),
    ("[profiles.x]\napi_key_env = 'sk-abc'", "not the name of an environment variable", ""),
    ("[profiles.x]\napi_key_command = 'pass x'", "must be a list of words", ""),
    ("[profiles.x]\napi_key_command = ['pass']", "may not select which commands run", "move the profile to"),
    ("[profiles.x]\napi_key_env = 'A'\napi_key_file = 'b'", "more than one of", ""),
    ("[profiles.x]\ninput_price = -1", "USD per million", ""),
    ("[profiles.x]\nheaders = {Authorization = 'Bearer abc'}", None, None),
    ("a = ", "is not valid TOML", ""),
    ("sim = 1", "must be a table", ""),
    ("quiet = true\nverbose = true", "exclude each other", ""),
]


@pytest.mark.parametrize(("text", "message", "hint"), WRONG_FILES)
def test_a_wrong_file_is_refused_with_its_name(here: Path, text: str, message: str | None, hint: str | None) -> None:
    (here / "batchrun.toml").write_text(text)
    if message is None:
        assert "looks like a secret" in refusal(profile="x")
        return
    refused = refusal()
    assert message in refused
    assert str(hint) in refused
    assert "batchrun.toml" in refused
    assert "sk-" not in refused


def test_a_byte_order_mark_is_passed_over(here: Path) -> None:
    (here / "batchrun.toml").write_text("rpm = 7\n", encoding="utf-8-sig")
    assert gather({}).settings.rpm == 7


def test_a_file_that_is_not_text_is_refused(here: Path) -> None:
    (here / "batchrun.toml").write_bytes(b"\xff\xfe")
    assert "not valid TOML" in refusal()


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("BATCHRUN_MODLE", "did you mean BATCHRUN_MODEL?"),
        ("BATCHRUN_API_KEY", "is not used"),
        ("BATCHRUN_FRESH", "applies to one command only"),
        ("BATCHRUN_TIMEOUT", "BATCHRUN_TIMEOUT: must be a finite duration"),
        ("BATCHRUN_PARAMS", "BATCHRUN_PARAMS must be a JSON object"),
        ("BATCHRUN_JSON", "BATCHRUN_JSON"),
    ],
)
def test_a_wrong_variable_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, variable: str, text: str) -> None:
    monkeypatch.setenv(variable, "sk-secret")
    assert text in refusal()


@pytest.mark.parametrize(
    ("strong", "weak", "kept"),
    [
        ({"verbose": True}, {"quiet": True}, {"verbose": True}),
        ({"output": "-"}, {"json": True}, {"output": "-"}),
        ({"json": True}, {"output": "-"}, {"json": True}),
        ({"json": True}, {"output": "a"}, {"json": True, "output": "a"}),
        ({"sample": 1}, {"limit": 1}, {"sample": 1}),
        ({"quiet": False}, {"verbose": True}, {"quiet": False, "verbose": True}),
        ({"profile": "sim"}, {"base_url": "https://h"}, {"profile": "sim"}),
        ({"base_url": "https://h"}, {"profile": "own"}, {"base_url": "https://h", "profile": "own"}),
    ],
)
def test_of_two_that_exclude_each_other_the_stronger_source_wins(
    strong: dict[str, Any], weak: dict[str, Any], kept: dict[str, Any]
) -> None:
    merged, _ = merge(settle([Layer(FLAGS, strong), Layer(ENVIRONMENT, weak)]))
    assert merged == kept


def test_a_simulated_run_never_goes_to_the_configured_gateway(here: Path) -> None:
    (here / "batchrun.toml").write_text('base_url = "https://gateway/v1"\n')
    assert gather({}).settings.base_url == "https://gateway/v1"
    assert gather({"profile": "sim"}).settings.base_url == ""


def test_profiles_can_be_made_and_built_in_ones_changed(here: Path) -> None:
    user_file(
        here,
        "[profiles.groq]\nmodel = 'm'\nrpm = 30\n[profiles.own]\nbase_url = 'https://h/v1'\napi_key_file = '~/k'\n",
    )
    (here / "batchrun.toml").write_text("[profiles.groq]\nrpm = 60\n[profiles.own]\napi_key_env = 'OWN_KEY'\n")
    groq, own = gather({"profile": "groq"}), gather({"profile": "own"}).profile
    assert (groq.settings.rpm, groq.profile.model, groq.profile.api_key_env) == (60.0, "m", "GROQ_API_KEY")
    assert (own.base_url, own.api_key_env, own.api_key_file) == ("https://h/v1", "OWN_KEY", None)
    assert [profile.name for profile in every_profile()][-1] == "own"


def test_vendors_variables_are_honoured_by_their_profile_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://proxy/v1")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://r.openai.azure.com/")
    openai = gather({}).settings
    assert (openai.base_url, openai.headers) == ("https://proxy/v1", {"OpenAI-Organization": "${OPENAI_ORG_ID}"})
    assert gather({"profile": "groq"}).settings.base_url == "https://api.groq.com/openai/v1"
    assert gather({"profile": "azure"}).settings.base_url == "https://r.openai.azure.com/openai/v1"
    assert gather({"base_url": "https://typed/v1"}).settings.base_url == "https://typed/v1"


def test_every_option_has_a_place_outside_the_command_line_but_the_decisions() -> None:
    assert set(OPTIONS) > ONLY_FLAGS


@pytest.mark.parametrize("text", ["true", "TRUE", "t", "yes", "Y", "on", "1"])
def test_a_switch_is_on(text: str) -> None:
    assert settings_of({"dedupe": text}).dedupe is True


@pytest.mark.parametrize("text", ["false", "False", "f", "no", "n", "OFF", "0"])
def test_a_switch_is_off(text: str) -> None:
    assert settings_of({"dedupe": text, "yes": True}) == settings_of({"yes": 1})


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("dedupe", "2", "must be true or false"),
        ("dedupe", None, "must be true or false"),
        ("dedupe", [], "must be true or false"),
        ("model", 5, "must be text"),
        ("profile", None, "must be text"),
        ("base_url", 5, "must be an address, or a list of addresses"),
        ("sim", 5, "must be a table"),
        ("colour", "red", "is not an option"),
    ],
)
def test_a_value_of_another_type_is_refused_with_every_other_wrong_one(option: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidSettingsError) as refused:
        settings_of({option: value, "concurrency": "x"})
    assert sorted(refused.value.found) == sorted(
        [(option, message), ("concurrency", "must be a whole number of at least 1, not 'x'")]
    )


def test_none_is_not_chosen_where_that_is_possible() -> None:
    assert settings_of(dict.fromkeys(("model", "workers", "rpm", "finish_by"))) == settings_of({})


def test_options_are_named_as_the_user_writes_them() -> None:
    settings = settings_of({"set": {"a": "b"}, "json": "yes", "blank": "skip", "existing": "all", "notify_url": URL})
    assert (settings.variables, settings.as_json, settings.blank) == ({"a": "b"}, True, Blank.SKIP)
    assert settings.existing is Existing.ALL
    assert URL not in repr(settings), "the address may be a secret"
    assert {"set", "json"} < set(OPTIONS)


URL = "https://hooks.example.com/x"


MANUAL = (Path(__file__).parents[1] / "docs/configuration.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("option", sorted({*OPTIONS, *OF_PROFILES}))
def test_the_manual_has_every_key(option: str) -> None:
    assert f"`{option}`" in MANUAL or f"`--{option.replace('_', '-')}`" in MANUAL


@pytest.mark.parametrize("profile", BUILT_IN.values(), ids=BUILT_IN.keys())
def test_the_manual_has_every_profile_as_it_is(profile: Profile) -> None:
    line = next(line for line in MANUAL.splitlines() if line.startswith(f"| `{profile.name}` |"))
    for fact in (profile.base_url, profile.api_key_env, profile.model):
        assert not fact or f"`{fact}`" in line


def test_the_file_in_the_manual_is_taken_as_it_stands(here: Path) -> None:
    (here / "batchrun.toml").write_text(MANUAL.partition("```toml\n")[2].partition("```")[0])
    found = gather({})
    assert (found.profile.name, found.settings.tpm, found.settings.max_wait) == ("work", 2e6, 900.0)
    assert found.settings.headers["X-Gateway-Token"] == "${GATEWAY_TOKEN}"


def test_lines_about_answers_are_read_from_both_files_the_nearer_first(here: Path) -> None:
    user_file(here, '[[answers]]\nmeans = "rate limit"\nstatus = 403\n')
    Path("batchrun.toml").write_text('[[answers]]\nmeans = "account empty"\nsays = ["wallet exhausted"]\n')
    assert [line["means"] for line in gather({}).answers] == ["account empty", "rate limit"]


def test_what_a_file_says_of_a_providers_batches_holds(here: Path) -> None:
    user_file(here, "[batches.openai]\ntokens = 10\n[batches.work]\nlines = 5\n")
    Path("batchrun.toml").write_text('[batches.openai]\nwindow = "7d"\n')
    assert gather({}).batches == {"openai": {"window": "7d"}, "work": {"lines": 5}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[batches.openai]\nrows = 1\n", "unknown key rows"),
        ("[batches.openai]\nlines = 0\n", "lines must not be 0"),
        ("[batches.openai]\nlines = true\n", "lines must be int"),
        ('[batches.openai]\nshape = "own"\n', "shape must be openai, mistral or anthropic"),
        ("batches = 1\n", "batches in"),
    ],
)
def test_what_may_not_be_said_of_batches_is_refused_with_its_place(here: Path, text: str, said: str) -> None:
    Path("batchrun.toml").write_text(text)
    assert said in refusal()


@pytest.mark.parametrize(
    "text", ['[[answers]]\nmeans = "nothing"\nstatus = 403\n', "answers = [1]", "[answers]\nx = 1"]
)
def test_a_line_about_answers_that_is_none_is_refused_with_its_place(here: Path, text: str) -> None:
    user_file(here, text)
    assert "answers" in refusal()
    assert "batchrun.toml" in refusal()


@pytest.mark.parametrize(
    ("table", "base_url", "dialect"),
    [
        ("", "http://127.0.0.1:1/v1", "any"),
        ("", "https://dashscope.aliyuncs.com/compatible-mode/v1", "dashscope"),
        ('profile = "work"\n[profiles.work]\nbase_url = "https://llm.example.com/v1"', None, "work"),
        ('profile = "work"\n[profiles.work]\nbase_url = "https://x.test/v1"\ndialect = "groq"', None, "groq"),
    ],
)
def test_the_dialect_is_the_profiles_or_that_of_the_host(
    here: Path, table: str, base_url: str | None, dialect: str
) -> None:
    user_file(here, table)
    found = gather({} if base_url is None else {"base_url": base_url})
    assert found.profile.dialect_at(found.settings.base_url or "") == dialect


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("8h", 8 * 3600), ("90s", 90), ("23:59", None), ("2030-01-02T07:00", None), ("2030-01-02 07:00", None)],
)
def test_a_time_to_finish_by_is_a_clock_a_date_or_from_now(text: str, seconds: float | None) -> None:
    before = time.time()
    moment = parse_time(text)
    assert moment > before
    if seconds is not None:
        assert before + seconds <= moment <= time.time() + seconds
    elif ":59" in text:
        assert moment <= time.time() + 86_400
        assert time.localtime(moment)[3:5] == (23, 59)
    else:
        assert time.localtime(moment)[:5] == (2030, 1, 2, 7, 0)


@pytest.mark.parametrize("text", ["soon", "25:00", "2030-01-02", "", "-1h", None])
def test_what_is_no_time_to_finish_by_is_refused(text: str | None) -> None:
    with pytest.raises(ValueError, match="must be a time such as 07:00"):
        parse_time(text)


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ({"prompt": "S\udce4g"}, "--prompt"),
        ({"input": "\udcfc.jsonl"}, "--input"),
        ({"output": Path("\udcfc.jsonl")}, "--output"),
        ({"set": ["language=\udcfc"]}, "--set"),
        ({"columns": {"\udcfc": "text"}}, "--column"),
        ({"base_url": ["http://127.0.0.1/v1", "http://127.0.0.1/\udcfc"]}, "--base-url"),
    ],
)
def test_bytes_that_are_no_utf8_are_refused_with_their_option(flags: dict[str, Any], name: str) -> None:
    said = refusal(**flags)
    assert said.startswith(f"{name} is not UTF-8: ")
    said.encode()


def test_a_variable_that_is_no_utf8_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHRUN_MODEL", "\udcfc")
    assert refusal().startswith("BATCHRUN_MODEL is not UTF-8: \\udcfc")
