"""Pools: several endpoints for one queue of rows."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, NamedTuple, cast

from batchrun.errors import RefusedError
from batchrun.plan.address import host_of
from batchrun.plan.names import unknown
from batchrun.plan.profiles import Profile, find_profile
from batchrun.plan.record import Plan

POLICIES = ("soonest", "cheapest", "primary")
JOINED = " | "


class PoolTable(NamedTuple):
    members: tuple[str, ...]  # names of profiles
    policy: str | None = None


class LanePlan(NamedTuple):
    name: str
    plan: Plan
    quota: str | None = None
    fallback: bool = False  # gets only rows that have failed elsewhere


_FIELDS = frozenset(item.name for item in fields(Plan)) - {"lanes", "pool", "pool_policy", "fallback"}


def own_fields(lane: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in lane.items() if name in _FIELDS}


def lane_plans(plan: Plan) -> tuple[LanePlan, ...]:
    if not plan.lanes:
        return (LanePlan("", plan),)
    alone = replace(plan, lanes=())
    return tuple(
        LanePlan(
            lane["name"],
            replace(alone, **own_fields(lane)),
            lane.get("quota"),
            lane.get("fallback", False),
        )
        for lane in plan.lanes
    )


def joined(models: Iterable[str | None]) -> str | None:
    """All names: part of drift."""
    return JOINED.join(sorted({model for model in models if model})) or None


def parsed(table: Mapping[str, Any], where: str) -> PoolTable:
    """Raises RefusedError."""
    for key in table.keys() - {"members", "policy"}:
        raise unknown("key", key, {"members", "policy"}, f" in {where}")
    members, policy = table.get("members"), table.get("policy")
    if not isinstance(members, list) or not members or not all(type(one) is str for one in cast("list[Any]", members)):
        raise RefusedError(f"members in {where} must be a list of profiles", 'for example ["vllm-a", "openai"]')
    names = tuple(cast("list[str]", members))
    if len(set(names)) < len(names):
        raise RefusedError(f"members in {where} has a profile twice", "keep one of them")
    if policy is not None and policy not in POLICIES:
        raise RefusedError(f"policy in {where} must be one of {', '.join(POLICIES)}")
    return PoolTable(names, policy)


def members_of(
    pool: str, tables: Mapping[str, PoolTable], profiles: Mapping[str, Mapping[str, Any]]
) -> tuple[Profile, ...]:
    """Raises RefusedError."""
    if pool not in tables:
        raise unknown("pool", pool, tables)
    found = tuple(find_profile(name, profiles) for name in tables[pool].members)
    if any(profile.simulated for profile in found):
        raise RefusedError(
            f"pool {pool}: the simulator inside batchrun cannot be in a pool",
            "use the address of a `batchrun sim` in a profile",
        )
    return found


def names_of(addresses: Iterable[str]) -> tuple[str, ...]:
    """Raises RefusedError."""
    given = tuple(addresses)
    if len(set(given)) < len(given):
        raise RefusedError("one base URL is given twice", "keep one of them")
    hosts = [host_of(address) for address in given]
    return tuple(host if hosts.count(host) == 1 else url for host, url in zip(hosts, given, strict=True))
