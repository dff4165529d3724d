"""Defective replies: the faults whose answer is a well-formed 200."""

from collections.abc import Callable
from typing import Any

from batchrun.sim.http import Answer
from batchrun.sim.replies import dump

_PAGE = b"<html>\r\n<head><title>Please sign in</title></head>\r\n<body><h1>Please sign in</h1></body>\r\n</html>\r\n"
BODIES: dict[str, Callable[[bytes], Answer]] = {
    "html": lambda _: Answer(200, _PAGE, kind="text/html; charset=utf-8"),
    "empty": lambda _: Answer(200, b""),
    "null": lambda _: Answer(200, b"null"),
    "list": lambda _: Answer(200, b"[]"),
    "cut": lambda whole: Answer(200, whole[: len(whole) // 2]),
    "badutf8": lambda whole: Answer(200, whole.replace(b"[simulated]", b"[simulated\xff\xfe", 1)),
}
_SORRY = "I'm sorry, but I can't help with that. (simulated)"


def _no_choices(value: dict[str, Any]) -> None:
    for name in ("choices", "output", "data"):
        if name in value:
            value[name] = []
    value.pop("text", None)


def _no_content(value: dict[str, Any]) -> None:
    _each(value, lambda choice: _put(choice, None), lambda message: message.update(content=[]))
    for item in value.get("data", ()):
        item["embedding"] = None
    if "text" in value:
        value["text"] = None


def _no_usage(value: dict[str, Any]) -> None:
    del value["usage"]


def _refusal(value: dict[str, Any]) -> None:
    def refuse(choice: dict[str, Any]) -> None:
        _put(choice, None)
        if "message" in choice:
            choice["message"]["refusal"] = _SORRY

    _each(value, refuse, lambda message: message.update(content=[{"type": "refusal", "refusal": _SORRY}]))


def _filter(value: dict[str, Any]) -> None:
    _each(value, lambda choice: choice.update(finish_reason="content_filter"), lambda _: None)
    if value.get("object") == "response":
        value.update(status="incomplete", incomplete_details={"reason": "content_filter"})


def _invalid(value: dict[str, Any]) -> None:
    broken = '[simulated] {"not": "closed"'
    _each(value, lambda choice: _put(choice, broken), lambda message: message["content"][0].update(text=broken))
    if "text" in value:
        value["text"] = broken


VALUES: dict[str, Callable[[dict[str, Any]], None]] = {
    "nochoices": _no_choices,
    "nocontent": _no_content,
    "nousage": _no_usage,
    "refusal": _refusal,
    "filter": _filter,
    "invalid": _invalid,
}


def defective(name: str, value: dict[str, Any]) -> Answer:
    if change := VALUES.get(name):
        change(value)
    whole = dump(value)
    change_body = BODIES.get(name)
    return change_body(whole) if change_body else Answer(200, whole)


def _each(
    value: dict[str, Any],
    on_choice: Callable[[dict[str, Any]], None],
    on_message: Callable[[dict[str, Any]], None],
) -> None:
    for choice in value.get("choices", ()):
        on_choice(choice)
    for message in value.get("output", ()):
        on_message(message)


def _put(choice: dict[str, Any], text: str | None) -> None:
    if "message" in choice:
        choice["message"]["content"] = text
    else:
        choice["text"] = text
