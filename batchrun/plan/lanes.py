"""The lanes of a plan: what each member of a pool has of its own, of its profile and of the settings."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from batchrun.errors import RefusedError
from batchrun.models import Kind
from batchrun.plan.address import check_base_url
from batchrun.plan.pools import joined, names_of, own_fields
from batchrun.plan.profiles import PRICES, Profile
from batchrun.plan.record import Plan
from batchrun.plan.settings import Settings
from batchrun.plan.sources import Gathered

LIMITS = ("concurrency", "concurrency_fixed", "rpm", "tpm")
"""What each lane has of its own limits."""


def pooled(plan: Plan, gathered: Gathered, model_of: Callable[[Profile], str | None]) -> Plan:
    """The plan with its lanes, where the settings name several places. Raises as `lanes_of`."""
    lanes = lanes_of(gathered, model_of)
    if not lanes:
        return plan
    models = joined(lane["model"] for lane in lanes if not lane["fallback"])
    if plan.kind is not Kind.ROWS and joined(lane["model"] for lane in lanes) != lanes[0]["model"]:
        raise RefusedError(
            "requests that come ready-made are for one model, and the places have several", "choose one with --model"
        )
    if plan.batch:
        raise RefusedError(
            "batches go to one provider, and several places are named",
            "leave --batch out, or name one place: --base-url once, and neither --pool nor --fallback",
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
    """The lanes of a pool, or of several base URLs, as `Plan.lanes` has them; none for a run with one place.

    `model_of` gives the model that a profile's lane is asked for. Raises RefusedError.
    """
    addresses, last = gathered.settings.base_url, gathered.fallback
    if gathered.members:
        places = [(profile.name, profile, _address(profile)) for profile in gathered.members]
    elif isinstance(addresses, tuple):
        checked = [check_base_url(address) for address in addresses]
        places = [(name, gathered.profile, url) for name, url in zip(names_of(checked), checked, strict=True)]
    elif last is not None and not gathered.profile.simulated:
        places = [(gathered.profile.name, gathered.profile, check_base_url(addresses or ""))]
    else:
        return ()
    if last is not None:
        if last.name in (name for name, _, _ in places) or last.simulated:
            raise RefusedError(f"--fallback {last.name} is no other place", "name another profile")
        places.append((last.name, last, _address(last)))
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
        for name, profile, url in places
    )


def _address(profile: Profile) -> str:
    if not profile.base_url:
        raise RefusedError(f"profile {profile.name} has no base URL", f"add base_url to [profiles.{profile.name}]")
    return check_base_url(profile.base_url)


def headers_of(gathered: Gathered, profile: Profile) -> dict[str, str]:
    """The headers that go to a member: its profile's, and those that were chosen for the run, but no other profile's."""
    given = gathered.settings.headers
    chosen = {name: text for name, text in given.items() if not _of_a_profile(gathered, f"headers.{name}")}
    return {**profile.defaults.get("headers", {}), **chosen}


def _limits(gathered: Gathered, profile: Profile) -> dict[str, Any]:
    """What was chosen for the run holds for each lane; else what its profile says."""
    settings = gathered.settings
    own = Settings(**{name: profile.defaults[name] for name in LIMITS if name in profile.defaults})
    of_run = {name for name in LIMITS if name in gathered.sources and not _of_a_profile(gathered, name)}
    return {
        "concurrency_chosen": "concurrency" in of_run or "concurrency" in profile.defaults,
        **{name: getattr(settings if name in of_run else own, name) for name in LIMITS},
    }


def _of_a_profile(gathered: Gathered, option: str) -> bool:
    return gathered.sources.get(option, "").startswith("profile ")
