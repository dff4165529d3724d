"""Replies through the functions of a chain, in a thread and in worker processes.

A dict is merged into the output row, another JSON value replaces the reply, None changes nothing.
"""

import json
import time
import traceback
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from batchrun.post.load import Function
from batchrun.post.reply import KEPT, Done, Failure, Item, Reply, Result, Shard, Value

BLOCKING = 0.1  # seconds for which blocking the event loop is reported
_TRACE = 8000  # characters kept of a traceback's end
# left out of tracebacks
_OWN = frozenset(str(Path(__file__).with_name(name)) for name in ("chain.py", "inline.py", "event_loop.py"))
_BATCH_LINE = frozenset({"id", "custom_id", "response", "error"})

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
# as by JSONEncoder, in a microsecond
_ENCODERS: dict[type[Any], Callable[[Any], str]] = {str: json.encoder.encode_basestring, int: int.__repr__}
_new = cast("Any", tuple.__new__)  # pyright: ignore[reportUnknownMemberType]  generic, and here of a type of its own
# Value(…) in a tenth of a microsecond
_value: Callable[[tuple[str | None, str | None]], Value] = partial(_new, Value)
_encode_ascii = json.JSONEncoder(allow_nan=False).encode


class NotJsonError(ValueError):
    pass


class ClashError(ValueError):
    """The row already has the returned member."""


class EndedError(BaseException):
    """A function called `os._exit` in a thread."""


class _OutputRow:
    def __init__(self, item: Item, reply: Reply, *, batch: bool) -> None:
        self.reply = reply
        self._row = item.row
        self._batch = batch
        self._output: str | None = None
        self._added: dict[str, str] | None = None

    def take(self, value: Any) -> None:
        if value is None:
            return
        if isinstance(value, dict):
            members = cast("dict[object, Any]", value)
            added = {self._free(name): encoded(member) for name, member in members.items()}
            self._added = added if self._added is None else self._added | added
        else:
            self._output = encoded(value)
            if isinstance(value, str):
                self.reply.text = value
        self.reply.value = value

    def result(self) -> Value:
        if self._added is None:
            return KEPT if self._output is None else Value(self._output, None)
        members = ", ".join(f"{encoded(name)}: {text}" for name, text in self._added.items())
        return Value(self._output, f"{{{members}}}")

    def _free(self, name: object) -> str:
        if not isinstance(name, str):
            raise NotJsonError(f"a member's name is {name!r}, but names in JSON are text")
        in_row = encoded(name) in self._row and name in self.reply.fields
        if name in _BATCH_LINE if self._batch else in_row:
            raise ClashError(f"the returned member {name!r} is already a column of the row: return another name")
        return name


