"""The renderer of a prompt.

What is the same for every row is computed once. A message of text and variables becomes JSON pieces; any other runs its
template and keeps the last result. Files are represented by digests (`media.filled`).
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from secrets import token_hex
from typing import Any, NoReturn, cast

import orjson
from jinja2 import TemplateError, UndefinedError

from batchrun.models import Endpoint, File, Request, Row, made
from batchrun.prompts import sandbox
from batchrun.prompts.definition import ABSENT, Message, Prompt, RenderError, cell, check_names, fixed_values
from batchrun.prompts.request import frame, members, output_limit
from batchrun.prompts.whitelist import MAX_OUTPUT, TooLargeError
from batchrun.providers import table

# a Markdown picture whose address is a variable
MARKDOWN = re.compile(r"!\[[^\]\n]*\]\(\s*(\{\{-?\s*(\w+)\s*-?\}\})\s*\)")
_GAP = re.compile(r"\{(\w+)(?::(\w*))?\}")


def unwrapped(template: str, names: Mapping[str, str]) -> str:
    """`![…]({{ name }})` of file variables becomes the variable."""
    return MARKDOWN.sub(lambda found: found[1] if found[2] in names else found[0], template)


def part(endpoint: Endpoint, kind: str, file: File, detail: str | None) -> Any:
    """A file as a part of a message. Raises RenderError."""
    shapes = table("media")["parts"][endpoint]
    if file.sha256:
        known = _types()[file.type]
        data = f"sha256:{file.sha256}"
        url, name = f"data:{file.type};base64,{data}", f"{kind}.{known['suffix']}"
        values = {"url": url, "data": data, "format": known.get("format"), "name": name, "detail": detail}
        return _filled(shapes[kind], values)
    if kind != "image" and f"{kind}_link" not in shapes:
        raise RenderError(f"`{file.input}` is an address, which {endpoint} does not accept", "Use the path of a file.")
    return _filled(shapes.get(f"{kind}_link", shapes[kind]), {"url": file.path, "detail": detail})


def content(endpoint: Endpoint, pieces: Sequence[str | Sequence[Any]]) -> Any:
    """One text, or texts and parts."""
    if len(pieces) == 1 and isinstance(pieces[0], str):
        return pieces[0]
    shape = table("media")["parts"][endpoint]["text"]
    found: list[Any] = []
    for piece in pieces:
        if not isinstance(piece, str):
            found += piece
        elif text := piece.strip("\n"):
            found += [_filled(shape, {"text": text})] if text.strip() else []
    return found


def transcription(pieces: Sequence[str | Sequence[Any]]) -> bytes:
    """A recording and prompt as JSON. Raises RenderError."""
    recordings = [part for piece in pieces if not isinstance(piece, str) for part in piece]
    if len(recordings) != 1:
        raise RenderError(f"{len(recordings)} recordings, but a transcription needs one", "Use a row for each.")
    text = "".join(piece for piece in pieces if isinstance(piece, str)).strip()
    return orjson.dumps({"file": recordings[0], **({"prompt": text} if text else {})})[1:-1]


@cache
def _types() -> Mapping[str, Mapping[str, Any]]:
    return {line["type"]: line for line in reversed(table("media")["types"])}


def _filled(shape: Any, values: Mapping[str, str | None]) -> Any:
    # with placeholders filled, or members dropped
    if isinstance(shape, dict):
        made = {name: _filled(member, values) for name, member in cast("dict[str, Any]", shape).items()}
        return {name: member for name, member in made.items() if member is not None}
    gap = _GAP.fullmatch(shape)
    return shape if gap is None else values.get(gap[1]) or gap[2]


# errors of filters on unsuitable values; `truncate` asserts its arguments
_MISFITS = (
    *(TooLargeError, TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError),
    *(AttributeError, AssertionError),
)


def renderer(  # noqa: PLR0913  everything that decides a request, by name
    prompt: Prompt,
    *,
    endpoint: Endpoint,
    model: str | None,
    params: Mapping[str, Any],
    variables: Mapping[str, str],
    columns: Mapping[str, str],
    detail: str | None = None,
) -> "PromptRenderer":
    """`variables` are those of `--set`, `columns` maps variables to columns."""
    check_names(prompt, variables, columns)
    rest = members(prompt, endpoint, model, params)
    values = _Values(prompt, fixed_values(prompt, variables), columns)
    units = [
        sandbox.compiled(message._replace(template=unwrapped(message.template, prompt.files)), prompt.path)
        for message in prompt.messages
    ]
    rich = [not prompt.files.keys().isdisjoint(unit.variables) for unit in units]
    pieces = frame(
        endpoint, rest, [(message.role, parts) for message, parts in zip(prompt.messages, rich, strict=True)]
    )
    return PromptRenderer(endpoint, output_limit(endpoint, rest), values, pieces, units=units, detail=detail)


class _Values:
    def __init__(self, prompt: Prompt, fixed: Mapping[str, Any], columns: Mapping[str, str]) -> None:
        self.prompt = prompt
        self.fixed = fixed
        self._columns = columns
        self._defaults = prompt.defaults

    def source(self, name: str) -> tuple[str, Any]:
        """A variable's column and default."""
        return self._columns.get(name, name), self._defaults.get(name, ABSENT)

    def of(self, name: str, fields: Mapping[str, Any]) -> Any:
        """Or `ABSENT`; a default replaces null."""
        if name in self.fixed:
            return self.fixed[name]
        column, default = self.source(name)
        value = cell(fields, column)
        return default if value is ABSENT or (value is None and default is not ABSENT) else value

    def refuse(self, fields: Mapping[str, Any], otherwise: str = "", *, printed: str | None = None) -> NoReturn:
        """Raises RenderError with the missing variables, else with `otherwise`."""
        names = self.prompt.variables
        missing = tuple(sorted(name for name in names if name == printed or self._lacks(name, fields)))
        if not missing:
            raise RenderError(otherwise)
        listed = ", ".join(self._named(name, fields) for name in missing)
        raise RenderError(
            f"no value for {listed}",
            "Fill the column, select another one with --column NAME=COLUMN, or set a default in the prompt.",
            missing,
        )

    def _lacks(self, name: str, fields: Mapping[str, Any]) -> bool:
        value = self.of(name, fields)
        if value is None:
            return name not in self.prompt.nullable
        return value is ABSENT and name not in self.prompt.optional

    def _named(self, name: str, fields: Mapping[str, Any]) -> str:
        column, _ = self.source(name)
        mapped = f" (column `{column}`)" if column != name else ""
        return f"`{name}`{mapped}" + (", which is null" if cell(fields, column) is None else "")


