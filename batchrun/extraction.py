"""The answer in a model's text, without thinking, fences and words around it. Pure, and linear."""

import re
from collections import deque
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from batchrun.providers import table

_FENCE = re.compile(
    r"^[ \t]*(`{3,}|~{3,})[^\n`]*\n(?P<body>.*?)(?:\n[ \t]*\1[`~]*[ \t]*$|\Z)", re.DOTALL | re.MULTILINE
)
# gpt-oss (cookbook.openai.com openai-harmony): a channel each for thinking, calls and the answer. Servers that drop the
# special tokens leave `analysis…assistantfinal…`.
_CHANNEL = re.compile(r"<\|channel\|>\s*(?P<name>\w+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>")
_CHANNEL_END = re.compile(r"<\|(?:end|return|call)\|>(?:<\|start\|>assistant)?|<\|start\|>assistant")
_BARE_CHANNELS = re.compile(r"\s*analysis(?=[^a-z])(?P<thinking>.*)assistantfinal(?P<answer>.*)", re.DOTALL)
# beginnings of a text with thinking, and of a blank one
THINKING_STARTS = ("<", "[", "◁", " ", "\t", "\r", "\n", "analysis")
THINKING_ENDS = "think>"  # in any text whose thinking has no opening mark
# A value of its own, unlike a bracket in prose: what can follow its opening.
_OPENING = re.compile(r"\{(?=\s*[\"}])|\[(?=\s*[\"\[\]{\dtfn-])")
_ANY_OPENING = re.compile(r"[{\[]")
_SIGN = re.compile(r"\\.|[{}\[\]\"]", re.DOTALL)


class Text(NamedTuple):
    """`closed` is False if the text breaks off in its thinking."""

    thinking: str | None
    answer: str
    closed: bool = True


class Block(NamedTuple):
    """A stretch of text from a bracket; `closed`: to its closing one."""

    start: int
    end: int
    closed: bool


def split(text: str) -> Text:
    """By the marks of `providers/thinking.toml`.

    After an unclosed opening mark all is thinking. A closing mark without an opening one counts only at the beginning
    or end of a line, as an answer may mention it.
    """
    if not text.startswith(THINKING_STARTS) and THINKING_ENDS not in text:
        return Text(None, text)
    opened, closing, lone = _marks()
    thoughts: list[str] = []
    rest = text
    while found := opened.match(rest):
        inside, mark, rest = rest[found.end() :].partition(closing[found[1]])
        thoughts.append(inside)
        if not mark:
            return Text(_joined(thoughts), "", closed=False)
    if thoughts:
        return Text(_joined(thoughts), _channels(rest).answer.lstrip())
    if THINKING_ENDS in text and (found := lone.match(text)):
        return Text(found["thinking"].strip(), _channels(text[found.end() :]).answer.lstrip())
    return _channels(text)


@cache
def _marks() -> tuple[re.Pattern[str], dict[str, str], re.Pattern[str]]:
    # an opening mark; the closing one of each; all up to the last that can stand alone
    closing = {block["open"]: block["close"] for block in table("thinking")["block"]}
    alone = "|".join(re.escape(block["close"]) for block in table("thinking")["block"] if block.get("lone"))
    lone = rf"(?P<thinking>.*)(?:(?:^|\n)[ \t]*(?:{alone})|(?:{alone})(?=[ \t]*(?:\r?\n|$)))"
    return re.compile(rf"\s*({'|'.join(map(re.escape, closing))})"), closing, re.compile(lone, re.DOTALL)


def _joined(thoughts: list[str]) -> str:
    return "\n\n".join(filter(None, map(str.strip, thoughts)))


def _channels(text: str) -> Text:
    if bare := _BARE_CHANNELS.fullmatch(text):
        return Text(bare["thinking"].strip(), bare["answer"].strip())
    if not text.lstrip().startswith(("<|channel|>", "<|start|>")):
        return Text(None, text)
    thoughts: list[str] = []
    answers: list[str] = []
    found = list(_CHANNEL.finditer(text))
    for here, following in zip(found, [*found[1:], None], strict=True):
        content = text[here.end() : following.start() if following else len(text)]
        (answers if here["name"] == "final" else thoughts).append(_CHANNEL_END.split(content)[0])
    if not found:
        return Text(None, text)
    return Text(_joined(thoughts) or None, "".join(answers[-1:]).strip(), closed=bool(answers))


def last_fence(text: str) -> str | None:
    found = deque(_FENCE.finditer(text), maxlen=1)
    return found[0]["body"].strip() if found else None


def first_fence(text: str) -> str | None:
    found = _FENCE.search(text)
    return found["body"].strip() if found else None


def blocks(text: str, *, loose: bool = False) -> list[Block]:
    """The outermost that JSON may begin with (`loose`: all); an unclosed one takes the rest."""
    found: list[Block] = []
    at = 0
    while opening := (_ANY_OPENING if loose else _OPENING).search(text, at):
        at = _closed_at(text, opening.start())
        found.append(Block(opening.start(), at or len(text), bool(at)))
        if not at:
            break
    return found


def _closed_at(text: str, start: int) -> int:
    depth, quoted = 0, False
    for sign in _SIGN.finditer(text, start):
        character = sign[0]
        if character == '"':
            quoted = not quoted
        elif not quoted and character in "{[":
            depth += 1
        elif not quoted and character in "}]":
            depth -= 1
            if not depth:
                return sign.end()
    return 0


def candidates(text: str) -> Iterator[str]:
    """What may be the JSON of the answer, best first."""
    yield text
    answer = split(text).answer
    if answer != text:
        yield answer
    if (fenced := last_fence(answer)) is not None:
        yield fenced
    yield from (answer[block.start : block.end] for block in reversed(blocks(answer)) if block.closed)
