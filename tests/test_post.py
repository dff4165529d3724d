"""Functions of `--post`: how they are found, what they are given, what becomes of what they return."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from batchrun import post
from batchrun.errors import RefusedError
from batchrun.models import Usage
from batchrun.post import Failure, Item, Reply, Value
from batchrun.post.builtin import BUILT_IN
from batchrun.post.chain import Chain
from batchrun.post.event_loop import EventLoopWorker, worker
from batchrun.post.load import load, located
from batchrun.post.reply import Shard

SOURCE = """
import asyncio, datetime, enum
from batchrun.post import Reply

def upper(reply: Reply) -> str:
    return reply.text.upper()

def count(reply):
    return {"length": len(reply.text)}

def keep(reply):
    return None

def seen(reply):
    return {"seen": [reply.text, reply.value, reply.fields, reply.finish, reply.line, reply.key, reply.usage.input]}

def clash(reply):
    return {"text": "mine"}

def broken(reply):
    return inner(reply)

def inner(reply):
    raise ValueError("no number")

def leaves(reply):
    raise SystemExit(3)

def a_set(reply):
    return {1, 2}

def nan(reply):
    return [float("nan")]

def a_date(reply):
    return {"day": datetime.date(2026, 1, 1)}

def odd_name(reply):
    return {1: "one"}

def circle(reply):
    value = []
    value.append(value)
    return value

def surrogate(reply):
    return "\\ud800 ü"

class Counter:
    made = 0
    def __init__(self):
        Counter.made += 1
        self.calls = 0
    def __call__(self, reply):
        self.calls += 1
        return {"made": Counter.made, "calls": self.calls}

class Unmade:
    def __init__(self):
        raise OSError("no model here")
    def __call__(self, reply):
        return 1

class NotCalled:
    pass

class WantsMore:
    def __init__(self, model):
        pass
    def __call__(self, reply):
        return 1

async def later(reply):
    await asyncio.sleep(0)
    return reply.text + "!"

async def never(reply):
    await asyncio.sleep(3600)

async def cancelled(reply):
    raise asyncio.CancelledError

def two(reply, other):
    return 1

def none_at_all():
    return 1

def stream(reply):
    yield 1

