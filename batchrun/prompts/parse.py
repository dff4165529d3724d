"""Finds and reads prompt files: Prompty, GitHub's `.prompt.yml`, plain text and Markdown.

Prompty (https://github.com/microsoft/prompty, `spec/spec.md`, section 2) is restricted for untrusted prompts and rows:
roles are split before rendering, `${env:…}`, `${file:…}` and `connection` are not used, unknown keys are errors.
"""

import errno
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple, cast

from batchrun import user_directories
from batchrun.display import printable
from batchrun.errors import PromptError
from batchrun.models import Endpoint
from batchrun.prompts.definition import Message, Prompt, did_you_mean
from batchrun.prompts.fields import FILE_KINDS, Parts, Place, inputs_of, known_keys, mapping_of, text_of, unresolved
from batchrun.prompts.schema import output_schema

MAX_SOURCE = 1_000_000
SUFFIXES = (".prompty", ".prompt.yml", ".prompt.yaml", ".md", ".txt")

_FENCE = re.compile(r"(?:---|\+\+\+)[ \t]*")
_MISPLACED = re.compile(r"^(?:name|model|inputs):", re.MULTILINE)
_ROLE = re.compile(r"[ \t]*+#?[ \t]*+(system|developer|user|assistant)[ \t]*+(\[.*\])?[ \t]*+:[ \t]*", re.IGNORECASE)

_KEYS = [
    *("$schema", "name", "displayName", "title", "description", "version", "authors", "tags", "metadata", "sample"),
    *("model", "inputs", "outputs", "checks", "template", "tools", "parameters", "environment"),
]
_MODEL_KEYS = ["id", "provider", "apiType", "connection", "options", "api", "configuration", "parameters", "response"]

_ENDPOINTS: Mapping[str, Endpoint] = {
    "chat": Endpoint.CHAT,
    "agent": Endpoint.CHAT,
    "responses": Endpoint.RESPONSES,
    "embedding": Endpoint.EMBEDDINGS,
    "embeddings": Endpoint.EMBEDDINGS,
    "completion": Endpoint.COMPLETIONS,
    "completions": Endpoint.COMPLETIONS,
    "transcription": Endpoint.TRANSCRIPTIONS,
    "transcriptions": Endpoint.TRANSCRIPTIONS,
}
INLINE = "prompt"  # the name of a prompt written on the command line
_TEXT = "a text with `{{ variables }}` is itself a prompt"  # hint
_PACKAGE = Path(__file__).resolve().parent.parent


class _Model(NamedTuple):
    id: str | None
    endpoint: Endpoint | None
    options: dict[str, Any]
    old: bool


def stem_of(path: str) -> str:
    name = PurePath(path).name
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return PurePath(name).stem or "prompt"


def parse(source: str, *, path: str) -> Prompt:
    """By the suffix of `path`. Raises PromptError."""
    if len(source) > MAX_SOURCE:
        raise PromptError(
            f"{path}: larger than {MAX_SOURCE:,} characters", "A prompt is a template; put data into rows."
        )
    text = source.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        raise PromptError(f"{path}: not a text file")
    suffix = path.lower()
    if suffix.endswith(".prompty"):
        parts = _prompty(text, path)
    elif suffix.endswith((".yml", ".yaml")):
        from batchrun.prompts import yaml_text  # noqa: PLC0415  YAML

        parts = yaml_text.github_parts(text, path)
    else:
        parts = _plain(text, path)
    return _checked(parts, source, path)


def _checked(parts: Parts, source: str, path: str) -> Prompt:
    if not parts.messages:
        raise PromptError(
            f"{path}: the prompt is empty", "Write the instructions, with `{{ text }}` for the row's text."
        )
    from batchrun.prompts import sandbox  # noqa: PLC0415  Jinja2

    uses = [sandbox.check(message, path) for message in parts.messages]
    used = frozenset[str]().union(*(use.variables for use in uses))
    files = {name: given.kind for name, given in parts.inputs.items() if given.kind in FILE_KINDS and name in used}
    for message in parts.messages if files else ():
        sandbox.check_files(message, frozenset(files), path)
    name = stem_of(path)
    return Prompt(
        name=name,
        title=parts.title or name,
        description=parts.description,
        path=path,
        source=source,
        model=parts.model,
        endpoint=parts.endpoint,
        options=parts.options,
        inputs=parts.inputs,
        outputs=parts.outputs,
        messages=parts.messages,
        variables=used,
        optional=frozenset[str]().union(*(use.optional for use in uses)),
        nullable=frozenset[str]().union(*(use.nullable for use in uses)),
        checks=parts.checks,
        files={name: str(kind) for name, kind in files.items()},
    )


