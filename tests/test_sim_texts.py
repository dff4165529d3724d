"""What simulated replies say: pseudo-translations that keep what checks look at, summaries, and defects."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.models import Endpoint
from batchrun.sim import Settings
from batchrun.sim.replies import make
from batchrun.sim.requests import Request, parse_request
from batchrun.sim.texts import MARK, broken, reply_text, source, translated

KEPT = [
    "{name}", "{{ count }}", "{% if a %}", "{% endif %}", "${total}", "{count, plural, one {# file} other {# files}}",
    "%s", "%d", "%(user)s", "%1$s", "%@", "%.2f", "$t(key.path)", "__TOKEN__", ":id", "<b>", "</b>", "<br/>",
    '<a href="https://example.com/a?b=c">', "&amp;", "&#8217;", "`let x = a.name`", "```py\nname = one\n```",
    "https://example.com/path?q=a", "me@example.org", "@someone", "#hashtag", "snake_case", "x1", "1,234.50", "10:30",
    "2026-11-28", "\\textbf", "](https://example.com/a)",
]  # fmt: skip


@pytest.mark.parametrize("kept", KEPT)
def test_what_must_not_be_translated_stays_to_the_character(kept: str) -> None:
    text = f"One of the values is {kept} and that is all."
    assert translated(text) == f"{MARK}Óné óf thé válúés ís {kept} ánd thát ís áll."


@given(
    parts=st.lists(st.sampled_from([*KEPT, "word", "An other", "日本語", " ", "\n", "\n\n", "- ", "## "]), max_size=12)
)
def test_a_translation_keeps_numbers_placeholders_lines_and_blank_edges(parts: list[str]) -> None:
    text = " ".join(parts)
    reply = translated(text)
    assert "[simulated]" in reply
    assert reply.count("\n") == text.count("\n")
    assert Counter(re.findall(r"\d+", reply)) == Counter(re.findall(r"\d+", text))
    assert Counter(re.findall(r"[{}<>%$&`]", reply)) == Counter(re.findall(r"[{}<>%$&`]", text))
    if text.strip():
        assert reply[: len(text) - len(text.lstrip())] == text[: len(text) - len(text.lstrip())]
        assert reply[len(reply.rstrip()) :] == text[len(text.rstrip()) :]


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("# Title\n\nText.\n", "# [simulated] Títlé\n\nTéxt.\n"),
        ("- an item", "- [simulated] án ítém"),
        ("  <p>Here", "  <p>[simulated] Héré"),
        ("", "[simulated]"),
        ("  \n", "[simulated]  \n"),
    ],
)
def test_the_mark_stands_behind_what_opens_a_line(text: str, reply: str) -> None:
    assert translated(text) == reply


def test_a_broken_reply_has_each_defect_for_some_request_and_never_none() -> None:
    text = "Dear {name}, <b>you</b> have 3 files.\nGoodbye."
    good = translated(text)
    assert good == f"{MARK}Déár {{name}}, <b>yóú</b> hávé 3 fílés.\nGóódbyé."
    found = {broken(text, seed) for seed in range(8)}
    assert len(found) == 8
    assert good not in found
    assert {" ", text, good.replace("{name}", ""), good.replace("<b>", "", 1), good.replace("3", "4")} < found
    assert broken("", 0) != translated("")


def test_a_summary_is_the_leading_sentences_on_one_line() -> None:
    assert (
        reply_text("summarize", "One is\nhere. Two is here. Three is not.", 42, 0) == f"{MARK}One is here. Two is here."
    )


def test_only_a_text_that_is_all_in_one_pair_of_tags_is_taken_out_of_them() -> None:
    assert source("<source>\n  a\nb\n</source>") == "  a\nb"
    assert source("<source>\na\n</other>") is None
    assert source("Say: <source>\na\n</source>") is None


def chat(*messages: tuple[str, str], settings: Settings | None = None, **body: Any) -> str:
    messages_ = [{"role": role, "content": content} for role, content in messages]
    request = parse_request(Endpoint.CHAT, json.dumps({"model": "m", "messages": messages_, **body}).encode())
    assert isinstance(request, Request)
    return make(request, "0" * 24, settings or Settings()).value["choices"][0]["message"]["content"]


TRANSLATE = ("system", "You are a professional translator. Never summarize.")


def test_the_instructions_say_what_is_wanted() -> None:
    text = ("user", "<source>\nOne here.\n</source>")
    assert chat(TRANSLATE, text) == "[simulated] Óné héré."
    assert chat(("developer", "You summarize documents."), text) == "[simulated] One here."
    assert chat(("system", "You classify."), text) == "[simulated] <source>\nOne here.\n</source>"
    assert chat(TRANSLATE, text, settings=Settings(reply="echo")) == "[simulated] <source>\nOne here.\n</source>"
    assert chat(("user", "One here."), settings=Settings(reply="translate")) == "[simulated] Óné héré."


def test_a_second_question_is_answered_for_the_text_of_the_first() -> None:
    asked = [TRANSLATE, ("user", "<source>\nOne.\n</source>"), ("assistant", "?"), ("user", "A number is missing.")]
    assert chat(*asked) == "[simulated] Óné."


def test_a_translation_is_whole_however_long_and_cut_only_by_the_requests_limit() -> None:
    text = "A sentence. " * 200
    assert chat(TRANSLATE, ("user", text)).startswith("[simulated] Á sénténcé.")
    assert chat(TRANSLATE, ("user", text)).count("sénténcé") == 200
    assert len(chat(TRANSLATE, ("user", text), max_tokens=8).encode()) <= 32


@pytest.mark.parametrize("name", ["translate", "summarize"])
def test_the_installed_prompts_are_understood(name: str) -> None:
    prompt = (Path(__file__).parents[1] / "prompts" / f"{name}.prompty").read_text().partition("system:\n")[2]
    system, _, user = prompt.partition("\nuser:\n")
    said = chat(("system", system), ("user", user.strip().replace("{{ text }}", "Two files are here. All good.")))
    assert said == MARK + ("Twó fílés áré héré. Áll góód." if name == "translate" else "Two files are here. All good.")


def test_a_pseudo_translation_keeps_icu_messages_within_each_other() -> None:
    icu = "{who, select, me {I} other {{n, plural, =0{none} one{{n} item of {who}} other{{n} items}}}}"
    assert translated(f"Hello {icu}") == f"{MARK}Hélló {icu}"
