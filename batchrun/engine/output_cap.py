"""Bounds requests for a budget: sets output token limits, and refuses unknown worst cases."""

from collections.abc import Collection, Mapping
from typing import Any, cast

import orjson

from batchrun.engine.budget_guard import Named, caps_of, named_in, tariff_of
from batchrun.engine.row_files import restored
from batchrun.engine.tiers import tiers_of
from batchrun.errors import RefusedError
from batchrun.journal import Journal
from batchrun.models import Endpoint, Kind, Request, Row
from batchrun.plan import Plan
from batchrun.plan.blanks import copied
from batchrun.plan.pools import lane_plans
from batchrun.pricing import NOTHING_SERVED, Price
from batchrun.prompts import Renderer, RenderError
from batchrun.prompts.request import output_limit

# Hosts whose newer models refuse `max_tokens`; all others accept it, some nothing else
_OWN_NAMES = ("openai.com", "azure.com")
_TEXT = frozenset({"text", "input_text", "output_text", "refusal"})
_COUNTED = _TEXT | {"image_url", "input_image"}
_EXTRA_COST = ("tools", "functions", "audio", "web_search_options", "plugins")


def with_known_worst_case(renderer: Renderer, plan: Plan) -> Renderer:
    if plan.max_output_tokens is not None:
        renderer = _Limited(renderer, plan)
    if plan.max_cost is not None or plan.max_total_tokens is not None:
        renderer = _Bounded(renderer, plan)
    return renderer


def check_pending(plan: Plan, journal: Journal, renderer: Renderer) -> None:
    """Raises RefusedError where the budget cannot bound them."""
    if plan.max_cost is None and plan.max_total_tokens is None:
        return
    after, blanks = 0, copied(plan)
    while page := journal.pending(after):
        for row in page:
            found = restored(row, journal.path.parent)
            if blanks.is_blank(found.fields):
                continue
            try:
                renderer.render(found)
            except RenderError as error:
                raise RefusedError(f"line {row.line}: {error.message}", error.hint) from None
        after = page[-1].position


class _Limited:
    def __init__(self, renderer: Renderer, plan: Plan) -> None:
        self._renderer = renderer
        self._limit = plan.max_output_tokens or 0
        host = plan.base_url.split("/")[2].split(":")[0] if "//" in plan.base_url else ""
        newer = plan.simulated or host.endswith(_OWN_NAMES)
        self._names: Mapping[Endpoint, str] = {
            Endpoint.CHAT: "max_completion_tokens" if newer else "max_tokens",
            Endpoint.COMPLETIONS: "max_tokens",
            Endpoint.RESPONSES: "max_output_tokens",
        }

    def render(self, row: Row) -> Request:
        request = self._renderer.render(row)
        if request.output_limit is not None:
            return request
        body = bytes(request.body).rstrip()[:-1] + f',"{self._names[request.endpoint]}":{self._limit}}}'.encode()
        limit: int | None = self._limit
        if b'"n"' in body or request.endpoint is Endpoint.COMPLETIONS:
            limit = output_limit(request.endpoint, orjson.loads(body))
        return request._replace(body=body, output_limit=limit, start=None)


class _Bounded:
    def __init__(self, renderer: Renderer, plan: Plan) -> None:
        self._renderer = renderer
        self._capped = caps_of(plan).cost is not None
        self._reserve = plan.reserve is not None
        self._places = [(tariff_of(lane.plan), lane.plan.model if plan.lanes else None) for lane in lane_plans(plan)]
        self._tiers = tuple(tier.priced for tier in tiers_of(plan).values())
        self._alike = plan.kind is Kind.ROWS
        self._seen = False

    def render(self, row: Row) -> Request:
        """Raises RenderError, or RefusedError for all rows."""
        request = self._renderer.render(row)
        if not self._seen or request.files:
            try:
                self._check(request)
            except RenderError as error:
                if self._alike:
                    raise RefusedError(error.message, error.hint) from None
                raise
            self._seen = self._alike
        return request

    def _check(self, request: Request) -> None:
        if request.output_limit is None:  # the option gives all requests one
            raise RefusedError(
                "a budget needs a limit of output tokens, and the request has none", "add --max-output-tokens N"
            )
        if not self._capped:
            return
        body: dict[str, Any] = orjson.loads(bytes(request.body))
        named = named_in(request)
        for tariff, model in self._places:
            asked = named if model is None else named._replace(model=model)
            price = tariff.of(asked.model)
            for tier in self._tiers or (named.tier,):
                if price is None or price.worst(1, request.output_limit, price.tiers(tier, NOTHING_SERVED)) is None:
                    raise unknown_price(asked._replace(tier=tier), price)
        if not self._reserve and costs_more(body, counted=request.file_tokens > 0):
            raise RenderError(
                "the cost of images, audio, files and tools is not known from the request",
                "add --reserve USD: the most that they may cost per request",
            )


def unknown_price(named: Named, price: Price | None) -> RenderError:
    if price is not None and named.tier is not None and price.standard.output is not None:
        return RenderError(
            f"--max-cost cannot be enforced: the price of model {named.model} in service tier {named.tier} is unknown",
            f"add tier_factors = {{{named.tier} = 2.0}} (of the standard prices) to the profile in batchrun.toml",
        )
    what = "the price" if price is None else "the price of output tokens"
    return RenderError(
        f"--max-cost cannot be enforced: {what} of model {named.model} is unknown",
        "add input_price and output_price (USD per million tokens) to the profile in batchrun.toml",
    )


def costs_more(body: Mapping[str, Any], *, counted: bool = False) -> bool:
    """Whether there are media, files or tools beyond `counted` image tokens."""
    if "file" in body or any(body.get(name) for name in _EXTRA_COST) or "audio" in (body.get("modalities") or ()):
        return True
    talk = body.get("messages", body.get("input"))
    return isinstance(talk, list) and any(
        _beyond_text(item, _COUNTED if counted else _TEXT) for item in cast("list[Any]", talk)
    )


def _beyond_text(item: Any, plain: Collection[str]) -> bool:
    if not isinstance(item, dict):
        return False
    found = cast("dict[str, Any]", item)
    content = found.get("content")
    if content is None and "type" in found:
        return found["type"] not in (*plain, "message")
    if not isinstance(content, list):
        return False
    parts = [cast("dict[str, Any]", part) for part in cast("list[Any]", content) if isinstance(part, dict)]
    return any(part.get("type") not in plain for part in parts)
