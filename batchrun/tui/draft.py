"""The run that is being set up. Loaded after the first frame."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from batchrun import prompts
from batchrun.errors import BatchrunError, InputError, PromptError, RefusedError
from batchrun.filetypes import type_of
from batchrun.journal import Reader, Record, Wanted
from batchrun.models import Endpoint, Kind, Row, State
from batchrun.plan import Plan, plan_from_json
from batchrun.plan.inputs import open_documents, open_rows
from batchrun.plan.outputs import default_format, default_output, is_document
from batchrun.plan.profiles import DEFAULT, find_profile
from batchrun.plan.rendering import FilesRenderer
from batchrun.plan.sources import gather
from batchrun.prompts import Prompt, Renderer, RenderError
from batchrun.report import row_text
from batchrun.rows import files_of
from batchrun.tui.setup_flags import Head

HEAD = 100
ROOM = 4_000_000
SHOWN = 5
STREAM = "-"
LOOKED_AT = 64
LONGEST = 1_000_000


class Source(NamedTuple):
    path: Path | None = None
    text: str = ""
    trouble: BatchrunError | None = None


class RequestParts(NamedTuple):
    prompt: Prompt | None
    kind: Kind
    model: str | None
    variables: Mapping[str, str]
    columns: Mapping[str, str]
    input: str = ""


@dataclass(frozen=True, slots=True)
class Preview:
    text: str
    tokens: int = 0
    missing: tuple[str, ...] = ()
    trouble: str | None = None


class Draft:
    def __init__(self) -> None:
        self.prompt: Prompt | None = None
        self.prompt_trouble: BatchrunError | None = None
        self.head: Head | None = None
        self.head_trouble: BatchrunError | None = None
        self._source = Source()
        self._text = ""
        self._unsaved: dict[Path, str] = {}

    def take_prompt(self, source: Source) -> str:
        self._source = source
        text = source.text if source.path is None else self._unsaved.get(source.path, source.text)
        self.edit(text)
        return text

    def edit(self, text: str) -> None:
        path, self._text = self._source.path, text
        self.prompt, self.prompt_trouble = None, self._source.trouble
        if path is None:
            return
        if self.edited:
            self._unsaved[path] = text
        else:
            self._unsaved.pop(path, None)
        try:
            self.prompt, self.prompt_trouble = prompts.parse(text, path=str(path)), None
        except PromptError as error:
            self.prompt_trouble = error

    def take_head(self, head: Head | None, trouble: BatchrunError | None) -> None:
        self.head, self.head_trouble = head, trouble

    @property
    def path(self) -> Path | None:
        return self._source.path

    @property
    def shown_path(self) -> str:
        """The path, or only the name outside the current directory."""
        path = self._source.path or Path()
        if path.is_absolute():
            return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name
        return str(path)

    @property
    def edited(self) -> bool:
        return self.path is not None and self._text != self._source.text

    @property
    def unsaved(self) -> tuple[Path, ...]:
        return tuple(map(place_to_save, self._unsaved))

    def save_all(self) -> None:
        for path, text in tuple(self._unsaved.items()):
            if path == self.path:
                self.save()
            else:
                _write(place_to_save(path), text)
                del self._unsaved[path]

    def save(self) -> Path | None:
        """Raises OSError and UnicodeEncodeError."""
        if self.path is None:
            return None
        target = place_to_save(self.path)
        _write(target, self._text)
        self._unsaved.pop(self.path, None)
        self._source = Source(target, self._text)
        return target

    def preview(self, row: Row | None, model: str | None, flags: Mapping[str, Mapping[str, str]]) -> Preview:
        kind, name = (Kind.ROWS, "") if self.head is None else (self.head.kind, self.head.name)
        return preview(
            RequestParts(self.prompt, kind, model, flags.get("set", {}), flags.get("columns", {}), name), row
        )

    @property
    def output_name(self) -> str:
        head = self.head
        if head is None:
            return "INPUT.PROMPT.jsonl"
        name = self.prompt.name if self.prompt is not None else None
        place = Path(head.name)
        form = place.suffix[1:] if is_document(head.format) else default_format(head.kind, head.format)
        return default_output(place.name.partition(".")[0], head.kind, name, form)


def read_prompt(name: str) -> Source:
    """An invalid file comes with its text."""
    try:
        prompt = prompts.load(name)
    except PromptError as error:
        return _broken(Path(name), error)
    return Source(Path(prompt.path), prompt.source)


def _broken(path: Path, error: PromptError) -> Source:
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() and path.stat().st_size < LONGEST else ""
    except (OSError, ValueError):
        text = ""
    return Source(path if text else None, text, error)


def read_head(source: str, flags: Mapping[str, object], *, has_prompt: bool) -> Head:
    """Raises RefusedError."""
    if source == STREAM:
        raise InputError("the app cannot read standard input", "name a file, or run it without the app")
    settings = replace(gather(flags).settings, input=source)
    sent = has_prompt and _is_sent(source)
    found = open_documents(settings) or open_rows(settings, source, has_prompt=has_prompt, takes_files=sent)
    return Head(
        found.name, found.kind, found.format, found.columns, found.id_column, found.size, found.head(HEAD, ROOM)
    )


def _is_sent(source: str) -> bool:
    path = Path(source).expanduser()
    try:
        first = path if path.is_file() else files_of(source)[0][1]
        with first.open("rb") as stream:
            found = type_of(stream.read(LOOKED_AT))
    except (OSError, BatchrunError):
        return False
    return found is not None and found.kind in ("image", "audio")


def default_profile(flags: Mapping[str, object]) -> str:
    try:
        return gather(flags).settings.profile
    except BatchrunError:
        return DEFAULT


def prompt_names() -> list[str]:
    return [found.name for found in prompts.available()]


def plan_of(journal: Path) -> Plan:
    """Raises StorageError."""
    with Reader.open(journal) as reader:
        return plan_from_json(reader.meta.plan)


def answers(journal: Path, positions: tuple[int, ...] | None) -> list[tuple[Record, str]]:
    """The rows at these positions, else the first done ones. Raises StorageError."""
    with Reader.open(journal) as reader:
        if positions is None:
            done = (position for page in reader.positions(Wanted(state=State.DONE)) for position in page)
            positions = tuple(islice(done, SHOWN))
        found = [reader.row(seq=line.seq) for line in reader.lines_at(positions)]
    return [(record, row_text.reply_text(record)) for record in found if record is not None]


def preview(parts: RequestParts, row: Row | None) -> Preview:
    """Missing variables appear as ⟨name⟩."""
    if row is None:
        return Preview("", trouble="choose an input to see a request")
    try:
        return _previewed(parts, row)
    except RenderError as error:
        return _with_placeholders(parts, row, error)
    except BatchrunError as error:
        return Preview("", trouble=error.message)


def _with_placeholders(parts: RequestParts, row: Row, error: RenderError) -> Preview:
    filled = {**row.fields, **{name: f"⟨{name}⟩" for name in error.missing}}
    mapped = {name: column for name, column in parts.columns.items() if name not in error.missing}
    try:
        shown = _previewed(parts._replace(columns=mapped), row._replace(fields=filled))
    except BatchrunError:
        return Preview("", missing=error.missing, trouble=error.message)
    return Preview(shown.text, shown.tokens, error.missing, error.message)


def _previewed(parts: RequestParts, row: Row) -> Preview:
    request = _renderer(parts).render(row)
    return Preview(row_text.readable(request), row_text.tokens(len(request.body)))


def _renderer(parts: RequestParts) -> Renderer:
    prompt = parts.prompt
    if parts.kind is Kind.BATCH:
        return prompts.batch_renderer()
    if prompt is None and parts.kind is Kind.BODIES:
        return prompts.body_renderer(endpoint=None, model=parts.model, params={}, id_column=None)
    if prompt is None:
        raise RefusedError("rows need a prompt")
    endpoint = prompt.endpoint or Endpoint.CHAT
    made = prompts.renderer(
        prompt,
        endpoint=endpoint,
        model=parts.model,
        params={},
        variables=parts.variables,
        columns=parts.columns,
    )
    if not prompt.files:
        return made
    takes = find_profile(DEFAULT, {}).media_at("")
    return FilesRenderer(made, parts.input, takes, transcribes=endpoint is Endpoint.TRANSCRIPTIONS)


def _write(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8", newline="")


def place_to_save(path: Path) -> Path:
    """A copy in ./prompts for a built-in prompt."""
    shipped = prompts.default_places()[-1].resolve()
    inside = path.resolve().is_relative_to(shipped) and not shipped.is_relative_to(Path.cwd())
    return Path("prompts") / path.name if inside else path