def _plain(text: str, path: str) -> Parts:
    head, fence, _ = text.lstrip().partition("\n---\n")
    if fence and head.startswith("---\n") and _MISPLACED.search(head):
        raise PromptError(
            f"{path}: starts with front matter, which only `.prompty` files have", "Rename it to `.prompty`."
        )
    message = _message("user", text.split("\n"), 1)
    return Parts(messages=(message,) if message else ())


def _prompty(text: str, path: str) -> Parts:
    from batchrun.prompts.yaml_text import read_mapping  # noqa: PLC0415  YAML

    head, body, body_line = _front_matter(text, path)
    front, node = read_mapping(head, path=path, first_line=2) if head is not None else ({}, None)
    place = Place(path, node, first_line=2)
    known_keys(front, _KEYS, place, "the front matter")
    _refuse_unsupported(front, place)
    model = _model(front, place)
    return Parts(
        title=text_of(front, "displayName", place) or text_of(front, "name", place),
        description=text_of(front, "description", place),
        model=model.id,
        endpoint=model.endpoint,
        options=model.options,
        inputs=inputs_of(front.get("inputs"), place.under("inputs"), samples=model.old or "sample" in front),
        outputs=output_schema(front.get("outputs"), place.under("outputs")),
        checks=_checks(front.get("checks"), place.under("checks")),
        messages=split_roles(body, body_line, path),
    )


def _checks(value: Any, place: Place) -> tuple[str, ...]:
    # The plan checks whether they exist.
    names = value.split(",") if isinstance(value, str) else [] if value is None else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in cast("list[Any]", names)):
        raise place.error("`checks` must be names of checks", "For example: checks: [placeholders, numbers]")
    return tuple(name.strip() for name in cast("list[str]", names))


def _front_matter(text: str, path: str) -> tuple[str | None, str, int]:
    # front matter or None, body, and its first line
    lines = text.split("\n")
    start = next((number for number, line in enumerate(lines) if line.strip()), 0)
    if not _FENCE.fullmatch(lines[start].lstrip()):
        return None, text, 1
    for number in range(start + 1, len(lines)):
        if _FENCE.fullmatch(lines[number]):
            # Empty lines stand for those above, so that YAML counts lines as the file does.
            return "\n" * start + "\n".join(lines[start + 1 : number]), "\n".join(lines[number + 1 :]), number + 2
    raise PromptError(f"{path}:{start + 1}: the front matter has no end", "Close it with a line `---`.", start + 1)


def split_roles(body: str, first_line: int, path: str) -> tuple[Message, ...]:
    """Text before the first role line is the system's, without any the user's."""
    role, start, lines = "system", 0, body.split("\n")
    messages: list[Message | None] = []
    marks = 0
    for number, line in enumerate([*lines, None]):
        mark = _ROLE.fullmatch(line) if line is not None else None
        if line is not None and mark is None:
            continue
        if mark is not None and mark[2]:
            raise PromptError(
                f"{path}:{first_line + number}: a role line has no attributes here",
                f"Write `{mark[1]}:`.",
                first_line + number,
            )
        last = role if marks or line is not None else "user"
        messages.append(_message(last, lines[start:number], first_line + start))
        if mark is not None:
            role, start, marks = mark[1].lower(), number + 1, marks + 1
    return tuple(message for message in messages if message is not None)


def _message(role: str, lines: list[str], first_line: int) -> Message | None:
    start, end = 0, len(lines)
    while start < end and not lines[start].strip():
        start += 1
    while end > start and not lines[end - 1].strip():
        end -= 1
    return Message(role, "\n".join(lines[start:end]), first_line + start) if start < end else None


def _refuse_unsupported(front: dict[str, Any], place: Place) -> None:
    if front.get("tools"):
        hint = "To let the model answer with tool calls: --param tools=JSON."
        raise place.error("`tools` are not supported", hint, key="tools")
    template = front.get("template")
    if template is None:
        return
    if isinstance(template, dict):
        node = cast("dict[str, Any]", template)
        known_keys(node, ["format", "parser", "type"], place.under("template"), "`template`")
        template = node.get("format", node.get("type", "jinja2"))
    if isinstance(template, dict):
        template = cast("dict[str, Any]", template).get("kind", "jinja2")
    if template != "jinja2":
        raise place.error(f"template format {template!r} is not supported", "Use `format: jinja2`.", key="template")


