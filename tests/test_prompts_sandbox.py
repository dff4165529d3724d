"""Which templates are let in, and what they cannot do."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrun.errors import PromptError
from batchrun.models import Endpoint, Row
from batchrun.prompts import RenderError, parse, renderer
from batchrun.prompts.whitelist import SAFE_FILTERS, SAFE_TESTS


def render(template: str, **fields: Any) -> str:
    prompt = parse(template, path="p.md")
    made = renderer(prompt, endpoint=Endpoint.CHAT, model="m", params={}, variables={}, columns={})
    return json.loads(made.render(Row(1, None, "", fields)).body)["messages"][0]["content"]


def refusal(template: str) -> PromptError:
    with pytest.raises(PromptError) as caught:
        parse(template, path="p.md")
    return caught.value


@pytest.mark.parametrize(
    ("template", "fields", "text"),
    [
        ("{{ a }}-{{ b }}", {"a": 1, "b": True}, "1-True"),
        ("{{ a.b[0]['c d'] }}", {"a": {"b": [{"c d": "x"}]}}, "x"),
        ("{{ a.items }}", {"a": {"items": "mine"}}, "mine"),
        ("{{ a[:3] }}", {"a": "abcdef"}, "abc"),
        ("{{ a | upper | trim }}", {"a": " ß "}, "SS"),
        ("{{ a | default('none') }}", {}, "none"),
        ("{{ a | default('none') }}", {"a": None}, "none"),
        ("{% if a is defined %}x{% endif %}.", {"a": None}, "."),
        ("{% if a %}x{% else %}y{% endif %}", {"a": None}, "y"),
        ("{{ 'x' if a == 1 and not b else 'y' }}", {"a": 1, "b": False}, "x"),
        (
            "{% for x in a %}{{ loop.index }}{{ x }}{% if not loop.last %}, {% endif %}{% endfor %}",
            {"a": ["p", ""]},
            "1p, 2",
        ),
        ("{% for k, v in a | items %}{{ k }}={{ v }};{% endfor %}", {"a": {"x": 1, "y": 2}}, "x=1;y=2;"),
        ("{% for x in a %}{% for y in x %}{{ y }}{% endfor %}|{% endfor %}", {"a": [[1, 2], [3]]}, "12|3|"),
        ("{% for x in a if x > 1 %}{{ x }}{% else %}none{% endfor %}", {"a": [1]}, "none"),
        ("{{ a | tojson }}", {"a": {"ü": [1, None, "<&'"]}}, '{"ü": [1, null, "<&\'"]}'),
        ("{{ a | join(', ') }} {{ a | map('upper') | join }}", {"a": ["x", "y"]}, "x, y XY"),
        ("{{ a | map(attribute='n') | sum }} {{ a | sum(attribute='n') }}", {"a": [{"n": 1}, {"n": 2}]}, "3 3"),
        ("{{ a | replace('x', 'yy') | indent(2) }}", {"a": "x\nx"}, "yy\n  yy"),
        ("{{ a | round(1) }} {{ 7 // 2 + 1 - 1 }} {{ a ~ 'z' }}", {"a": 1.26}, "1.3 3 1.26z"),
        ("{# note #}{% raw %}{{ x }}{% endraw %}{{ '{{' }}", {}, "{{ x }}{{"),
        ("a <b> & {{ a }}", {"a": '<i> & "q"'}, 'a <b> & <i> & "q"'),
    ],
)
def test_what_templates_can_do(template: str, fields: dict[str, Any], text: str):
    assert render(template, **fields) == text


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ("{{ ''.__class__ }}", "__class__"),
        ("{{ a.__class__.__mro__ }}", "__mro__"),
        ("{{ a['__class__'] }}", "__class__"),
        ("{{ a._private }}", "_private"),
        ("{{ __builtins__ }}", "__builtins__"),
        ("{{ self }}", "self"),
        ("{{ a | attr('x') }}", "filter `attr`"),
        ("{{ 'a' * 10**9 }}", "`*"),
        ("{{ a ** 9 }}", "`**`"),
        ("{{ '%999999999d' % 1 }}", "`%`"),
        ("{% for i in range(10) %}{% endfor %}", "range"),
        ("{{ lipsum() }}", "lipsum"),
        ("{{ cycler('a') }}", "cycler"),
        ("{{ a.format(b) }}", ".format("),
        ("{{ a.upper() }}", ".upper("),
        ("{% include '/etc/passwd' %}", "include"),
        ("{% import 'x' as y %}", "import"),
        ("{% from 'x' import y %}", "import"),
        ("{% extends 'x' %}", "extends"),
        ("{% block x %}{% endblock %}", "block"),
        ("{% macro x() %}{% endmacro %}", "macro"),
        ("{% set a = a ~ a %}{{ a }}", "set"),
        ("{% set a %}x{% endset %}", "set"),
        ("{% with b = a ~ a %}{{ b }}{% endwith %}", "with"),
        ("{% filter upper %}x{% endfilter %}", "filter"),
        ("{% call a() %}{% endcall %}", "call"),
        ("{% for x in a recursive %}{% endfor %}", "recursive"),
        ("{% for x in a %}{% for y in x %}{% for z in y %}{% endfor %}{% endfor %}{% endfor %}", "more than two deep"),
        ("{{ a | center(999999999) }}", "filter `center`"),
        ("{{ a | format }}", "filter `format`"),
        ("{{ a | random }}", "filter `random`"),
        ("{{ a | map(b) }}", "`map`"),
        ("{{ a | map('replace', 'a', b) }}", "`map`"),
        ("{{ a | join(*b) }}", "arguments"),
        ("{{ a is callable }}", "is callable"),
        ("{{ a" + "[0]" * 70 + " }}", "nested"),
        ("{{ " + "a ~ " * 1100 + "a }}", ""),
    ],
)
def test_what_is_refused_at_load(template: str, named: str):
    error = refusal("one\n" + template)
    assert error.message.startswith("p.md:2: " if named else "p.md:")
    assert named in error.message
    assert error.hint or not named


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ a | uper }}", "did you mean `upper`?"),
        ("{{ a is emty }}", "Known:"),
        ("{{ a.strip() }}", "| trim"),
        ("{% if a %}\nuser:\n", "close it before the next role line"),
        ("{{ Review Text }}", "--column NAME=COLUMN"),
        ("{% switch a %}", "`{% if %}` and `{% for %}`"),
        ("use {{ }} here", "{% raw %}"),
    ],
)
def test_the_hint_says_what_to_write(template: str, said: str):
    assert said in (refusal(template).hint or "")


def test_a_bracket_storm_is_an_error_and_no_crash():
    assert "p.md:1: expressions nested too deeply" in refusal("{{ " + "(" * 100_000 + " }}").message


@pytest.mark.parametrize(
    ("template", "fields"),
    [
        ("{{ a | replace('x', a) | replace('x', a) }}", {"a": "x" * 5_000}),
        ("{{ a | join(a) }}", {"a": "x" * 5_000}),
        ("{{ a | indent(40) }}", {"a": "\n" * 1_000_000}),
        ("{% for x in a %}{{ b }}{% endfor %}", {"a": [1] * 90_000, "b": "y" * 1_000}),
        ("{{ a }}", {"a": "x" * 10_000_001}),
        ("{% for x in a %}{% for y in a %}{% endfor %}{% endfor %}", {"a": [1] * 50_000}),
        ("{{ a | round(b) }}", {"a": 5, "b": -(10**9)}),
        ("{{ a | indent(b) }}", {"a": "x\ny", "b": 10**9}),
        ("{{ a" + " | tojson" * 50 + " }}", {"a": '"'}),
        ("{{ a" + " | list | string" * 25 + " }}", {"a": "xy"}),
        ("{{ " + "(" * 25 + "a" + " | list ~ '')" * 25 + " }}", {"a": "xy"}),
        ("{{ " + "[" * 24 + "a" + "] | string" * 24 + " }}", {"a": "\\\"'" * 10}),
        ("{{ [a]" + " | map('tojson')" * 50 + " | join }}", {"a": '"'}),
        ("{{ " + "(" * 25 + "a" + " | reverse + a)" * 25 + " }}", {"a": "x" * 200_000}),
        ("{{ a | replace('x', b) }}" * 100, {"a": "x" * 1_000, "b": "y" * 9_000}),
    ],
)
def test_a_template_that_would_explode_ends_soon_with_an_error(template: str, fields: dict[str, Any]):
    # Soon: one that explodes outlives the time limit that every test has, and the machine's memory.
    with pytest.raises(RenderError, match=r"[15]0 MB|more than 100,000|precision|width"):
        render(template, **fields)


@pytest.mark.parametrize(
    ("template", "fields", "said"),
    [
        ("one\n\n{{ a.b }}", {"a": {"c": 1}}, "p.md:3: a value has no member `b`"),
        ("{{ a.upper }}", {"a": "x"}, "no member `upper`"),
        ("{{ a.append }}", {"a": []}, "no member `append`"),
        ("one\n{{ a / b }}", {"a": 1, "b": 0}, "p.md:2: division by zero"),
        ("{% for x in a %}{% endfor %}", {"a": "text"}, "needs a list"),
        ("{% for x in a %}{% endfor %}", {"a": 3}, "not iterable"),
        ("{% if a %}{{ a.b }}{% endif %}", {"a": {"b": None}}, "null"),
        ("{% if a > 3 %}x{% endif %}", {"a": "4"}, "not supported between"),
    ],
)
def test_a_row_that_does_not_fit_is_told_where(template: str, fields: dict[str, Any], said: str):
    with pytest.raises(RenderError) as caught:
        render(template, **fields)
    assert said in caught.value.message
    assert caught.value.missing == ()


ANY = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
ANY |= st.lists(ANY, max_size=3) | st.dictionaries(st.text(max_size=2), ANY, max_size=2)
FORMS = [f"{{{{ a | {name} }}}}" for name in sorted(SAFE_FILTERS) if name not in {"map", "replace"}]
FORMS += [f"{{{{ a | {name}(b) }}}}" for name in sorted(SAFE_FILTERS) if name != "map"]
FORMS += [f"{{{{ a | {name}(b, c) }}}}" for name in sorted(SAFE_FILTERS) if name != "map"]
FORMS += [f"{{{{ a is {name} }}}}" for name in sorted(SAFE_TESTS) if name.isalpha()]
FORMS += [f"{{{{ a is {name}(b) }}}}" for name in sorted(SAFE_TESTS) if name.isalpha()]
FORMS += [f"{{{{ a {operator} b }}}}" for operator in ["+", "-", "/", "//", "~", "<", "==", "in", "and", "or"]]
FORMS += [
    "{{ a[b] }}",
    "{{ a[b:c] }}",
    "{{ -a }}",
    "{{ a.b.c }}",
    "{{ a | map('int') | list }}",
    "{{ a | map(attribute=b) | list }}",
]
FORMS += ["{% for x in a %}{{ x }}{{ loop.length }}{% endfor %}", "{{ a | select(b) | list }}", "{{ a if b }}"]
MADE = {
    form: renderer(parse(form, path="p.md"), endpoint=Endpoint.CHAT, model="m", params={}, variables={}, columns={})
    for form in FORMS
}


@settings(max_examples=600)
@given(form=st.sampled_from(FORMS), a=ANY, b=ANY, c=ANY)
def test_whatever_a_row_holds_it_is_a_request_or_a_render_error(form: str, a: Any, b: Any, c: Any):
    try:
        said = json.loads(MADE[form].render(Row(1, None, "", {"a": a, "b": b, "c": c})).body)["messages"][0]["role"]
    except RenderError as error:
        said = error.message
    assert said


@pytest.mark.parametrize("template", ["{{ a }}", "{{ a | tojson }}"])
def test_a_value_nested_too_deeply_is_a_render_error(template: str):
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(RenderError, match="nested too deeply"):
        render(template, a=value)


def test_steps_are_counted_for_each_row_anew():
    prompt = parse("{% for x in a %}{% endfor %}{{ b }}", path="p.md")
    made = renderer(prompt, endpoint=Endpoint.CHAT, model="m", params={}, variables={}, columns={})
    for number in range(3):
        body = made.render(Row(1, None, "", {"a": [1] * 60_000, "b": number})).body
        assert json.loads(body)["messages"][0]["content"] == str(number)
