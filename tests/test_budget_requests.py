"""Requests under a budget: each gets a limit of output tokens, and what has no known worst case is refused."""

import json
from dataclasses import replace
from typing import Any

import pytest
from test_budget_run import plan_of

from batchrun.engine.output_cap import costs_more, with_known_worst_case
from batchrun.errors import RefusedError
from batchrun.models import Kind, Ready, Row
from batchrun.prompts import RenderError, batch_renderer

TALK = [{"role": "user", "content": "hello"}]


def row(body: dict[str, Any], url: str = "/v1/chat/completions") -> Row:
    fields = {"custom_id": "a", "method": "POST", "url": url, "body": body}
    return Row(1, "a", json.dumps(fields), fields)


def sent(body: dict[str, Any], url: str = "/v1/chat/completions", **terms: Any) -> tuple[dict[str, Any], int | None]:
    request = with_known_worst_case(batch_renderer(), plan_of(kind=Kind.BATCH, **terms)).render(row(body, url))
    return json.loads(request.body), request.output_limit


def test_a_request_without_a_limit_gets_one_under_the_name_that_its_host_takes() -> None:
    body = {"model": "m", "messages": TALK}
    assert sent(body) == (body | {"max_tokens": 100}, 100)
    assert sent(body, base_url="https://api.openai.com/v1") == (body | {"max_completion_tokens": 100}, 100)
    asked = {"model": "m", "input": "hello"}
    assert sent(asked, "/v1/responses") == (asked | {"max_output_tokens": 100}, 100)
    assert sent(body | {"n": 3}) == (body | {"n": 3, "max_tokens": 100}, 300)


@pytest.mark.parametrize(("own", "ready"), [({}, False), ({"max_tokens": 7}, True)])
def test_a_request_that_got_a_limit_is_not_read_from_the_text_of_its_row(own: dict[str, int], ready: bool) -> None:
    renderer = with_known_worst_case(batch_renderer(), plan_of(kind=Kind.BATCH))
    request = renderer.render(row({"model": "m", "messages": TALK} | own))
    assert (Ready.of(request) is not None) is ready


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_a_request_that_has_a_limit_keeps_it(limit: str) -> None:
    body = {"model": "m", "messages": TALK, limit: 7, "n": 2}
    assert sent(body) == (body, 14)


def test_each_of_several_prompts_has_its_own_output() -> None:
    body = {"model": "m", "prompt": ["one", "two", "three"], "n": 2}
    assert sent(body, "/v1/completions") == (body | {"max_tokens": 100}, 600)
    assert sent(body | {"max_tokens": 7}, "/v1/completions")[1] == 42
    assert sent({"model": "m", "prompt": [1, 2, 3]}, "/v1/completions")[1] == 100


def test_embeddings_have_no_output_to_limit() -> None:
    body = {"model": "m", "input": "hello"}
    assert sent(body, "/v1/embeddings", max_cost=1.0) == (body, 0)


def test_a_line_with_a_model_of_unknown_price_is_named_under_a_cap() -> None:
    body = {"model": "no-such-model", "messages": TALK}
    with pytest.raises(RenderError, match="price of model no-such-model is unknown"):
        sent(body, max_cost=1.0, input_price=None, output_price=None, base_url="https://api.openai.com/v1")


def test_what_holds_for_all_rows_is_said_once() -> None:
    for kind in (Kind.BATCH, Kind.ROWS):
        plan = plan_of(kind=kind, max_cost=1.0, max_output_tokens=None)
        with pytest.raises(RefusedError, match="a budget needs a limit of output tokens") as refused:
            with_known_worst_case(batch_renderer(), plan).render(row({"model": "m", "messages": TALK}))
        assert not isinstance(refused.value, RenderError)
        plan = replace(plan, input_price=None, output_price=None, base_url="https://api.openai.com/v1")
        body = {"model": "unheard", "max_tokens": 5, "messages": TALK}
        with pytest.raises(RefusedError, match="the price of model unheard is unknown") as refused:
            with_known_worst_case(batch_renderer(), plan).render(row(body))
        assert isinstance(refused.value, RenderError) == (kind is Kind.BATCH)  # its lines may name other models


@pytest.mark.parametrize(
    ("more", "dear"),
    [
        ({}, False),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}, False),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, True),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, True),
        ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, True),
        ({"tools": [{"type": "web_search"}]}, True),
        ({"tools": []}, False),
        ({"modalities": ["text", "audio"]}, True),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}]}, False),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, True),
        ({"input": [{"type": "item_reference", "id": "a"}]}, True),
        ({"input": "hello"}, False),
    ],
)
def test_images_audio_files_and_tools_need_a_reserve(more: dict[str, Any], dear: bool) -> None:
    assert costs_more(more) is dear
    body = {"model": "m", "messages": TALK} | more
    url = "/v1/responses" if "input" in more else "/v1/chat/completions"
    if "input" in more:
        del body["messages"]
    if dear:
        with pytest.raises(RenderError, match="is not known from the request"):
            sent(body, url, max_cost=1.0)
    assert sent(body, url, max_cost=1.0, reserve=0.01)[1] == 100
