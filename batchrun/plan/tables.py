"""`NAME=VALUE` options and their tables."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from batchrun.errors import RefusedError

_WORD = re.compile(r"[A-Za-z][\w.:/-]*")
_MISSPELT = {"True": "true", "False": "false", "None": "null", "NaN": None, "Infinity": None}
_OWN_OPTION = {
    "model": "--model",
    "messages": "a prompt (--prompt)",
    "input": "a prompt (--prompt)",
    "prompt": "a prompt (--prompt)",
}
_REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*)\}", re.ASCII)
_SECRET = re.compile(
    r"authorization|cookie|credential|password|passwd|secret|token|(api|access|auth|private)[-_]?key", re.I
)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUES = {"--param": "JSON", "--column": "COLUMN"}
_EXAMPLES = {
    "--param": "temperature=0.2",
    "--column": "text=review",
    "--set": "language=French",
    "--header": "'X-Team: search'",
}
_CONNECTION = {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}


def pairs(texts: Sequence[str], option: str, separators: str = "=") -> dict[str, str]:
    """Raises RefusedError for a missing or repeated name."""
    table: dict[str, str] = {}
    for text in texts:
        name, _, value = _split(text, separators)
        if name is None:
            form = f"NAME{separators[-1]}{_VALUES.get(option, 'VALUE')}"
            raise RefusedError(f"{option} must be {form}", f"for example {option} {_EXAMPLES[option]}")
        if name in table:
            raise RefusedError(f"{option} {name} appears twice", "keep one of them")
        table[name] = value
    return table


def _split(text: str, separators: str) -> tuple[str | None, str, str]:
    places = [place for separator in separators if (place := text.find(separator)) >= 0]
    place = min(places, default=-1)
    name = text[:place].strip() if place > 0 else ""
    return (name, text[place], text[place + 1 :]) if name else (None, "", "")


def parse_param(name: str, text: str) -> Any:
    """A JSON value, or a bare word. Raises RefusedError."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        if _WORD.fullmatch(text) and text not in _MISSPELT:
            return text
    right = _MISSPELT.get(text)
    raise RefusedError(
        f"--param {name}: not a JSON value: {text}",
        f"did you mean {name}={right}?"
        if right
        else f"""put JSON quotes around a text: --param '{name}="some text"'""",
    )


def _refuse_constant(text: str) -> Any:
    raise ValueError(text)


def check_params(params: Mapping[str, Any]) -> None:
    """Raises RefusedError."""
    for name in params:
        if name in _OWN_OPTION:
            raise RefusedError(f"{name} is not a parameter", f"use {_OWN_OPTION[name]}")
    if params.get("stream"):
        raise RefusedError("stream cannot be switched on: replies are read in full", "omit the parameter")
    try:
        json.dumps(params, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RefusedError(f"a parameter is not JSON: {error}", "dates and infinities must be text") from error


def check_headers(headers: Mapping[str, str]) -> None:
    """Raises RefusedError, also for secrets in plain text."""
    seen: set[str] = set()
    for name, value in headers.items():
        if name.lower() in seen:
            raise RefusedError(f"header {name} appears twice", "keep one of them; upper and lower case are the same")
        seen.add(name.lower())
        if not _HEADER_NAME.fullmatch(name):
            raise RefusedError(f"header name not allowed: {name!r}", "letters, digits and dashes, as in X-Team")
        if name.lower() in _CONNECTION:
            raise RefusedError(f"header {name} belongs to the connection and cannot be set")
        if not (value.isascii() and value.isprintable()):
            raise RefusedError(f"header {name}: the value has characters that cannot be sent", "printable ASCII only")
        if _SECRET.search(name) and not _REFERENCE.search(value):
            raise RefusedError(
                f"header {name} looks like a secret, which is not accepted in plain text",
                f"put it into a variable and refer to it: --header '{name}: ${{MY_VARIABLE}}'",
            )


def expand_headers(headers: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Replaces `${NAME}`; never to be stored or shown. Raises RefusedError."""
    return {name: _REFERENCE.sub(_lookup(name, environ), value) for name, value in headers.items()}


def _lookup(header: str, environ: Mapping[str, str]) -> Callable[[re.Match[str]], str]:
    def value(match: re.Match[str]) -> str:
        found = environ.get(match[1], "").strip()
        if not found:
            raise RefusedError(f"header {header} refers to ${{{match[1]}}}, which is not set", f"export {match[1]}=…")
        if not (found.isascii() and found.isprintable()):
            raise RefusedError(f"header {header}: ${{{match[1]}}} has characters that cannot be sent")
        return found

    return value


def secrets_of(headers: Mapping[str, str], environ: Mapping[str, str]) -> tuple[str, ...]:
    names = [name for value in headers.values() for name in _REFERENCE.findall(value)]
    return tuple(environ[name].strip() for name in names if environ.get(name, "").strip())


def texts(value: Any, where: str) -> dict[str, str]:
    """Numbers become text. Raises RefusedError."""
    table = cast("dict[str, Any]", value)
    for name, item in table.items():
        if isinstance(item, bool) or not isinstance(item, str | int | float):
            raise RefusedError(f"{name} in {where} must be text")
    return {name: str(item) for name, item in table.items()}
