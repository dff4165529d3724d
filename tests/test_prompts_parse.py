"""What a prompt file says, in every spelling."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrun.errors import PromptError
from batchrun.models import Endpoint
from batchrun.prompts import Prompt, parse


def prompty(front: str, body: str = "user:\n{{ text }}\n") -> Prompt:
    return parse(f"---\n{front}\n---\n{body}", path="mine.prompty")


def refusal(front: str, body: str = "user:\n{{ text }}\n") -> str:
    with pytest.raises(PromptError) as caught:
        prompty(front, body)
    return f"{caught.value.message} | {caught.value.hint}"


class TestRoles:
    def test_a_body_is_split_at_its_role_lines(self):
        body = "system:\nBe brief.\n\nuser:\n\n{{ text }}\n\nassistant:\nSo:\ndeveloper:\nx"
        assert [(m.role, m.template) for m in prompty("name: x", body).messages] == [
            ("system", "Be brief."),
            ("user", "{{ text }}"),
            ("assistant", "So:"),
            ("developer", "x"),
        ]

    def test_a_body_without_role_lines_is_one_user_message(self):
        assert [m.role for m in prompty("name: x", "Say {{ text }}\nto user: them").messages] == ["user"]

    def test_text_before_the_first_role_line_is_a_system_message(self):
        assert [m.role for m in prompty("name: x", "Be brief.\nuser:\n{{ text }}").messages] == ["system", "user"]

    @pytest.mark.parametrize("line", ["User:", "  user:", "# user:", "user :", "USER:  "])
    def test_role_lines_may_be_spelled_freely(self, line: str):
        assert prompty("name: x", f"system:\na\n{line}\nb").messages[1].role == "user"

    @pytest.mark.parametrize("line", ["the user:", "user: hello", "user", "users:", "- user:"])
    def test_a_line_that_only_resembles_a_role_is_text(self, line: str):
        assert len(prompty("name: x", f"system:\na\n{line}\nb").messages) == 1

    def test_role_lines_with_attributes_are_refused(self):
        assert "mine.prompty:4: a role line has no attributes" in refusal("name: x", "user[nonce=1]:\nhi")

    def test_empty_messages_are_left_out(self):
        assert [m.role for m in prompty("name: x", "system:\n\nuser:\nhi\nassistant:\n").messages] == ["user"]

    def test_windows_line_ends_and_a_byte_order_mark_change_nothing(self):
        source = "\ufeff---\r\nname: x\r\n---\r\nsystem:\r\na\r\nuser:\r\nb\r\nc"
        assert [m.template for m in parse(source, path="p.prompty").messages] == ["a", "b\nc"]


class TestFrontMatter:
    def test_prompty_1_is_read(self):
        prompt = prompty(
            """
name: Basic Prompt
description: Says hello
authors: [me]
version: 1.0
model:
  api: chat
  configuration:
    type: azure_openai
    azure_deployment: gpt-35-turbo
  parameters:
    max_tokens: 128
    temperature: 0.2
inputs:
  text:
    type: string
  tone: friendly
sample:
  text: hello
outputs:
  answer:
    type: string
template: jinja2"""
        )
        assert (prompt.name, prompt.title, prompt.model) == ("mine", "Basic Prompt", "gpt-35-turbo")
        assert prompt.options == {"max_tokens": 128, "temperature": 0.2}
        assert prompt.endpoint is Endpoint.CHAT
        assert prompt.defaults == {}, "samples are examples"
        assert prompt.outputs is not None
        assert prompt.outputs["required"] == ["answer"]

    def test_prompty_2_is_read(self):
        prompt = prompty(
            """
name: two
model:
  id: gpt-4o-mini
  provider: openai
  apiType: responses
  connection: {kind: key, apiKey: "${env:OPENAI_API_KEY}"}
  options:
    maxOutputTokens: 50
    additionalProperties: {service_tier: flex}
inputs:
  - name: text
    kind: string
  - name: tone
    kind: string
    default: friendly
  - name: notes
    required: false
outputs:
  - {name: temperature, kind: integer, description: In Fahrenheit}
  - {name: tags, kind: array, items: {kind: string}, required: false}
  - {name: mood, kind: string, enumValues: [good, bad]}
