"""Profiles: address, key, model, limits and prices of a provider."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from batchrun.errors import RefusedError
from batchrun.plan.names import unknown
from batchrun.providers import ANY, dialect_of, table

SIM = "sim"
DEFAULT = "openai"
KEY_SOURCES = ("api_key_env", "api_key_file", "api_key_command")
# the fields of `pricing.Terms`, without `tier_factors`
PRICES = ("input_price", "output_price", "cached_price", "cache_write_price", "request_price", "batch_factor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Prices are USD per million tokens or request; factors are of the standard tier's."""

    name: str
    base_url: str | None = None
    api_key_env: str | None = None
    api_key_file: str | None = None
    api_key_command: tuple[str, ...] = ()
    key_optional: bool = False
    model: str | None = None  # like `params` below the prompt's
    dialect: str | None = None  # None: by host or name
    requests: Mapping[str, Any] = field(default_factory=dict[str, Any])  # overrides the table `requests`
    media: Mapping[str, Any] = field(default_factory=dict[str, Any])  # overrides `[takes]` of the table `media`
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])  # settings, the weakest of all sources
    input_price: float | None = None
    output_price: float | None = None
    cached_price: float | None = None
    cache_write_price: float | None = None
    request_price: float | None = None
    batch_factor: float | None = None
    tier_factors: Mapping[str, float] = field(default_factory=dict[str, float])
    quota: str | None = None  # profiles of one quota share a limiter in a pool

    @property
    def simulated(self) -> bool:
        return self.name == SIM

    def dialect_at(self, base_url: str) -> str:
        # The default profile also serves any gateway given by --base-url, so its name decides nothing.
        return self.dialect or dialect_of(base_url, ANY if self.name == DEFAULT else self.name)

    def takes_at(self, base_url: str) -> dict[str, Any]:
        known = table("requests")
        return {**known[ANY], **known.get(self.dialect_at(base_url), {}), **self.requests}

    def media_at(self, base_url: str) -> dict[str, Any]:
        known = table("media")["takes"]
        return {**known[ANY], **known.get(self.dialect_at(base_url), {}), **self.media}


def _hosted(name: str, base_url: str | None, model: str | None = None, *, key: str | None = None) -> Profile:
    return Profile(name=name, base_url=base_url, api_key_env=key or f"{name.upper()}_API_KEY", model=model)


def _local(name: str, base_url: str, key: str) -> Profile:
    return Profile(name=name, base_url=base_url, api_key_env=key, key_optional=True)


BUILT_IN = {
    profile.name: profile
    for profile in (
        _hosted("openai", "https://api.openai.com/v1", "gpt-5.4-mini"),
        _hosted("azure", None, key="AZURE_OPENAI_API_KEY"),
        _hosted("anthropic", "https://api.anthropic.com/v1", "claude-haiku-4-5"),
        _hosted("gemini", "https://generativelanguage.googleapis.com/v1beta/openai", "gemini-flash-latest"),
        _hosted("openrouter", "https://openrouter.ai/api/v1"),
        _hosted("groq", "https://api.groq.com/openai/v1"),
        _hosted("together", "https://api.together.ai/v1"),
        _hosted("mistral", "https://api.mistral.ai/v1", "mistral-small-latest"),
        _hosted("deepseek", "https://api.deepseek.com/v1", "deepseek-v4-flash"),
        _local("ollama", "http://127.0.0.1:11434/v1", "OLLAMA_API_KEY"),
        _local("vllm", "http://127.0.0.1:8000/v1", "VLLM_API_KEY"),
        _local("llamacpp", "http://127.0.0.1:8080/v1", "LLAMA_API_KEY"),
        Profile(name=SIM, base_url="", key_optional=True, model="simulated", dialect="openai"),
    )
}


def find_profile(name: str, tables: Mapping[str, Mapping[str, Any]]) -> Profile:
    """Raises RefusedError."""
    known = BUILT_IN.keys() | tables.keys()
    if name not in known:
        raise unknown("profile", name, known)
    own = tables.get(name, {})
    start = BUILT_IN.get(name) or Profile(name=name, key_optional=not any(source in own for source in KEY_SOURCES))
    return _merged(_with_environment(start), own)


def _with_environment(profile: Profile) -> Profile:
    # OPENAI_* (platform.openai.com/docs/api-reference/authentication) and AZURE_OPENAI_ENDPOINT (v1 API)
    if profile.name == DEFAULT:
        sent = {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"}
        headers = {header: f"${{{name}}}" for header, name in sent.items() if os.environ.get(name)}
        base_url = os.environ.get("OPENAI_BASE_URL", "").strip() or profile.base_url
        return replace(profile, base_url=base_url, defaults={"headers": headers})
    if profile.name == "azure" and (endpoint := os.environ.get("AZURE_OPENAI_ENDPOINT", "").strip()):
        return replace(profile, base_url=endpoint.rstrip("/").removesuffix("/openai/v1") + "/openai/v1")
    return profile


def _merged(profile: Profile, table: Mapping[str, Any]) -> Profile:
    if profile.simulated and (named := table.keys() & {"base_url", *KEY_SOURCES}):
        raise RefusedError(
            f"profile sim is the simulator inside batchrun: it has no {min(named)}",
            "use another name for the table",
        )
    own = {
        name: table[name]
        for name in ("base_url", "model", "dialect", "requests", "media", "tier_factors", "quota", *PRICES)
        if name in table
    }
    if any(source in table for source in KEY_SOURCES):
        own |= {source: table.get(source) for source in KEY_SOURCES}
        own["api_key_command"] = tuple(table.get("api_key_command", ()))
        own["key_optional"] = False
    params = {**profile.params, **table.get("params", {})}
    rest = {name: value for name, value in table.items() if name not in own and name not in ("params", *KEY_SOURCES)}
    headers = {**profile.defaults.get("headers", {}), **rest.get("headers", {})}
    return replace(profile, **own, params=params, defaults={**profile.defaults, **rest, "headers": headers})