def encoded(value: object) -> str:
    """Raises NotJsonError, also for NaN and infinity."""
    try:
        text = _ENCODERS.get(type(value), _encode)(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise NotJsonError(f"the returned {type(value).__name__} is not JSON: {error}") from None
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return _encode_ascii(value)  # a lone surrogate, which has to be an escape
    return text


class Chain:
    def __init__(self, functions: Sequence[Function], *, batch: bool) -> None:
        self._functions = functions
        self._batch = batch
        self._calls: list[tuple[str, Callable[..., Any], bool]] | None = None
        self._broken: Failure | None = None
        self._blocked: dict[str, float] = {}
        self._longest = 0.0

    def make(self) -> None:
        # once; an exception fails every row
        if self._calls is not None or self._broken is not None:
            return
        try:
            self._calls = [(function.name, function.make(), function.is_coroutine) for function in self._functions]
        except BaseException as error:  # noqa: BLE001  a user's constructor may raise anything
            self._broken = failure_of(error)

    def run(self, shard: Shard) -> Done:
        self.make()
        calls = self._calls or ()
        results = self._run_single(calls[0][1], shard.items) if len(calls) == 1 else map(self._run_chain, shard.items)
        if shard.stop_after is not None:
            return _each_timed(results, shard.stop_after)
        began = time.perf_counter()
        return Done(list(results), time.perf_counter() - began, 0.0, {})

    def close(self) -> None: ...

    def _run_chain(self, item: Item) -> Result:
        if self._calls is None:
            return self._broken or KEPT
        try:
            row = _OutputRow(item, Reply.of(item), batch=self._batch)
            for _, call, _ in self._calls:
                row.take(call(row.reply))
            return row.result()
        except BaseException as error:  # noqa: BLE001  a user's function may raise anything, and it fails its row only
            return failure_of(error)

    def _run_single(self, call: Callable[[Reply], Any], items: Iterable[Item]) -> Iterator[Result]:
        for item in items:
            try:
                value = call(reply := Reply.of(item))
                if value is None:
                    result: Result = KEPT
                elif not isinstance(value, dict):
                    result = _value((encoded(value), None))
                else:
                    row = _OutputRow(item, reply, batch=self._batch)
                    row.take(cast("dict[object, Any]", value))
                    result = row.result()
            except BaseException as error:  # noqa: BLE001  as above
                result = failure_of(error)
            yield result

    async def awaited(self, item: Item) -> Result:
        """For a row with coroutine functions; raises nothing."""
        if self._calls is None:
            return self._broken or KEPT
        try:
            row = _OutputRow(item, Reply.of(item), batch=self._batch)
            for name, call, is_coroutine in self._calls:
                value = call(row.reply)
                row.take(await _Timed(value, name, self._note) if is_coroutine else value)
            return row.result()
        except BaseException as error:  # noqa: BLE001  as above
            return failure_of(error)

    def noted(self) -> tuple[float, dict[str, float]]:
        # `longest` and `blocked` of `Done` since the last call
        noted = self._longest, self._blocked
        self._longest, self._blocked = 0.0, {}
        return noted

    def _note(self, name: str, seconds: float, of_work: float) -> None:
        self._longest = max(self._longest, of_work)
        if seconds > BLOCKING:
            self._blocked[name] = max(self._blocked.get(name, 0.0), seconds)


def _each_timed(each: Iterator[Result], stop_after: float) -> Done:
    # for so many seconds beside the longest row
    results: list[Result] = []
    longest = longest_work = 0.0
    began = before = time.perf_counter()
    began_work = before_work = time.thread_time()
    for result in each:
        results.append(result)
        now, work = time.perf_counter(), time.thread_time()
        longest, before = max(longest, now - before), now
        longest_work, before_work = max(longest_work, work - before_work), work
        if now - began - longest > stop_after:
            break
    return Done(results, before - began, longest_work, {}, processor=before_work - began_work)


class _Timed:
    def __init__(self, awaited: Awaitable[Any], name: str, note: Callable[[str, float, float], None]) -> None:
        self._awaited = awaited
        self._name = name
        self._note = note

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._awaited.__await__()
        advance: Callable[[], Any] = steps.__next__
        while True:
            began, worked = time.perf_counter(), time.thread_time()
            try:
                waits_for = advance()
            except StopIteration as end:
                return end.value
            finally:
                self._note(self._name, time.perf_counter() - began, time.thread_time() - worked)
            try:
                yield waits_for
                advance = steps.__next__
            except BaseException as error:  # noqa: BLE001  a cancellation or a timeout, passed on to the coroutine
                advance = partial(steps.throw, error)


def timed_out(seconds: float) -> Failure:
    return Failure("post: timed out", f"no result after {seconds:g} s (--post-timeout)")


def failure_of(error: BaseException) -> Failure:
    # with the place in the user's code
    name = type(error).__name__
    if isinstance(error, NotJsonError | ClashError):
        cause = "post: not JSON" if isinstance(error, NotJsonError) else "post: column exists"
        return Failure(cause, str(error))
    cause = "post: worker died" if isinstance(error, EndedError) else f"post: {name}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename not in _OWN]
    text = _text_of(error)
    message = text if isinstance(error, EndedError) else f"{name}: {text}" if text else name
    if frames:
        last = next((frame for frame in reversed(frames) if "site-packages" not in frame.filename), frames[-1])
        message += f" ({Path(last.filename).name}:{last.lineno} in {last.name})"
    trace = "Traceback (most recent call last):\n" + "".join(traceback.format_list(frames)) + f"{name}: {text}"
    return Failure(cause, message, trace[-_TRACE:])


def _text_of(error: BaseException) -> str:
    try:
        return str(error)[:2000]
    except Exception:  # noqa: BLE001  a user's own exception may fail to convert
        return ""