class _TemplateMessage:
    # a message whose template must run

    def __init__(self, message: Message, unit: sandbox.Compiled, values: _Values) -> None:
        self._message = message
        self._unit = unit
        self._values = values
        self._names = tuple(sorted(unit.variables))
        self._required = unit.variables - values.prompt.nullable
        self._last: tuple[dict[str, Any], bytes] | None = None

    def render(self, fields: Mapping[str, Any], files: Sequence[File] = ()) -> bytes:
        """The text as the inside of a JSON string."""
        values = {name: value for name in self._names if (value := self._values.of(name, fields)) is not ABSENT}
        last = self._last
        if last is not None and values == last[0]:
            return last[1]
        for name in self._required:
            if values.get(name) is None:
                self._values.refuse(fields, printed=name)
        text = orjson.dumps(self._run(values, fields))[1:-1]
        # Only texts are compared later: 1, 1.0 and True are equal and print differently.
        if all(type(value) is str for value in values.values()):
            self._last = values, text
        return text

    def _run(self, values: dict[str, Any], fields: Mapping[str, Any]) -> str:
        try:
            return sandbox.run(self._unit, values)
        except UndefinedError as error:
            self._values.refuse(fields, self._where(error))
        except _MISFITS as error:
            raise RenderError(self._where(error), "Check the value in this row, or test it with `if`.") from None

    def _where(self, error: Exception) -> str:
        line = sandbox.line_of(error, self._message, self._unit)
        return f"{self._values.prompt.path}:{line}: {_error_text(error)}"


def _error_text(error: Exception) -> str:
    # Python versions word a full stack differently
    return "a value is nested too deeply" if isinstance(error, RecursionError) else str(error)


class _FilesMessage(_TemplateMessage):
    # a message whose content is a list of parts

    def __init__(
        self, message: Message, unit: sandbox.Compiled, values: _Values, endpoint: Endpoint, detail: str | None
    ) -> None:
        super().__init__(message, unit, values)
        self._endpoint = endpoint
        self._detail = detail
        self._files = {name: kind for name, kind in values.prompt.files.items() if name in unit.variables}
        self._texts = tuple(sorted(unit.variables - self._files.keys()))
        self._mark = f"\0{token_hex(8)}:"  # random in each process, so that no row can contain it
        self._marked = re.compile(rf"{re.escape(self._mark)}(\w+)\0")

    def render(self, fields: Mapping[str, Any], files: Sequence[File] = ()) -> bytes:
        values = {name: value for name in self._texts if (value := self._values.of(name, fields)) is not ABSENT}
        given = {file.input for file in files}
        inputs = self._values.prompt.inputs
        values |= {name: "" if inputs[name].has_default else None for name in self._files}
        values |= {name: f"{self._mark}{name}\0" for name in self._files if name in given}
        for name in self._required:
            if values.get(name) is None:
                self._values.refuse(fields, printed=name)
        pieces: list[str | list[Any]] = []
        for number, piece in enumerate(self._marked.split(self._run(values, fields))):
            if number % 2 == 0:
                pieces.append(piece)
                continue
            kind = self._files[piece]
            pieces.append([part(self._endpoint, kind, file, self._detail) for file in files if file.input == piece])
        if self._endpoint is Endpoint.TRANSCRIPTIONS:
            return transcription(pieces)
        return orjson.dumps(content(self._endpoint, pieces))


