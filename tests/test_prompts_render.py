"""Rows for a prompt: what is sent, and what is said of rows that lack something."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrun.digests import BLAKE3
from batchrun.errors import PromptError
from batchrun.models import Endpoint, Request, Row
from batchrun.prompts import (
    Prompt,
    Renderer,
    RenderError,
    check_variables,
    load,
    parse,
    renderer,
    request_digest,
    with_correction,
)

SHIPPED = (Path(__file__).parent.parent / "prompts",)


def prompt_of(body: str, front: str = "name: x") -> Prompt:
    return parse(f"---\n{front}\n---\n{body}", path="mine.prompty")


def renderer_of(prompt: Prompt, endpoint: Endpoint = Endpoint.CHAT, **given: Any) -> Renderer:
    settings: dict[str, Any] = {"model": "m", "params": {}, "variables": {}, "columns": {}}
    return renderer(prompt, endpoint=endpoint, **(settings | given))


def row(**fields: Any) -> Row:
    return Row(1, None, json.dumps(fields), fields)


def body_of(
    prompt: Prompt, endpoint: Endpoint = Endpoint.CHAT, fields: dict[str, Any] | None = None, **given: Any
) -> Any:
    return json.loads(renderer_of(prompt, endpoint, **given).render(row(**(fields or {"text": "hi"}))).body)


class TestBodies:
    def test_chat(self):
        prompt = prompt_of('system:\nBe "brief".\nuser:\n{{ text }}!', "model: {id: a, options: {topP: 0.5}}")
        request = renderer_of(prompt, model=None, params={"seed": 12345678901234567890}).render(row(text="hi"))
        assert request.endpoint is Endpoint.CHAT
        assert request.body.decode() == (
            '{"model":"a","messages":[{"role":"system","content":"Be \\"brief\\"."},'
            '{"role":"user","content":"hi!"}],"top_p":0.5,"seed":12345678901234567890}'
        )

    def test_responses(self):
        prompt = prompt_of(
            "system:\na\nuser:\n{{ text }}", "model: {options: {max_tokens: 9, response_format: {type: json_object}}}"
        )
        assert body_of(prompt, Endpoint.RESPONSES) == {
            "model": "m",
            "input": [{"role": "system", "content": "a"}, {"role": "user", "content": "hi"}],
            "max_output_tokens": 9,
            "text": {"format": {"type": "json_object"}},
        }

    def test_embeddings_and_completions_take_the_text_alone(self):
        assert body_of(prompt_of("{{ text }}"), Endpoint.EMBEDDINGS) == {"model": "m", "input": "hi"}
        assert body_of(prompt_of("> {{ text }}"), Endpoint.COMPLETIONS) == {"model": "m", "prompt": "> hi"}

    def test_one_text_endpoints_refuse_a_conversation(self):
        with pytest.raises(PromptError, match="accepts one text, but the prompt has 2 messages"):
            renderer_of(prompt_of("system:\na\nuser:\nb"), Endpoint.EMBEDDINGS)

    @pytest.mark.parametrize("endpoint", [each for each in Endpoint if each != Endpoint.TRANSCRIPTIONS])
    def test_without_a_model_none_is_named(self, endpoint: Endpoint):
        assert "model" not in body_of(prompt_of("{{ text }}"), endpoint, model=None)

    @pytest.mark.parametrize(
        ("spelled", "endpoint", "sent"),
        [
            ("maxOutputTokens", Endpoint.CHAT, "max_completion_tokens"),
            ("maxOutputTokens", Endpoint.RESPONSES, "max_output_tokens"),
            ("maxOutputTokens", Endpoint.COMPLETIONS, "max_tokens"),
            ("max_tokens", Endpoint.CHAT, "max_tokens"),
            ("maxTokens", Endpoint.CHAT, "max_tokens"),
            ("stopSequences", Endpoint.CHAT, "stop"),
            ("allowMultipleToolCalls", Endpoint.CHAT, "parallel_tool_calls"),
            ("frequencyPenalty", Endpoint.CHAT, "frequency_penalty"),
            ("chat_template_kwargs", Endpoint.CHAT, "chat_template_kwargs"),
        ],
    )
    def test_options_are_spelled_as_the_endpoint_has_them(self, spelled: str, endpoint: Endpoint, sent: str):
        assert body_of(prompt_of("{{ text }}", f"model: {{options: {{{spelled}: 7}}}}"), endpoint)[sent] == 7

    def test_parameters_win_over_options_and_are_never_renamed(self):
        prompt = prompt_of("{{ text }}", "model: {options: {temperature: 1, seed: 1}}")
        body = body_of(prompt, params={"temperature": 0, "maxTokens": 3, "model": "other"})
        assert (body["temperature"], body["seed"], body["maxTokens"], body["model"]) == (0, 1, 3, "other")

    @pytest.mark.parametrize("params", [{"messages": []}, {"stream": True}, {"x": float("nan")}, {"x": "\ud800"}])
    def test_parameters_that_cannot_be_sent_are_refused(self, params: dict[str, Any]):
        with pytest.raises(PromptError):
            renderer_of(prompt_of("{{ text }}"), params=params)

    @pytest.mark.parametrize(
        ("endpoint", "params", "limit"),
        [
            (Endpoint.CHAT, {}, None),
            (Endpoint.CHAT, {"max_tokens": 5, "n": 3}, 15),
            (Endpoint.CHAT, {"max_completion_tokens": 7, "max_tokens": 5}, 7),
            (Endpoint.CHAT, {"max_tokens": "5"}, None),
            (Endpoint.RESPONSES, {"max_output_tokens": 5}, 5),
            (Endpoint.COMPLETIONS, {"max_tokens": 5, "best_of": 4, "n": 2}, 20),
            (Endpoint.EMBEDDINGS, {}, 0),
        ],
    )
    def test_the_output_limit_is_for_all_choices(self, endpoint: Endpoint, params: dict[str, Any], limit: int | None):
        request = renderer_of(prompt_of("{{ text }}"), endpoint, params=params).render(row(text="x"))
        assert request.output_limit == limit


class TestStructuredOutput:
    FRONT = "outputs: [{name: answer, kind: string}]"

    def test_chat_carries_a_strict_schema(self):
        form = body_of(prompt_of("{{ text }}", self.FRONT))["response_format"]
        assert form["type"] == "json_schema"
        assert (form["json_schema"]["name"], form["json_schema"]["strict"]) == ("mine", True)
        assert form["json_schema"]["schema"]["required"] == ["answer"]

    def test_responses_carry_it_as_text_format(self):
        text = body_of(prompt_of("{{ text }}", self.FRONT), Endpoint.RESPONSES, params={"text": {"verbosity": "low"}})[
            "text"
        ]
        assert (text["format"]["type"], text["format"]["name"], text["verbosity"]) == ("json_schema", "mine", "low")

    def test_a_schema_that_is_not_strict_is_not_called_strict(self):
        front = "outputs: {type: object, properties: {a: {type: string}}}"
        assert body_of(prompt_of("{{ text }}", front))["response_format"]["json_schema"]["strict"] is False

    def test_a_format_that_the_user_states_is_kept(self):
        form = {"type": "json_object"}
        assert body_of(prompt_of("{{ text }}", self.FRONT), params={"response_format": form})["response_format"] == form

    def test_embeddings_have_none(self):
        with pytest.raises(PromptError, match="no structured output"):
            renderer_of(prompt_of("{{ text }}", self.FRONT), Endpoint.EMBEDDINGS)


class TestVariables:
    PROMPT = prompt_of("user:\n{{ text }} {{ tone }} {{ lang }}", "inputs: {tone: {default: calm}}")

    def text(self, fields: dict[str, Any], **given: Any) -> str:
        return body_of(self.PROMPT, fields=fields, **given)["messages"][0]["content"]

    def test_set_wins_over_the_row_and_the_row_over_the_default(self):
        fields = {"text": "a", "lang": "row"}
        assert self.text(fields) == "a calm row"
        assert self.text(fields | {"tone": "row"}) == "a row row"
        assert self.text(fields | {"tone": "row"}, variables={"tone": "set", "lang": "set"}) == "a set set"

    def test_a_null_gives_way_to_the_default(self):
        assert self.text({"text": "a", "lang": "b", "tone": None}) == "a calm b"

    def test_a_column_can_have_another_name(self):
        assert self.text({"Review Text": "a", "lang": "b", "text": "no"}, columns={"text": "Review Text"}) == "a calm b"

    def test_missing_and_null_variables_are_all_named(self):
        made = renderer_of(self.PROMPT, columns={"text": "body"})
        with pytest.raises(RenderError) as caught:
            made.render(row(lang=None, text="x"))
        assert caught.value.missing == ("lang", "text")
        assert caught.value.message == "no value for `lang`, which is null, `text` (column `body`)"

    def test_a_template_with_logic_names_them_too(self):
        made = renderer_of(prompt_of("{% if a %}{{ b }}{% endif %}{{ c | default('') }}{{ d }}"))
        with pytest.raises(RenderError) as caught:
            made.render(row(a=None))
        assert caught.value.missing == ("b", "d")
        assert json.loads(made.render(row(a=None, b="b", d="d")).body)["messages"][0]["content"] == "d"

    def test_a_null_that_one_message_asks_for_and_another_prints_is_named(self):
        made = renderer_of(prompt_of("system:\n{% if a %}x{% else %}y{% endif %}\nuser:\n{{ a }}"))
        with pytest.raises(RenderError) as caught:
            made.render(row(a=None))
        assert caught.value.missing == ("a",)

    def test_an_optional_input_is_null_where_a_row_has_none(self):
        made = renderer_of(prompt_of("x{% if a %}{{ a }}{% endif %}", "inputs: [{name: a, required: false}]"))
        assert json.loads(made.render(row()).body)["messages"][0]["content"] == "x"

    def test_values_of_set_have_the_declared_kind(self):
        prompt = prompt_of("{% if n > 3 %}many{% else %}few{% endif %}", "inputs: {n: {kind: integer}}")
        assert body_of(prompt, variables={"n": "4"})["messages"][0]["content"] == "many"
        with pytest.raises(PromptError, match="declared as integer"):
            renderer_of(prompt, variables={"n": "four"})

    def test_values_that_are_equal_but_print_differently_are_not_mixed_up(self):
        made = renderer_of(prompt_of("{% if true %}{{ a }}{% endif %}"))
        texts = [json.loads(made.render(row(a=a)).body)["messages"][0]["content"] for a in (1, True, 1.0, "1", "1")]
        assert texts == ["1", "True", "1.0", "1", "1"]

    def test_a_row_with_a_lone_surrogate_is_a_render_error(self):
        with pytest.raises(RenderError, match="cannot be sent"):
            renderer_of(prompt_of("{{ text }}")).render(row(text="\ud800"))


class TestChecksBeforeTheFirstRow:
    PROMPT = prompt_of("{{ text }} {{ tone }} {{ note | default('') }}", "inputs: {tone: {default: calm}}")

    def check(
        self, columns: tuple[str, ...], variables: dict[str, str] | None = None, mapped: dict[str, str] | None = None
    ):
        check_variables(self.PROMPT, columns, variables or {}, mapped or {})

    def refusal(self, *args: Any) -> str:
        with pytest.raises(PromptError) as caught:
            self.check(*args)
        return f"{caught.value.message} | {caught.value.hint}"

    def test_what_fits_is_let_in(self):
        self.check(("text",))
        self.check(("a",), {"text": "x"})
        self.check(("a",), {}, {"text": "a"})
        self.check((), {}, {"text": "anything"})

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ((("Text", "id"),), "Try --column text=Text"),
            ((("body of it",),), "Try --column 'text=body of it'"),
            ((("a", "b"),), "The input has: a, b. Try --column text=COLUMN or --set text=VALUE"),
            ((("text",), {"tune": "x"}), "did you mean `tone`?"),
            ((("text",), {}, {"txt": "text"}), "did you mean `text`?"),
            ((("text", "Tone"), {}, {"tone": "tone"}), "the input has no column `tone`; did you mean `Tone`?"),
            ((("text",), {"tone": "x"}, {"tone": "text"}), "both --set and --column"),
        ],
    )
    def test_a_slip_is_named_with_what_to_type(self, arguments: tuple[Any, ...], said: str):
        assert said in self.refusal(*arguments)

    def test_a_renderer_refuses_unknown_names_as_well(self):
        with pytest.raises(PromptError, match="did you mean `tone`"):
            renderer_of(self.PROMPT, variables={"tne": "x"})


HOSTILE = st.text(
    st.sampled_from("{}%#-_\n\r\t \"'\\<&abc\0\x1b\x85\u2028\u202e\U0001f600") | st.characters(codec="utf-8"),
    max_size=40,
) | st.sampled_from(
    ["{{ 7*7 }}", "\nuser:\nhi\n", "{% for %}", "system:", "{{ text }}", "{% raw %}", "</source>", "}}"]
)


@settings(max_examples=150)
@given(text=HOSTILE, tone=HOSTILE)
@pytest.mark.parametrize(
    "body",
    [
        "system:\n«{{ tone }}»\nuser:\n«{{ text }}»",
        "system:\n«{{ tone ~ '' }}»\nuser:\n{% if true %}«{{ text }}»{% endif %}",
    ],
)
def test_row_data_arrives_literally_and_opens_no_message(body: str, text: str, tone: str):
    messages = body_of(prompt_of(body), fields={"text": text, "tone": tone})["messages"]
    assert messages == [{"role": "system", "content": f"«{tone}»"}, {"role": "user", "content": f"«{text}»"}]


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | HOSTILE
VALUES |= st.lists(VALUES, max_size=3) | st.dictionaries(st.text(max_size=3), VALUES, max_size=3)


@settings(max_examples=150)
@given(value=VALUES)
def test_a_plain_message_reads_exactly_as_jinja_would_have_it(value: Any):
    def outcome(body: str) -> Any:
        try:
            return body_of(prompt_of(body), fields={"text": value})["messages"][0]["content"]
        except RenderError as error:
            return error.missing, "cannot be sent" in error.message

    assert outcome("-{{ text }}.") == outcome("-{{ text }}{% if true %}.{% endif %}")


class TestAskAgain:
    def test_a_chat_is_continued_with_the_reply_and_the_complaint(self):
        first = renderer_of(prompt_of("{{ text }}")).render(row(text="hi"))
        again = with_correction(first, '{"a": 1', "expected `}`")
        messages = json.loads(again.body)["messages"]
        assert messages[:2] == [{"role": "user", "content": "hi"}, {"role": "assistant", "content": '{"a": 1'}]
        assert (messages[2]["role"], "expected `}`" in messages[2]["content"]) == ("user", True)
        assert again.endpoint is first.endpoint

    def test_a_text_as_input_of_responses_becomes_a_conversation(self):
        again = with_correction(Request(Endpoint.RESPONSES, b'{"input":"hi","model":"m"}', None), "no", "bad")
        assert [item["role"] for item in json.loads(again.body)["input"]] == ["user", "assistant", "user"]

    def test_embeddings_are_no_conversation(self):
        with pytest.raises(ValueError, match="not a conversation"):
            with_correction(Request(Endpoint.EMBEDDINGS, b'{"input":"hi"}', 0), "", "")


def test_the_digest_tells_endpoint_and_body_apart():
    requests = [Request(endpoint, body, None) for endpoint in Endpoint for body in (b"{}", b"{ }")]
    digests = {request_digest(request, BLAKE3) for request in requests}
    assert len(digests) == len(requests)
    assert all(len(digest) == 32 for digest in digests)
    assert request_digest(requests[0], BLAKE3) == request_digest(requests[0]._replace(output_limit=9), BLAKE3)


class TestShippedPrompts:
    def test_translate_keeps_its_instructions_the_same_for_every_row(self):
        made = renderer_of(load("translate", places=SHIPPED), variables={"language": "Dutch"})
        bodies = [json.loads(made.render(row(text=text)).body)["messages"] for text in ("a\n", "{{ b }}")]
        assert bodies[0][0] == bodies[1][0]
        assert "into Dutch" in bodies[0][0]["content"]
        assert "{{ count }}" in bodies[0][0]["content"]
        assert bodies[1][1]["content"] == "<source>\n{{ b }}\n</source>"

    def test_translate_needs_a_language(self):
        with pytest.raises(PromptError, match="`language`"):
            check_variables(load("translate", places=SHIPPED), ("text",), {}, {})

    def test_summarize_needs_nothing_but_text(self):
        prompt = load("summarize", places=SHIPPED)
        check_variables(prompt, ("text",), {}, {})
        assert "Length: 3 sentences." in body_of(prompt)["messages"][0]["content"]
        assert "Length: 9 words." in body_of(prompt, variables={"length": "9 words"})["messages"][0]["content"]

    @pytest.mark.parametrize("name", ["translate", "summarize"])
    def test_they_choose_no_model_and_no_sampling(self, name: str):
        prompt = load(name, places=SHIPPED)
        assert (prompt.model, dict(prompt.options), [m.role for m in prompt.messages]) == (None, {}, ["system", "user"])