NUMBER = 7
"""


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    path = tmp_path / "functions.py"
    path.write_text(SOURCE, encoding="utf-8")
    return path


def results(functions: Path, *names: str, items: list[Item] | None = None, batch: bool = False) -> list[Any]:
    specs = [name if name in BUILT_IN else f"{functions}:{name}" for name in names]
    own = worker(load(specs), concurrency=4, timeout=0.2, batch=batch)
    try:
        return everything(own, items or [Item("hello", '{"text": "hallo"}')])
    finally:
        own.close()


def everything(own: Chain | EventLoopWorker, items: list[Item]) -> list[Any]:
    """What comes of the items, whether it comes back at once or one by one."""
    came: dict[int, Any] = {}
    shard = Shard(items)
    while len(came) < len(items):
        done = own.run(shard)
        came.update(zip(done.numbers or range(len(items)), done.results, strict=False))
        shard = Shard([], first=len(items), held=len(items) - len(came))
    return [came[number] for number in range(len(items))]


def result(functions: Path, *names: str, **settings: Any) -> Any:
    return results(functions, *names, **settings)[0]


@pytest.mark.parametrize(
    ("names", "output", "added"),
    [
        (["upper"], "HELLO", None),
        (["count"], None, {"length": 5}),
        (["keep"], None, None),
        (["upper", "keep"], "HELLO", None),
        (["upper", "count"], "HELLO", {"length": 5}),
        (["count", "upper"], "HELLO", {"length": 5}),
        (["later"], "hello!", None),
        (["later", "upper", "count"], "HELLO!", {"length": 6}),
        (["strip", "lines"], ["hello"], None),
    ],
)
def test_a_dict_is_merged_another_value_is_the_output_and_none_keeps_the_text(
    functions: Path, names: list[str], output: Any, added: Any
) -> None:
    value = result(functions, *names)
    assert isinstance(value, Value)
    assert (value.output and json.loads(value.output), value.added and json.loads(value.added)) == (output, added)


def test_a_function_sees_the_reply_and_its_row(functions: Path) -> None:
    item = Item("hello", '{"text": "hallo", "n": 1.50}', '{"a": 1}', Usage(3, 4, 0, 0), "length", 12, "row-12")
    seen = json.loads(result(functions, "seen", items=[item]).added)["seen"]
    assert seen == ["hello", {"a": 1}, {"text": "hallo", "n": 1.5}, "length", 12, "row-12", 3]


def test_the_value_of_one_function_is_what_the_next_one_sees(functions: Path) -> None:
    item = Item('```json\n{"a": [1,],}\n```', usage=Usage(1, 1, 0, 0))
    value = result(functions, "json", "seen", items=[item])
    assert json.loads(value.added)["a"] == [1]
    assert json.loads(value.added)["seen"][1] == {"a": [1]}


@pytest.mark.parametrize(
    ("name", "cause", "said"),
    [
        ("broken", "post: ValueError", r"ValueError: no number \(functions\.py:\d+ in inner\)"),
        ("leaves", "post: SystemExit", r"SystemExit: 3"),
        ("a_set", "post: not JSON", "set is not JSON"),
        ("nan", "post: not JSON", "list is not JSON"),
        ("a_date", "post: not JSON", "date is not JSON"),
        ("odd_name", "post: not JSON", "name is 1"),
        ("circle", "post: not JSON", "list is not JSON"),
        ("clash", "post: column exists", "'text' is already a column"),
        ("never", "post: timed out", r"no result after 0\.2 s"),
        ("cancelled", "post: CancelledError", "CancelledError"),
        ("Unmade", "post: OSError", r"no model here \(functions\.py:\d+ in __init__\)"),
    ],
)
def test_what_goes_wrong_fails_the_row_with_its_place(functions: Path, name: str, cause: str, said: str) -> None:
    failure = result(functions, name)
    assert isinstance(failure, Failure)
    assert failure.cause == cause
    assert re.search(said, failure.message)


def test_a_traceback_shows_the_users_code_and_none_of_ours(functions: Path) -> None:
    trace = result(functions, "broken").trace
    assert "return inner(reply)" in trace
    assert trace.endswith("ValueError: no number")
    assert "chain.py" not in trace


def test_a_failing_row_leaves_the_others_alone(functions: Path) -> None:
    items = [Item("a", '{"text": 1}'), Item("b", '{"other": 1}')]
    failed, kept = results(functions, "clash", items=items)
    assert (type(failed), kept) == (Failure, Value(None, '{"text": "mine"}'))


def test_a_lone_surrogate_stays_an_escape(functions: Path) -> None:
    assert result(functions, "surrogate") == Value('"\\ud800 \\u00fc"', None)


def test_a_class_is_made_once_and_called_for_every_row(functions: Path) -> None:
    seen = [json.loads(value.added) for value in results(functions, "Counter", items=[Item("a"), Item("b")])]
    assert [value["calls"] for value in seen] == [1, 2]
    assert seen[0]["made"] == seen[1]["made"]


def test_members_of_a_batch_line_cannot_be_replaced(functions: Path) -> None:
    functions.write_text(SOURCE + "\ndef taken(reply):\n    return {'response': 1}\n", encoding="utf-8")
    assert result(functions, "taken", batch=True).cause == "post: column exists"
    assert result(functions, "clash", batch=True) == Value(None, '{"text": "mine"}')


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("{}:upperr", "did you mean upper?"),
        ("{}:NUMBER", "is not a function"),
        ("{}:two", "wrong signature"),
        ("{}:none_at_all", "wrong signature"),
        ("{}:stream", "generator"),
        ("{}:NotCalled", "cannot be called"),
        ("{}:WantsMore", "must take no arguments"),
        ("{}/missing.py:upper", "there is no file"),
        ("no_such_package.module:upper", "No module named"),
        ("jsn", "did you mean json?"),
        (":upper", "not a name"),
        ("json:", "not a name"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(functions: Path, spec: str, said: str) -> None:
    with pytest.raises(RefusedError) as refused:
        post.check([spec.format(functions)])
    assert spec.format(functions) in refused.value.message
    assert said in f"{refused.value.message} {refused.value.hint}"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nowhere_to_be_found", r"ModuleNotFoundError.*source\.py:1"),
        ("def f(reply):\n  return (", r"SyntaxError.*line 2"),
        ("raise RuntimeError('not today')", r"RuntimeError: not today \(source\.py:1\)"),
        ("import sys\nsys.exit(4)", r"ends the process \(exit 4\)"),
    ],
)
def test_a_file_that_cannot_be_imported_is_refused_with_the_line(tmp_path: Path, source: str, said: str) -> None:
    path = tmp_path / "source.py"
    path.write_text(source, encoding="utf-8")
    with pytest.raises(RefusedError) as refused:
        post.check([f"{path}:f"])
    assert re.search(said, refused.value.message)


def test_what_a_file_prints_when_it_is_imported_is_not_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "talks.py"
    path.write_text("print('hello')\ndef f(reply): return 1\n", encoding="utf-8")
    with caplog.at_level("INFO", "batchrun"):
        post.check([f"{path}:f"])
    assert capsys.readouterr().out == ""
    assert "hello" in caplog.text


def test_a_file_can_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_f.py").write_text("WORD = 'near'\n", encoding="utf-8")
    path = tmp_path / "f.py"
    path.write_text("import neighbour_of_f\ndef f(reply): return neighbour_of_f.WORD\n", encoding="utf-8")
    assert result(path, "f") == Value('"near"', None)


def test_a_file_means_the_same_from_any_directory(tmp_path: Path) -> None:
    assert located("check.py:f", tmp_path) == f"{tmp_path}/check.py:f"
    assert located("/a/check.py:f", tmp_path) == "/a/check.py:f"
    assert located("package.module:f", tmp_path) == "package.module:f"
    assert located("json", tmp_path) == "json"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("json", '{"a": 1}', {"a": 1}),
        ("json", "Here it is:\n```json\n[1, 2]\n```\nAnything else?", [1, 2]),
        ("json", "Sure! {'a': True, 'b': [1, 2", {"a": True, "b": [1, 2]}),
        ("json", "12", 12),
        ("json", '{"big": 123456789012345678901234567890}', {"big": 123456789012345678901234567890}),
        ("json", '<think>\nso {"a": ...} is it\n</think>\n\n{"a": 1}', {"a": 1}),
        ("json", 'so {"a": 0}\n</think>\n{"a": 1}', {"a": 1}),
        ("json", '<|channel|>final <|constrain|>json<|message|>{"a": 1}', {"a": 1}),
        ("json", 'First {"a": 0}, and then:\n```json\n{"a": 1}\n```\nWell?', {"a": 1}),
        ("json", 'A draft: {"a": 0}. At last: {"a": 1}. See [2].', {"a": 1}),
        ("json", "Here it is:\n```json\n[1, 2,]\n```\nAnything else?", [1, 2]),
        ("json", 'The answer is {"a": 1,}!', {"a": 1}),
        ("strip", "  a b \n", "a b"),
        ("lines", "a\n\n  b  \r\nc\u2028d", ["a", "b", "c\u2028d"]),
        ("markdown", "```python\nx = 1\n```", "x = 1"),
        ("markdown", "~~~\na\n~~~\n", "a"),
        ("markdown", "```\nnever closed", "never closed"),
        ("markdown", "no fence", "no fence"),
    ],
)
def test_built_in_functions(name: str, text: str, value: Any) -> None:
    assert BUILT_IN[name](Reply(text)) == value


@pytest.mark.parametrize("text", ["no JSON here", "", "NaN"])
def test_json_fails_where_there_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="JSON"):
        BUILT_IN["json"](Reply(text))


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1,} {"b": 2,}',
        '{"a": 1}\n{"b": 2}',
        "[1, 2], [3]",
        'A draft: {"a": 1}. At last: {"a": 2, "b',
        "Either {a: 1} or {b: 2}.",
        '<think>{"a": 1}</think>',
    ],
)
def test_json_never_makes_one_value_of_two_and_never_takes_a_thought(text: str) -> None:
    with pytest.raises(ValueError, match=r"it is unclear which one is meant|there is no JSON"):
        BUILT_IN["json"](Reply(text))


def test_every_built_in_function_is_described() -> None:
    manual = (Path(__file__).parent.parent / "docs" / "post-processing.md").read_text(encoding="utf-8")
    assert post.described().keys() == BUILT_IN.keys()
    assert all(len(text) > 20 and f"| `{name}` |" in manual for name, text in post.described().items())


def test_a_reply_is_made_by_hand_for_tests_of_functions() -> None:
    reply = Reply("text", {"a": 1}, usage=Usage(1, 2, 0, 0), finish="length", line=3, key="k")
    assert (reply.fields, reply.value, reply.line) == ({"a": 1}, None, 3)
    assert repr(reply) == "Reply('text', line=3)"
    assert Reply("x").fields == {}
