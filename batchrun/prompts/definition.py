"""What a prompt is, once it is read and checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NamedTuple, Protocol

from batchrun.errors import PromptError
from batchrun.models import Endpoint, Request, Row


class RenderError(PromptError):
    """A row cannot become a request. `missing` names the variables it has no value for, where that is the cause."""

    def __init__(self, message: str, hint: str | None = None, missing: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint)
        self.missing = missing


class InputField(NamedTuple):
    """A declared variable. `default` counts only where `has_default`; a sample is never a default."""

    kind: str | None = None
    description: str | None = None
    has_default: bool = False
    default: Any = None


class Message(NamedTuple):
    """One message: its role, its Jinja template, and the 1-based line of the file where the template starts."""

    role: str
    template: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt that has passed every check.

    `name` is the file's name without its suffix: what `load` finds it by, and safe in a file name. `title` is the
    `name` of its front matter. `options` are the body parameters as the file spells them, `outputs` the JSON schema
    of the reply, `checks` the names of checks that it has to pass. `files` are the variables that name files, each with its
    kind: image, audio or file. A variable in `optional` may be absent from a row, one in `nullable` may be null, because the
    template asks for it first.
    """

    name: str
    title: str
    description: str
    path: str
    source: str
    model: str | None
    endpoint: Endpoint | None
    options: Mapping[str, Any]
    inputs: Mapping[str, InputField]
    outputs: dict[str, Any] | None
    messages: tuple[Message, ...]
    variables: frozenset[str]
    optional: frozenset[str]
    nullable: frozenset[str]
    checks: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def defaults(self) -> dict[str, Any]:
        """The values of variables that a row need not have."""
        return {name: field.default for name, field in self.inputs.items() if field.has_default}


class Renderer(Protocol):
    """Turns rows into requests; the same row always into the same bytes."""

    def render(self, row: Row) -> Request:
        """The request of this row. Raises RenderError."""
        ...


def nearest(name: str, known: Mapping[str, Any] | frozenset[str] | tuple[str, ...] | list[str]) -> str | None:
    """The known name that was probably meant: letter case and separators count little."""
    plain = {_plain(candidate): candidate for candidate in sorted(known)}
    close = get_close_matches(_plain(name), plain, n=1, cutoff=0.6)
    return plain[close[0]] if close else None


def did_you_mean(name: str, known: Mapping[str, Any] | frozenset[str] | tuple[str, ...] | list[str]) -> str:
    """`; did you mean …?`, or nothing where no known name is near."""
    near = nearest(name, known)
    return f"; did you mean `{near}`?" if near else ""


def _plain(name: str) -> str:
    return name.casefold().replace("_", "").replace("-", "").replace(" ", "")