template:
  format: {kind: jinja2}
  parser: {kind: prompty}"""
        )
        assert (prompt.model, prompt.endpoint) == ("gpt-4o-mini", Endpoint.RESPONSES)
        assert prompt.options == {"maxOutputTokens": 50, "service_tier": "flex"}
        assert prompt.defaults == {"tone": "friendly", "notes": None}
        assert prompt.outputs == {
            "type": "object",
            "properties": {
                "temperature": {"type": "integer", "description": "In Fahrenheit"},
                "tags": {"type": ["array", "null"], "items": {"type": "string"}},
                "mood": {"type": "string", "enum": ["good", "bad"]},
            },
            "required": ["temperature", "tags", "mood"],
            "additionalProperties": False,
        }

    def test_a_bare_value_in_inputs_is_a_default_in_prompty_2(self):
        assert prompty("inputs: {tone: friendly, text: string}").defaults == {"tone": "friendly"}

    def test_a_json_schema_as_outputs_is_taken_as_it_is(self):
        front = "outputs:\n  type: object\n  properties: {a: {type: string, pattern: ^x}}\n  required: [a]"
        assert prompty(front).outputs == {
            "type": "object",
            "properties": {"a": {"type": "string", "pattern": "^x"}},
            "required": ["a"],
        }

    def test_an_output_may_be_called_type(self):
        outputs = prompty("outputs: {type: string, name: string}").outputs
        assert outputs is not None
        assert outputs["required"] == ["type", "name"]

    def test_words_stay_words(self):
        front = "inputs: {a: no, b: 12:30, c: 2024-01-02, d: on, e: 010, f: 0x1F, g: 1e3, h: 1.5, i: 7, j: true}"
        assert prompty(front).defaults == {
            "a": "no",
            "b": "12:30",
            "c": "2024-01-02",
            "d": "on",
            "e": "010",
            "f": "0x1F",
            "g": 1000.0,
            "h": 1.5,
            "i": 7,
            "j": True,
        }

    @pytest.mark.parametrize(
        ("front", "said"),
        [
            ("descripton: x", "did you mean `description`?"),
            ("model: {idd: x}", "did you mean `id`?"),
            ("inputs: {text: {defualt: x}}", "did you mean `default`?"),
            ("outputs: [{name: x, knd: string}]", "did you mean `kind`?"),
            ("outputs: {x: strin}", "did you mean `string`?"),
            ("outputs: {type: array}", "a reply is one object"),
            ("name: x\nname: y", "mine.prompty:3: `name` appears twice"),
            ("name: &a x\ndescription: *a", "mine.prompty:3: aliases"),
            ("a: !!python/object/apply:os.system [ls]", "mine.prompty:2: could not determine a constructor"),
            ("name: !!python/name:os.system", "could not determine"),
            ("name: [", "mine.prompty:3"),
            ("- a", "expected lines of `key: value`"),
            ("x-deep: " + "[" * 60 + "]" * 60, "nested too deeply"),
            ("template: mustache", "not supported"),
            ("tools: [{name: x}]", "`tools` are not supported"),
            ("model: {apiType: image}", "'image' is not supported"),
            ("inputs: {a: {kind: thread}}", "of kind `thread`"),
            ("inputs: {a: '${file:/etc/passwd}'}", "not resolved"),
            ("model: {options: {user: '${env:HOME}'}}", "not resolved"),
            ("inputs: [{name: a}, {name: a}]", "appears twice"),
            ("inputs: 3", "must be a mapping or a list"),
            ("model: [x]", "`model` must be"),
        ],
    )
    def test_a_slip_is_named(self, front: str, said: str):
        assert said in refusal(front)

    @pytest.mark.parametrize(
        ("front", "line"),
        [
            ("name: x\nnmae: y", 3),
            ("name: x\ninputs:\n  tone:\n    kidn: string", 5),
            ("inputs:\n  - name: a\n  - kind: string", 4),
            ("inputs:\n  a:\n    default: ${env:KEY}", 4),
            ("outputs:\n  - name: mood\n    kind: colour", 4),
            ("outputs:\n  where:\n    kind: object\n    properties:\n      town: {kidn: string}", 6),
            ("\nmodel:\n  options: 3", 4),
            ("model:\n  apiType: fax", 3),
            ("checks: {a: 1}", 2),
            ("tools: [x]", 2),
        ],
    )
    def test_a_slip_in_a_key_is_named_with_its_line(self, front: str, line: int):
        with pytest.raises(PromptError) as caught:
            prompty(front)
        assert caught.value.line == line
        assert caught.value.message.startswith(f"mine.prompty:{line}: ")

    def test_an_end_that_is_missing_is_named(self):
        with pytest.raises(PromptError, match="the front matter has no end"):
            parse("---\nname: x\nuser:\nhi", path="p.prompty")

    def test_own_notes_are_let_in(self):
        assert prompty("x-team: me\nmetadata: {a: [1]}").name == "mine"

    def test_yaml_aliases_cannot_grow(self):
        bomb = "x-a: &a [1,2,3]\n" + "\n".join(f"x-{i}: &b{i} [*a,*a,*a,*a]" for i in range(50))
        assert "aliases" in refusal(bomb)

    def test_an_empty_prompt_is_refused(self):
        assert "the prompt is empty" in refusal("name: x", "system:\n\nuser:\n")


class TestOtherFormats:
    def test_plain_text_is_one_user_message_with_variables(self):
        prompt = parse("\nuser:\nSummarize {{ text }}\n", path="dir/short.v2.md")
        assert (prompt.name, prompt.variables) == ("short.v2", {"text"})
        assert prompt.messages[0][:2] == ("user", "user:\nSummarize {{ text }}")

    @pytest.mark.parametrize(
        "source", ["---\nNews\n---\n{{ text }}", "---\nname: {{ text }}", "---\na\n---b\n{{ text }}"]
    )
    def test_markdown_may_begin_with_a_rule(self, source: str):
        assert parse(source, path="x.md").messages[0].template == source

    def test_front_matter_in_markdown_is_pointed_out(self):
        with pytest.raises(PromptError, match=r"only `\.prompty` files have"):
            parse("---\nname: x\n---\n{{ text }}", path="x.md")

    def test_githubs_prompt_yml_is_read(self):
        source = """
