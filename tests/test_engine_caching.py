"""Prompt caches used on purpose: who writes, who reads, in which order rows are sent, and what a refusal of the marks costs."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from engine import Provider, Stage, ok, status

from batchrun.errors import ExitCode
from batchrun.models import Exchange, Request

pytestmark = pytest.mark.usefixtures("no_waiting")
FIXED = ("You answer briefly and to the point. " * 120).strip()
SHORT = "You answer briefly."
MODEL = {"model": "gpt-5.6-luna", "prompt_path": "p.prompty"}


def prompt(system: str, user: str) -> dict[str, Any]:
    return {**MODEL, "prompt_source": f"---\nname: p\n---\nsystem:\n{system}\nuser:\n{user}"}


class Caching(Provider):
    """Remembers what it got: `marked` is whether a request bore a mark, in the order in which they came."""

    def __init__(self, answer: Callable[[dict[str, Any]], Exchange] | None = None, *, wait: int = 0) -> None:
        super().__init__()
        self.answer = answer
        self.wait = wait  # turns of the loop that an answer takes
        self.seen: list[dict[str, Any]] = []

    async def send(self, request: Request, *, timeout: float) -> Exchange:  # noqa: ASYNC109  as the client's
        body: dict[str, Any] = orjson.loads(request.body)
        self.seen.append(body)
        for _ in range(1 + self.wait):
            await asyncio.sleep(0)
        return ok("X")("") if self.answer is None else self.answer(body)

    @property
    def marked(self) -> list[bool]:
        return [b"prompt_cache_breakpoint" in orjson.dumps(body) for body in self.seen]

    @property
    def texts(self) -> list[str]:
        """What each request says to the model, the blocks of a message joined."""
        return [text_of(body) for body in self.seen]


def text_of(body: dict[str, Any]) -> str:
    contents = [message["content"] for message in body["messages"]]
    return "|".join(
        content if isinstance(content, str) else "".join(part["text"] for part in content) for content in contents
    )


async def test_one_request_writes_those_beside_it_do_not_and_those_after_it_read(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 30, concurrency=4, **prompt(FIXED, "{{ text }}"))
    provider = Caching(wait=5)
    await stage.play(provider)
    assert stage.totals.done == 30
    assert provider.marked[:4] == [True, False, False, False]
    assert all(provider.marked[8:])
    assert len({body["prompt_cache_key"] for body in provider.seen}) == 1
    assert {orjson.dumps(body["prompt_cache_options"]) for body in provider.seen} == {b'{"mode":"explicit"}'}
    assert sorted(provider.texts) == sorted(f"{FIXED}|row {number}" for number in range(1, 31))


async def test_where_the_fixed_part_is_short_nothing_is_marked_and_nothing_written(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 8, **prompt(SHORT, "{{ text }}"))
    provider = Caching()
    await stage.play(provider)
    assert not any(provider.marked)
    assert all("prompt_cache_key" not in body for body in provider.seen)
    assert all(body["prompt_cache_options"] == {"mode": "explicit"} for body in provider.seen)


@pytest.mark.parametrize("plan", [{"cache": "off"}, {"model": "gpt-4o", "dialect": "azure"}])
async def test_nothing_is_added_where_it_is_off_or_the_model_does_not_take_it(
    plan: dict[str, Any], tmp_path: Path
) -> None:
    stage = Stage(tmp_path, 4, **{**prompt(FIXED, "{{ text }}"), **plan})
    provider = Caching()
    await stage.play(provider)
    assert {tuple(sorted(body)) for body in provider.seen} == {("messages", "model")}


async def test_what_was_typed_is_not_added_again(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 4, params={"prompt_cache_key": "mine"}, **prompt(FIXED, "{{ text }}"))
    provider = Caching()
    await stage.play(provider)
    assert {body["prompt_cache_key"] for body in provider.seen} == {"mine"}


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (b"prompt_cache_options", {"message": "Unknown parameter.", "param": "prompt_cache_options"}),
        (b"prompt_cache_key", {"message": "Unrecognized request argument supplied: prompt_cache_key"}),
        (b'"content":[', {"message": "messages.0.content.0.prompt_cache_breakpoint: Extra inputs are not permitted"}),
        (b'"content":[', {"message": "expected a string, but got an array", "param": "messages[0].content"}),
    ],
)
@pytest.mark.parametrize("code", [400, 422])
async def test_a_refusal_that_names_a_member_leaves_all_of_them_out_and_sends_the_row_again_once(
    refused: bytes, said: dict[str, str], code: int, tmp_path: Path
) -> None:
    def answer(body: dict[str, Any]) -> Exchange:
        return status(code, **said)("") if refused in orjson.dumps(body) else ok("X")("")

    stage = Stage(tmp_path, 30, concurrency=4, max_attempts=1, **prompt(FIXED, "{{ text }}"))
    provider = Caching(answer)
    story = await stage.play(provider)
    assert (story.ending.exit_code, stage.totals.done, stage.totals.failed) == (ExitCode.OK, 30, 0)
    count = sum(refused in orjson.dumps(body) for body in provider.seen)
    assert 1 <= count <= 16  # those that were on their way
    assert len(provider.seen) == 30 + count
    assert set(provider.seen[-1]) == {"model", "messages"}
    assert sum("without prompt cache marks" in words for words in story.told) == 1


async def test_another_refusal_of_a_marked_request_is_the_rows_own(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> Exchange:
        return status(400, "context_length_exceeded")("") if text_of(body).endswith("row 3") else ok("X")("")

    stage = Stage(tmp_path, 6, **prompt(FIXED, "{{ text }}"))
    provider = Caching(answer)
    story = await stage.play(provider)
    assert (story.ending.exit_code, stage.totals.done, stage.totals.failed) == (ExitCode.OK, 5, 1)
    assert provider.marked[-1]


async def test_a_writer_that_fails_is_followed_by_another(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> Exchange:
        return status(400, "context_length_exceeded")("") if text_of(body).endswith("row 1") else ok("X")("")

    stage = Stage(tmp_path, 3, concurrency=1, concurrency_fixed=True, **prompt(FIXED, "{{ text }}"))
    provider = Caching(answer)
    await stage.play(provider)
    assert provider.marked == [True, True, True]


DOCUMENTS = {**prompt(SHORT, "{{ document }}\nQuestion: {{ question }}")}


def documents(count: int, questions: int, size: int = 6000) -> list[str]:
    """Rows of so many questions about each of so many documents, one question about all of them after the other."""
    return [
        f'D{document}{"x" * size}", "question": "Q{question}'
        for question in range(questions)
        for document in range(count)
    ]


async def _asked(stage: Stage, provider: Caching) -> list[str]:
    await stage.play(provider)
    texts = [text.split("|")[1] for text in provider.texts]
    return [f"{text[: text.index('x')]}{text[text.index('Q', text.index(':')) :]}" for text in texts]


def _stage(path: Path, rows: list[str], **plan: Any) -> Stage:
    return Stage(path, rows, columns={"document": "text"}, **{**DOCUMENTS, **plan})


async def test_rows_of_one_document_are_sent_next_to_each_other_and_read_what_the_first_wrote(tmp_path: Path) -> None:
    stage = _stage(tmp_path, documents(6, 4), concurrency=1, concurrency_fixed=True)
    provider = Caching()
    asked = await _asked(stage, provider)
    places = [[asked.index(f"D{document}Q{question}") for question in range(4)] for document in range(6)]
    apart = sum(max(found) - min(found) for found in places)
    assert apart < 6 * 18 / 2  # in the order of the input it were 6 times 18
    assert all(provider.marked)
    keys = [body["prompt_cache_key"] for body in provider.seen]
    assert [keys.count(key) for key in dict.fromkeys(keys)] == [4] * 6
    assert [record.line for record in stage.records] == list(range(1, 25))


async def test_while_the_first_row_of_a_document_is_under_way_rows_of_others_are_sent(tmp_path: Path) -> None:
    stage = _stage(tmp_path, documents(8, 3), concurrency=4, concurrency_fixed=True)
    provider = Caching(wait=50)
    asked = await _asked(stage, provider)
    assert [name[-2:] for name in asked[:4]] == ["Q0"] * 4
    assert len(set(asked)) == 24
    assert provider.marked[:4] == [True] * 4


async def test_rows_of_the_only_document_are_not_held_back(tmp_path: Path) -> None:
    stage = _stage(tmp_path, documents(1, 12), concurrency=4, concurrency_fixed=True)
    provider = Caching(wait=50)
    await _asked(stage, provider)
    assert provider.marked[:4] == [True, False, False, False]
    assert stage.totals.done == 12


@pytest.mark.parametrize("rows", [documents(4, 3, size=100), documents(12, 1)])
async def test_rows_that_share_nothing_long_keep_their_order(rows: list[str], tmp_path: Path) -> None:
    stage = _stage(tmp_path, rows, concurrency=1, concurrency_fixed=True)
    provider = Caching()
    asked = await _asked(stage, provider)
    assert asked == [f"D{row[1 : row.index('x')]}Q{row[-1]}" for row in rows]
    assert not any(provider.marked)


async def test_what_is_added_is_no_change_of_the_request(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 4, cache="off", **prompt(FIXED, "{{ text }}"))
    await stage.play(Caching())
    again = Caching()
    await stage.play(again, cache="auto", tier=("flex",))
    assert again.seen == []
