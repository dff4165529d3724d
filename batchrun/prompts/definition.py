"""What a prompt is, once it is read and checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NamedTuple, Protocol

from batchrun.errors import PromptError
from batchrun.models import Endpoint, Request, Row


class RenderError(PromptError):
    """A row cannot become a request; `missing` are the variables without a value."""

    def __init__(self, message: str, hint: str | None = None, missing: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint)
        self.missing = missing


class InputField(NamedTuple):
    """A declared variable; `default` applies if `has_default`."""

    kind: str | None = None
    description: str | None = None
    has_default: bool = False
    default: Any = None


class Message(NamedTuple):
    """A message: role, Jinja template, and the template's first line in the file."""

    role: str
    template: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt that has passed every check."""

    name: str  # the file's, without suffix: safe in a file name
    title: str
    description: str
    path: str
    source: str
    model: str | None
    endpoint: Endpoint | None
    options: Mapping[str, Any]  # body parameters as spelled in the file
    inputs: Mapping[str, InputField]
    outputs: dict[str, Any] | None  # the JSON schema of the reply
    messages: tuple[Message, ...]
    variables: frozenset[str]
    optional: frozenset[str]  # may be absent from a row, because the template tests them
    nullable: frozenset[str]  # may be null
    checks: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict[str, str])  # variables with a kind: image, audio or file

    @property
    def defaults(self) -> dict[str, Any]:
        """Default values by variable."""
        return {name: field.default for name, field in self.inputs.items() if field.has_default}


class Renderer(Protocol):
    """Turns rows into requests; equal rows give equal bytes."""

    def render(self, row: Row) -> Request:
        """Raises RenderError."""
        ...


def nearest(name: str, known: Mapping[str, Any] | frozenset[str] | tuple[str, ...] | list[str]) -> str | None:
    """The known name that was probably meant, whatever its case and separators."""
    plain = {_plain(candidate): candidate for candidate in sorted(known)}
    close = get_close_matches(_plain(name), plain, n=1, cutoff=0.6)
    return plain[close[0]] if close else None


def did_you_mean(name: str, known: Mapping[str, Any] | frozenset[str] | tuple[str, ...] | list[str]) -> str:
    """`; did you mean …?`, or nothing."""
    near = nearest(name, known)
    return f"; did you mean `{near}`?" if near else ""


def _plain(name: str) -> str:
    return name.casefold().replace("_", "").replace("-", "").replace(" ", "")