name: Text Summarizer
description: Summarizes
model: openai/gpt-4o-mini
modelParameters: {temperature: 0.5, maxTokens: 99}
messages:
  - role: system
    content: You summarize.
  - role: user
    content: |
      Summarize:
      {{input}}
testData: [{input: fox}]
evaluators: [{name: x}]
responseFormat: json_schema
jsonSchema: '{"name": "s", "schema": {"type": "object", "properties": {}}}'
"""
        prompt = parse(source, path="a/fox.prompt.yml")
        assert (prompt.name, prompt.title, prompt.model) == ("fox", "Text Summarizer", "openai/gpt-4o-mini")
        assert [m[:2] for m in prompt.messages] == [("system", "You summarize."), ("user", "Summarize:\n{{input}}")]
        assert prompt.options == {"temperature": 0.5, "maxTokens": 99}
        assert prompt.outputs == {"type": "object", "properties": {}}

    @pytest.mark.parametrize(
        ("source", "said"),
        [
            ("messages: []", "must be a list"),
            ("mesages: []", "did you mean `messages`?"),
            ("messages: [{role: robot, content: x}]", "message 1 needs"),
            ("messages: [{role: user, content: 3}]", "message 1 needs"),
            ("messages: [{role: user, content: x}]\nresponseFormat: xml", "`responseFormat` is 'xml'"),
            ("messages: [{role: user, content: x}]\nresponseFormat: json_schema\njsonSchema: '{'", "not JSON"),
        ],
    )
    def test_slips_in_a_prompt_yml_are_named(self, source: str, said: str):
        with pytest.raises(PromptError) as caught:
            parse(source, path="x.prompt.yml")
        assert said in caught.value.message

    def test_an_error_in_a_prompt_yml_names_the_line_of_the_file(self):
        source = "messages:\n  - role: user\n    content: |\n      one\n      {{ x * 2 }}\n"
        with pytest.raises(PromptError, match=r"x\.prompt\.yml:5: `\*`"):
            parse(source, path="x.prompt.yml")

    def test_binary_and_huge_files_are_refused(self):
        for source in ("a\0b", "x" * 1_000_001):
            with pytest.raises(PromptError):
                parse(source, path="x.md")


_WORDS = """--- name: model: inputs: outputs: user: system: {{ }} {% %} {# #} for if x in endif endfor raw endraw kind type
- : [ ] { } *a &a !!python/object:x ' " | > # 1e9 << ? % @ `"""
_SCRAPS = st.sampled_from([*re.findall(r"\S+", _WORDS), "  ", "\n", "\n", ": ", "\ud800", "\u2028", "\0"])


@settings(max_examples=300)
@given(
    front=st.lists(_SCRAPS | st.text(max_size=6), max_size=25).map("".join),
    body=st.lists(_SCRAPS | st.text(max_size=6), max_size=25).map("".join),
    suffix=st.sampled_from([".prompty", ".md", ".prompt.yml"]),
)
def test_whatever_a_file_holds_it_is_a_prompt_or_a_prompt_error(front: str, body: str, suffix: str):
    source = front + body if suffix == ".prompt.yml" else f"---\n{front}\n---\n{body}"
    try:
        said = parse(source, path="x" + suffix).path
    except PromptError as error:
        said, line = error.message, error.line
    else:
        line = None
    assert said.startswith("x" + suffix)
    named = re.match(rf"x{re.escape(suffix)}:(\d+): ", said)
    assert line == (None if named is None else int(named[1]))
    assert line is None or 1 <= line <= len(re.split(r"\r\n|\r|\n", source))


def test_the_prompt_in_the_documentation_works():
    page = (Path(__file__).parent.parent / "docs" / "prompts.md").read_text(encoding="utf-8")
    lines = page.partition("Save this as")[2].partition("and run it")[0].split("\n")[2:]
    prompt = parse("\n".join(line[4:] for line in lines), path="classify.prompty")
    assert (prompt.title, prompt.variables) == ("Classify reviews", {"text", "topics"})
    assert prompt.outputs is not None
    assert prompt.outputs["required"] == ["mood", "topic"]
