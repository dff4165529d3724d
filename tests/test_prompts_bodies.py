"""Ready-made requests: sent as they are, or with what is absent filled in."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrun.engine.budget_guard import named_in
from batchrun.errors import PromptError
from batchrun.models import Endpoint, Request, Row
from batchrun.prompts import RenderError, batch_renderer, body_renderer

CHAT = '{"messages":[{"role":"user","content":"hi"}],"max_tokens":4,"n":2}'


def batch(text: str) -> Any:
    return batch_renderer().render(Row(1, None, text, json.loads(text)))


class TestBatchLines:
    @pytest.mark.parametrize(
        ("text", "body"),
        [
            ('{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":' + CHAT + "}", CHAT),
            (
                ' { "custom_id" : "a" , "n":-1.5e3,"t":true, "body" : {"messages" : [ 1.10, 1e400 ]} } ',
                '{"messages" : [ 1.10, 1e400 ]}',
            ),
            ('{"body":{"messages":[]},"custom_id":"a"}', '{"messages":[]}'),
            ('{"x":{"body":{"input":1}},"body":{"messages":[]}}', '{"messages":[]}'),
            ('{"body":{"input":1},"body":{"messages":[]}}', '{"messages":[]}'),
            ('{"body":{"input":1},"x":1,"body":{"messages":[]} ,"x":2}', '{"messages":[]}'),
            ('{"x":1,"body":{"messages":[]},"x":{}}', '{"messages":[]}'),
            ('{"x":1,"body":{"messages":[]} \t, "x":{"y":{}}}', '{"messages":[]}'),
            ('{"x":1,"body":{"messages":["},\\"x\\":{"],"n":{},"m":{}}}', '{"messages":["},\\"x\\":{"],"n":{},"m":{}}'),
            ('{"x":1,"body":{"messages":[' + "{}," * 99 + '1]},"x":{"y":{}}}', '{"messages":[' + "{}," * 99 + "1]}"),
            ('{"x":1,"body":{"messages":[' + "{}," * 99 + '1],"n":{}}}', '{"messages":[' + "{}," * 99 + '1],"n":{}}'),
            (r'{"a\"b":"\"body\":{}","bo\u0064y":{"messages":["\ud800"]}}', r'{"messages":["\ud800"]}'),
            (r'{"a\"body":1,"body":{"messages":[1]}}', '{"messages":[1]}'),
            (
                '{"custom_id":"body","x":["body"],"body":{"messages":[{"body":2}]},"custom_id":{}}',
                '{"messages":[{"body":2}]}',
            ),
            ('{"custom_id":"a","body":{"messages":["ü","\\u00fc",123456789012345678901234567890]}}', None),
        ],
    )
    def test_the_characters_of_the_body_are_sent_untouched(self, text: str, body: str | None):
        sent = batch(text).body.decode()
        assert sent == (body or '{"messages":["ü","\\u00fc",123456789012345678901234567890]}')

    @pytest.mark.parametrize(
        ("url", "endpoint"),
        [
            ("/v1/chat/completions", Endpoint.CHAT),
            ("/chat/completions", Endpoint.CHAT),
            ("/v1/responses", Endpoint.RESPONSES),
            ("/v1/embeddings", Endpoint.EMBEDDINGS),
            ("/v1/completions", Endpoint.COMPLETIONS),
        ],
    )
    def test_the_url_chooses_the_endpoint(self, url: str, endpoint: Endpoint):
        assert batch(json.dumps({"url": url, "body": {}})).endpoint is endpoint

    def test_without_url_the_body_tells_it(self):
        assert batch('{"body":{"input":"x"}}').endpoint is Endpoint.RESPONSES
        assert batch('{"body":{"prompt":"x"}}').endpoint is Endpoint.COMPLETIONS

    def test_the_output_limit_is_the_bodys(self):
        assert batch('{"body":' + CHAT + "}").output_limit == 8

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ({"url": "/v1/chat/completion", "body": {}}, "did you mean `/v1/chat/completions`?"),
            ({"url": 7, "body": {}}, "not an endpoint"),
            ({"url": "/v1/responses", "method": "GET", "body": {}}, "only POST"),
            ({"url": "/v1/responses", "body": "x"}, "`body` must be an object"),
            ({"url": "/v1/responses"}, "`body` must be an object"),
            ({"url": "/v1/responses", "body": {"stream": True}}, "`stream`"),
            ({"body": {}}, "neither `messages` nor `input`"),
        ],
    )
    def test_a_line_that_cannot_be_sent_is_named(self, line: dict[str, Any], said: str):
        with pytest.raises(RenderError, match=said):
            batch(json.dumps(line))


KEYS = st.sampled_from(["body", "a", "custom_id", 'q"', "body ", ""])
FLAT = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
VALUES = FLAT | st.lists(FLAT, max_size=2) | st.dictionaries(KEYS, FLAT, max_size=2)


@settings(max_examples=150)
@given(
    members=st.lists(st.tuples(KEYS, VALUES), max_size=5),
    after=st.just([]) | st.lists(st.tuples(KEYS.filter(lambda key: key != "body"), VALUES), max_size=2),
    body=st.dictionaries(KEYS, VALUES, max_size=3),
    blank=st.sampled_from(["", " ", "\n\t"]),
    ascii_only=st.booleans(),
)
def test_wherever_the_body_stands_its_text_is_found(
    members: Any, after: Any, body: dict[str, Any], blank: str, ascii_only: bool
):
    def spelled(value: Any) -> str:
        return blank + json.dumps(value, ensure_ascii=ascii_only) + blank

    sole = ("body", {**body, "messages": []})
    written = [*members, sole, *after]
    text = blank + "{" + ",".join(f"{spelled(key)}:{spelled(value)}" for key, value in written) + "}" + blank
    fields = json.loads(text) | {"url": None, "method": "POST"}
    row = Row(1, None, text, fields)
    request = batch_renderer().render(row)
    assert request.body.decode() == spelled(sole[1]).strip()
    assert batch_renderer().render(row._replace(encoded=text.encode())) == request
    given = json.loads(request.body)
    assert request.named == (given.get("model"), given.get("service_tier"))


def test_a_body_beyond_ascii_is_cut_out_by_characters_and_not_by_bytes() -> None:
    text = '{"custom_id":"ä","body":{"messages":[{"content":"“é”"}]},"n":1}'
    row = Row(1, None, text, json.loads(text), None, text.encode())
    assert batch_renderer().render(row).body.decode() == '{"messages":[{"content":"“é”"}]}'


@pytest.mark.parametrize(
    ("named", "model"), [(None, "in the body"), (("told", None), "told"), ((None, None), None), (([], 1), None)]
)
def test_what_a_request_names_is_looked_for_only_where_it_is_not_known(named: Any, model: str | None) -> None:
    request = Request(Endpoint.CHAT, b'{"model":"in the body","service_tier":"flex"}', None, named=named)
    assert named_in(request).model == model
    assert named_in(request).tier == ("flex" if named is None else None)


class TestBareBodies:
    def send(self, fields: dict[str, Any], **given: Any) -> Any:
        settings: dict[str, Any] = {"endpoint": None, "model": None, "params": {}, "id_column": None}
        return body_renderer(**(settings | given)).render(Row(1, None, json.dumps(fields), fields))

    def test_the_id_stays_here_and_absent_members_are_filled_in(self):
        request = self.send({"id": 1, "messages": [], "seed": 5}, id_column="id", model="m", params={"seed": 1, "n": 2})
        assert json.loads(request.body) == {"model": "m", "seed": 5, "n": 2, "messages": []}
        assert request.endpoint is Endpoint.CHAT

    def test_a_model_of_its_own_is_kept(self):
        assert json.loads(self.send({"input": "ü", "model": "own"}, model="m").body) == {"model": "own", "input": "ü"}

    def test_the_endpoint_is_told_by_the_body_or_by_the_user(self):
        assert self.send({"input": "x"}).endpoint is Endpoint.RESPONSES
        assert self.send({"input": "x"}, endpoint=Endpoint.EMBEDDINGS).endpoint is Endpoint.EMBEDDINGS
        with pytest.raises(RenderError, match="neither"):
            self.send({"text": "x"})

    def test_a_body_for_another_endpoint_is_refused(self):
        for fields, endpoint, name in (
            ({"input": "x"}, Endpoint.CHAT, "messages"),
            ({"messages": []}, Endpoint.RESPONSES, "input"),
            ({"input": "x"}, Endpoint.COMPLETIONS, "prompt"),
        ):
            with pytest.raises(RenderError, match=f"no `{name}`"):
                self.send(fields, endpoint=endpoint)

    def test_large_numbers_survive(self):
        assert b"123456789012345678901234567890" in self.send({"input": 123456789012345678901234567890}).body

    @pytest.mark.parametrize("fields", [{"input": float("inf")}, {"input": "\ud800"}, {"input": "x", "stream": True}])
    def test_what_cannot_be_sent_is_a_render_error(self, fields: dict[str, Any]):
        with pytest.raises(RenderError):
            self.send(fields)

    def test_streaming_is_refused_at_once(self):
        with pytest.raises(PromptError):
            self.send({"input": "x"}, params={"stream": True})


@pytest.mark.parametrize("place", ["{rest},{body}", "{body},{rest}"])
def test_a_body_is_cut_out_of_the_bytes_alone(place: str) -> None:
    body = '{"messages":[{"content":"“é𝄞”"}]}'
    text = "{" + place.format(rest='"custom_id":"ä","x":{"€":1}', body=f'"body":{body}') + "}"
    row = Row(1, None, "", json.loads(text), None, text.encode())
    assert batch_renderer().render(row).body.decode() == body