def _model(front: dict[str, Any], place: Place) -> _Model:
    model = front.get("model")
    parameters = mapping_of(front, "parameters", place)
    place = place.under("model")
    if model is None or isinstance(model, str):
        return _Model(_identifier(model, place), None, _options(parameters, place), False)
    if not isinstance(model, dict):
        raise place.error("`model` must be a name or a mapping with `id`")
    node = cast("dict[str, Any]", model)
    known_keys(node, _MODEL_KEYS, place, "`model`")
    options = parameters | mapping_of(node, "parameters", place) | mapping_of(node, "options", place)
    configuration = mapping_of(node, "configuration", place)
    name = node.get("id") or configuration.get("model") or configuration.get("azure_deployment")
    old = any(key in node for key in ("api", "configuration", "parameters", "response"))
    return _Model(_identifier(name, place), _endpoint(node, place), _options(options, place), old)


def _identifier(name: Any, place: Place) -> str | None:
    if name is None or (isinstance(name, str) and "${" in name):
        return None
    if not isinstance(name, str):
        raise place.error(f"the model must be a text, not {name!r}")
    return name.strip() or None


def _endpoint(node: dict[str, Any], place: Place) -> Endpoint | None:
    api = node.get("apiType", node.get("api"))
    if api is None:
        return None
    if not isinstance(api, str) or api.lower() not in _ENDPOINTS:
        key = "apiType" if "apiType" in node else "api"
        raise place.error(f"the API {api!r} is not supported", f"Known: {', '.join(_ENDPOINTS)}.", key=key)
    return _ENDPOINTS[api.lower()]


def _options(options: dict[str, Any], place: Place) -> dict[str, Any]:
    options = dict(options)
    more = options.pop("additionalProperties", None)
    if isinstance(more, dict):
        options |= {str(key): value for key, value in cast("dict[Any, Any]", more).items()}
    for name, value in options.items():
        unresolved(value, f"the option `{name}`", place)
    return options


class Listing(NamedTuple):
    name: str
    description: str
    variables: tuple[str, ...]
    path: Path
    error: str | None  # set if the prompt cannot be used


def default_places() -> tuple[Path, ...]:
    installed = _PACKAGE / "_prompts"
    shipped = installed if installed.is_dir() else _PACKAGE.parent / "prompts"
    user = user_directories.configuration()
    return (Path("prompts"), *(() if user is None else (user / "prompts",)), shipped)


def load(name: str, *, places: Sequence[Path] | None = None) -> Prompt:
    """By name, path or text. Raises PromptError."""
    if "{{" in name:
        return parse(name, path=INLINE)
    path = _find(name, default_places() if places is None else places)
    return parse(_read(path), path=str(path))


def available(places: Sequence[Path] | None = None) -> list[Listing]:
    """Broken ones included."""
    found: dict[str, Path] = {}
    for path in _files(default_places() if places is None else places):
        found.setdefault(stem_of(path.name), path)
    return [_listing(name, path) for name, path in sorted(found.items())]


def _listing(name: str, path: Path) -> Listing:
    try:
        prompt = parse(_read(path), path=str(path))
    except PromptError as error:
        return Listing(name, "", (), path, error.message)
    return Listing(name, prompt.description, tuple(sorted(prompt.variables)), path, None)


def _find(name: str, places: Sequence[Path]) -> Path:
    given = Path(name)
    is_file = os.path.isfile(name)  # Path's raises for a text that is too long to be a name
    if len(given.parts) > 1 or (given.suffix and is_file):
        return given
    files = list(_files(places))
    for path in files:
        if name in {stem_of(path.name), path.name}:
            return path
    if is_file:
        return given
    names = sorted({stem_of(path.name) for path in files})
    known = f"Known prompts: {', '.join(names)}. " if names else ""
    raise PromptError(
        f"there is no prompt `{printable(name, 80)}`{did_you_mean(name, names)}",
        f"{known}For your own file, use its path; {_TEXT}.",
    )


def _files(places: Sequence[Path]) -> Iterator[Path]:
    for place in places:
        try:
            entries = sorted(place.iterdir())
        except OSError:
            continue
        for suffix in SUFFIXES:
            for path in entries:
                if path.name.lower().endswith(suffix) and not path.name.startswith(".") and path.is_file():
                    yield path


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(4 * MAX_SOURCE + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
            hint = f"See `batchrun prompts` for the names; {_TEXT}."
            raise PromptError(f"there is no prompt file {printable(str(path), 80)}", hint) from None
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise PromptError(f"the prompt file {path} cannot be read: {reason}") from None
    if len(data) > 4 * MAX_SOURCE:
        raise PromptError(f"{path}: too large for a prompt")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptError(f"{path}: not UTF-8 (byte {error.start + 1})", "Save the file as UTF-8.") from None
