"""The lanes of a plan."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from batchrun.errors import RefusedError
from batchrun.models import Kind
from batchrun.plan.address import check_base_url
from batchrun.plan.pools import joined, names_of, own_fields
from batchrun.plan.profiles import PRICES, Profile
from batchrun.plan.record import Plan
from batchrun.plan.settings import settings_of
from batchrun.plan.sources import Gathered

LIMITS = ("concurrency", "concurrency_fixed", "rpm", "tpm")


def pooled(plan: Plan, gathered: Gathered, model_of: Callable[[Profile], str | None]) -> Plan:
    """Adds lanes if there are several endpoints. Raises RefusedError."""
    lanes = lanes_of(gathered, model_of)
    if not lanes:
        return plan
    models = joined(lane["model"] for lane in lanes if not lane["fallback"])
    if plan.kind is not Kind.ROWS and joined(lane["model"] for lane in lanes) != lanes[0]["model"]:
        named = "leave `model` out of their profiles: each OpenAI Batch request names its own"
        raise RefusedError(
            "ready-made requests are for one model, but the endpoints have several",
            named if plan.kind is Kind.BATCH else "choose one with --model",
        )
    if plan.batch:
        raise RefusedError(
            "batches are sent to one provider, but several endpoints are selected",
            "omit --batch, or select one endpoint: --base-url once, and neither --pool nor --fallback",
        )
    own = own_fields(lanes[0]) | {"model": models}
    return replace(
        plan,
        **own,
        lanes=lanes,
        pool=gathered.settings.pool,
        pool_policy=gathered.policy,
        fallback=gathered.settings.fallback,
    )


def lanes_of(gathered: Gathered, model_of: Callable[[Profile], str | None]) -> tuple[dict[str, Any], ...]:
    """Raises RefusedError."""
    addresses, last = gathered.settings.base_url, gathered.fallback
    if gathered.members:
        endpoints = [(profile.name, profile, _address(profile)) for profile in gathered.members]
    elif isinstance(addresses, tuple):
        checked = [check_base_url(address) for address in addresses]
        endpoints = [(name, gathered.profile, url) for name, url in zip(names_of(checked), checked, strict=True)]
    elif last is not None and not gathered.profile.simulated:
        endpoints = [(gathered.profile.name, gathered.profile, check_base_url(addresses or ""))]
    else:
        return ()
    if last is not None:
        if last.name in (name for name, _, _ in endpoints) or last.simulated:
            raise RefusedError(f"--fallback {last.name} is not another endpoint", "use another profile")
        endpoints.append((last.name, last, _address(last)))
    return tuple(
        {
            "name": name,
            "profile": profile.name,
            "base_url": url,
            "dialect": profile.dialect_at(url),
            "requests": dict(profile.takes_at(url)),
            "media": dict(profile.media_at(url)),
            "api_key_env": profile.api_key_env,
            "headers": headers_of(gathered, profile),
            "model": model_of(profile),
            **{price: getattr(profile, price) for price in PRICES},
            "tier_factors": dict(profile.tier_factors),
            **_limits(gathered, profile),
            "quota": profile.quota,
            "fallback": profile is last,
        }
        for name, profile, url in endpoints
    )


def _address(profile: Profile) -> str:
    if not profile.base_url:
        raise RefusedError(f"profile {profile.name} has no base URL", f"add base_url to [profiles.{profile.name}]")
    return check_base_url(profile.base_url)


def headers_of(gathered: Gathered, profile: Profile) -> dict[str, str]:
    given = gathered.settings.headers
    chosen = {name: text for name, text in given.items() if not _of_a_profile(gathered, f"headers.{name}")}
    return {**profile.defaults.get("headers", {}), **chosen}


def _limits(gathered: Gathered, profile: Profile) -> dict[str, Any]:
    settings = gathered.settings
    own = settings_of({name: profile.defaults[name] for name in LIMITS if name in profile.defaults})
    of_run = {name for name in LIMITS if name in gathered.sources and not _of_a_profile(gathered, name)}
    return {
        "concurrency_chosen": "concurrency" in of_run or "concurrency" in profile.defaults,
        **{name: getattr(settings if name in of_run else own, name) for name in LIMITS},
    }


def _of_a_profile(gathered: Gathered, option: str) -> bool:
    return gathered.sources.get(option, "").startswith("profile ")