class PromptRenderer:
    def __init__(  # noqa: PLR0913  what a body is made of
        self,
        endpoint: Endpoint,
        limit: int | None,
        values: _Values,
        pieces: list[str],
        *,
        units: Sequence[sandbox.Compiled],
        detail: str | None,
    ) -> None:
        self._endpoint = endpoint
        self._limit = limit
        self._values = values
        self._body: list[bytes] = [b""]
        self._slots: list[tuple[int, str, str, Any]] = []
        self._messages: list[tuple[int, _TemplateMessage]] = []
        self._add(pieces[0].encode())
        for message, unit, piece in zip(values.prompt.messages, units, pieces[1:], strict=True):
            if values.prompt.files.keys().isdisjoint(unit.variables):
                self._message(message, unit)
            else:
                self._messages.append((self._gap(), _FilesMessage(message, unit, values, endpoint, detail)))
            self._add(piece.encode())
        self._maximum = MAX_OUTPUT + len(b"".join(self._body))

    @property
    def fixed(self) -> bytes:
        """Everything before the first variable, if there is one."""
        return self._body[0] if self._places else b""

    @property
    def constant(self) -> int:
        """Bytes that are the same for every row."""
        return sum(map(len, self._body))

    @property
    def variables(self) -> int:
        """Number of pieces that differ between rows."""
        return len(self._places)

    @property
    def _places(self) -> list[int]:
        return sorted(index for index, *_ in [*self._slots, *self._messages])

    def file_values(self, row: Row) -> list[tuple[str, str, Any]]:
        """File variables with their kinds and this row's values."""
        files = self._values.prompt.files
        found = [(name, kind, self._values.of(name, row.fields)) for name, kind in files.items()]
        return [(name, kind, None if value is ABSENT else value) for name, kind, value in found]

    def beginnings(self, row: Row) -> list[bytes]:
        """Cut before each variable but the first."""
        body = self._pieces(row)
        return [b"".join(body[one:other]) for one, other in pairwise([0, *self._places[1:]])]

    def render(self, row: Row) -> Request:
        """Raises RenderError."""
        sent = b"".join(self._pieces(row))
        if len(sent) > self._maximum:
            raise RenderError(str(TooLargeError()))
        return made(Request, (self._endpoint, sent, self._limit, row.files or (), 0, None, None))

    def _pieces(self, row: Row) -> list[bytes]:
        fields, body = row.fields, self._body.copy()
        try:
            for index, name, column, default in self._slots:
                value = fields.get(column)
                if type(value) is not str:
                    value = self._printed(name, column, default, fields)
                body[index] = orjson.dumps(value)[1:-1]
            for index, message in self._messages:
                body[index] = message.render(fields, row.files or ())
        except (TypeError, ValueError, RecursionError) as error:
            raise RenderError(f"the text cannot be sent: {_error_text(error)}") from None
        return body

    def _printed(self, name: str, column: str, default: Any, fields: Mapping[str, Any]) -> str:
        # a member of the column, the default, or what is not text
        value = cell(fields, column)
        if value is ABSENT or value is None:
            if default is ABSENT or default is None:
                self._values.refuse(fields, printed=name)
            value = default
        return str(value)

    def _add(self, constant: bytes) -> None:
        if len(self._body) - 1 in self._places:
            self._body.append(constant)
        else:
            self._body[-1] += constant

    def _gap(self) -> int:
        self._body.append(b"")
        return len(self._body) - 1

    def _message(self, message: Message, unit: sandbox.Compiled) -> None:
        if unit.pieces is None:
            template = _TemplateMessage(message, unit, self._values)
            if unit.variables <= self._values.fixed.keys():
                self._add(template.render({}))
            else:
                self._messages.append((self._gap(), template))
            return
        for piece in unit.pieces:
            self._piece(piece)

    def _piece(self, piece: str | sandbox.Variable) -> None:
        if isinstance(piece, str):
            self._add(orjson.dumps(piece)[1:-1])
        elif piece.name in self._values.fixed:
            self._add(orjson.dumps(str(self._values.fixed[piece.name]))[1:-1])
        else:
            self._slots.append((self._gap(), piece.name, *self._values.source(piece.name)))
