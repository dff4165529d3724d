"""Connects the lanes of a plan."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING

from batchrun.child_processes import without_secrets
from batchrun.client import Client, tls_context
from batchrun.cluster.address import AUTO
from batchrun.cluster.driver import driver_environ
from batchrun.engine.lane import Member
from batchrun.errors import HostError
from batchrun.plan import Plan
from batchrun.plan.pools import LanePlan, lane_plans
from batchrun.plan.resolve import Access
from batchrun.plan.settings import NODE

if TYPE_CHECKING:
    from batchrun import sim
    from batchrun.client.senders.hub import Hub


@contextlib.asynccontextmanager
async def connected(
    plan: Plan, access: Access | None, simulator: "sim.Settings | None"
) -> AsyncGenerator[tuple[Member, ...]]:
    """Marks unreachable lanes; raises HostError if all are. Without `access` nothing is sent."""
    if access is None:
        yield (Member(plan, None),)
        return
    async with contextlib.AsyncExitStack() as stack:
        base_url = plan.base_url
        if simulator is not None:
            from batchrun import sim  # noqa: PLC0415  only a simulated run pays for it

            base_url = await asyncio.to_thread(stack.enter_context, sim.spawn(simulator))
        hub, made = await _senders(plan, access, stack), Client
        if hub is not None:
            from batchrun.client.senders.remote import RemoteClient  # noqa: PLC0415  only such a run pays for it

            made = partial(RemoteClient, hub, elsewhere=plan.senders is not None)
        members: list[Member] = []
        shared_context = cache(tls_context)  # reading the system's certificates takes 25 ms
        for lane, own in zip(lane_plans(plan), access.lanes or (access,), strict=True):
            client = made(
                base_url=lane.plan.base_url or base_url,
                api_key=own.key.value if own.key is not None else None,
                headers=own.headers,
                ca_file=plan.ca_file,
                tls_context=shared_context,
                allow_insecure_http=True,  # the plan has refused what the user did not allow
            )
            await stack.enter_async_context(client)
            members.append(replace(_member(plan, lane, client), hub=hub))
        errors = await asyncio.gather(*map(_error, members))
        main = [error for member, error in zip(members, errors, strict=True) if not member.fallback]
        if main[0] is not None and None not in main:
            raise main[0]
        if hub is not None:
            await hub.ready()
        yield tuple(
            replace(member, unreachable=error and error.message) for member, error in zip(members, errors, strict=True)
        )


async def _senders(plan: Plan, access: Access, stack: contextlib.AsyncExitStack) -> "Hub | None":
    if plan.senders is None and (
        plan.processes == 1 or not hasattr(os, "fork")
    ):  # the journal may be from another system
        return None
    from batchrun.client.senders import actors, children, hub  # noqa: PLC0415  only such a run pays for it

    visible = {name: value for name, value in os.environ.items() if access.mask.text(value) == value}
    environ = without_secrets(visible)
    if plan.senders is None:
        made = hub.Hub(children.Children(environ).start, plan.processes, hint="leave --processes out, or see the log")
        return await stack.enter_async_context(made)
    count = None if plan.senders == NODE else int(plan.senders)
    cluster = actors.Actors(plan.senders_ray or AUTO, count, driver_environ(environ, os.environ))
    await stack.enter_async_context(cluster)
    made = hub.Hub(
        cluster.start, cluster.count, beat=actors.BEAT, pacing=actors.PACING, hint=actors.HINT, reads_files=False
    )
    cluster.watch(made.resize)
    return await stack.enter_async_context(made)


async def _error(member: Member) -> HostError | None:
    try:
        assert member.client is not None
        await member.client.preflight()
    except HostError as error:
        return error
    return None


def _member(plan: Plan, lane: LanePlan, client: Client) -> Member:
    member = Member(lane.plan, client, name=lane.name, quota=lane.quota, fallback=lane.fallback)
    model = lane.plan.model
    if plan.model is None or model is None or plan.model == model:
        return member
    before, here = (f'{{"model":{json.dumps(name, ensure_ascii=False)}'.encode() for name in (plan.model, model))
    return replace(member, instead=(before, here))
