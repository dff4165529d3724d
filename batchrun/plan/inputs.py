"""Opens the input: rows, or documents, whose segments are rows identified by path and name.

Besides `COLUMNS`, a segment has `kind` and `encoding`; with plural forms `plural` (the source's) and `forms` (the
target's); a piece of a long text `part`, `parts` and `gap` (the blanks after it).
"""

import glob
import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from batchrun import documents, media, rows
from batchrun.display import printable
from batchrun.documents import CHUNK, CONTEXT, DocumentError, Kind
from batchrun.errors import InputError, PromptError, RefusedError
from batchrun.models import Invalid, Row, made
from batchrun.models import Kind as InputKind
from batchrun.plan.outputs import MANY, ROW_SUFFIXES, STREAM, file_for, input_format, is_pattern, target_language
from batchrun.plan.settings import Settings
from batchrun.prompts import Prompt
from batchrun.prompts.caching import BYTES_PER_TOKEN
from batchrun.rows import Input, Reading, Refusal, Remarks, encoding_hint, files_of


def open_rows(
    settings: Settings, source: str, *, has_prompt: bool, takes_files: bool = False, spool: Path | None = None
) -> Input:
    """Raises InputError."""
    takes = media.is_known if takes_files else None
    whole = settings.reduce is not None
    reading = Reading(settings.encoding, settings.sheet, settings.path, settings.yes, _structured, whole, takes)
    return rows.open_input(source, id_column=settings.id_column, has_prompt=has_prompt, spool=spool, reading=reading)


def _structured(name: str, head: bytes) -> Refusal | None:
    if (refused := documents.refusal(name, head)) is not None:
        return Refusal(*refused)
    format = documents.detect(name, head)
    return None if format in (None, "json") else Refusal(f"a document ({format})", "")


def check_rows_used(settings: Settings, source: Input, prompt: Prompt) -> None:
    """Raises PromptError or InputError if the prompt uses no column."""
    taken = {settings.columns.get(name, name) for name in prompt.variables - settings.variables.keys()}
    roots = {column.partition(".")[0] for column in taken} | taken
    if source.wrapped is not None and not roots & set(source.columns):
        raise InputError(
            f"{source.name} is one object, and its columns are {', '.join(source.columns)}.",
            f"If its rows are the list {source.wrapped}: --path {source.wrapped}",
        )
    if prompt.variables and roots & set(source.columns):
        return
    if prompt.variables - settings.variables.keys() - prompt.defaults.keys() - prompt.optional:
        return  # a missing column is reported elsewhere
    if settings.yes or len(source.head(2)) < 2:
        return
    raise PromptError(
        f"the prompt `{prompt.name}` uses no column of the rows: every row would send, and pay for, the same request",
        "Write {{ text }} where the column `text` belongs; --yes sends it unchanged.",
    )


_HEAD = 64 * 1024
_LARGEST = 256 * 1024 * 1024
_TEXTS = (".txt", ".text")
_dumps = orjson.dumps
COLUMNS = ("path", "segment", "text", "context", "note", "max")


class Found(NamedTuple):
    path: str  # its name in rows and outputs
    file: Path
    format: str


class DocumentInput(Input):
    def __init__(self, name: str, sources: list[Found], settings: Settings) -> None:
        self.kind = InputKind.ROWS
        self.id_column = None
        self.name = printable(name)
        self.sources = sources
        many = is_pattern(settings.output or "") or len(sources) != 1
        self.format = MANY if many else input_format(sources[0].format)
        self.stem = Path(sources[0].path).stem if len(sources) == 1 else "documents"
        self.suffix = Path(sources[0].path).suffix
        self.size = sum(source.file.stat().st_size for source in sources)
        self.columns = COLUMNS
        self.where = "line {}".format
        self.wrapped = None
        self.remarks = Remarks()
        self.digests: dict[str, str] = {}
        self._language = target_language(settings.target_language, settings.variables)
        self._existing = settings.existing
        self._most = None if settings.split is None else settings.split * BYTES_PER_TOKEN
        self.encoding = settings.encoding
        self._leaves_out = len(sources) > 1 and settings.skip_invalid

    def __iter__(self) -> Iterator[Row | Invalid]:
        for source in self.sources:
            try:
                self.digests.pop(source.path, None)
                document = documents.Document(
                    source.format,
                    partial(self.chunks, source),
                    language=self._language,
                    existing=self._existing,
                    encoding=self.encoding,
                )
                encoding = document.encoding
                if self._leaves_out:  # a file that is damaged further down must not have its first part sent
                    deque(document.entries(), maxlen=0)
                for entry in document.entries():
                    if self._most is None:
                        yield _row(source.path, entry, encoding)
                    else:
                        yield from self._rows(source.path, entry, encoding)
            except DocumentError as error:
                if len(self.sources) == 1:
                    raise InputError(f"{self.name}: {error}", self._hint(error)) from None
                yield Invalid(1, source.path, f"{source.path}: {error}")

    def _rows(self, path: str, entry: "documents.Entry", encoding: str | None) -> Iterator[Row | Invalid]:
        segment, most = entry.segment, self._most
        text = segment.text.strip()
        whole = segment.plural is not None or segment.max is not None or segment.kind is Kind.MARKUP
        if most is None or whole or len(text.encode(errors="surrogatepass")) <= most:
            yield _row(path, entry, encoding)
            return
        pieces, before = documents.split(text, most), segment.context
        self.remarks.add(f"longer than {most // BYTES_PER_TOKEN:,} tokens, sent in pieces", entry.line)
        for number, piece in enumerate(pieces, 1):
            name = entry.name if number == 1 else f"{entry.name}~part-{number}"
            part = documents.Entry(name, segment._replace(text=piece.text, context=before), entry.line)
            yield _row(path, part, encoding, {"part": number, "parts": len(pieces), "gap": piece.gap})
            before = piece.text[-CONTEXT:]

    def chunks(self, source: Found) -> Iterator[bytes]:
        """Raises InputError if the document has changed."""
        digest = hashlib.sha256()
        try:
            if source.file.stat().st_size > _LARGEST:
                raise InputError(f"{printable(source.path)} is larger than {_LARGEST // 1024**2} MiB.")
            with source.file.open("rb") as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
                    yield chunk
        except OSError as error:
            raise InputError(f"Cannot read {printable(source.path)}: {error.strerror}.") from error
        if self.digests.setdefault(source.path, digest.hexdigest()) != digest.hexdigest():
            raise InputError(f"{printable(source.path)} changed while it was read.", "Wait until it is complete.")

    def check_targets(self, output: str) -> tuple[Path, ...]:
        """Raises RefusedError for outputs that are equal, or inputs."""
        if not is_pattern(output):
            return ()
        sources = {source.file.resolve(): source.path for source in self.sources}
        targets: dict[Path, str] = {}
        for source in self.sources:
            target = file_for(output, source.path)
            place = target.resolve()
            if place in sources:
                raise RefusedError(
                    f"the output for {source.path} would overwrite the input {sources[place]}",
                    "choose another --output, such as -o 'out/{path}'",
                )
            if place in targets:
                raise RefusedError(f"{source.path} and {targets[place]} would have the same output, {target}")
            if target.is_dir():
                raise RefusedError(f"{target}: the output for {source.path} is a directory")
            if self._would_be_read(target):
                raise RefusedError(
                    f"the output {target} would be read as part of the input the next time",
                    "choose an --output elsewhere",
                )
            targets[place] = source.path
        return tuple(targets)

    def _would_be_read(self, target: Path) -> bool:
        pattern = os.path.normpath(self.name)
        if os.path.isdir(pattern):
            return target.resolve().is_relative_to(Path(pattern).resolve())
        name = os.path.normpath(target)
        if "**" in pattern:
            return fnmatch(name, pattern.replace(f"**{os.sep}", "").replace("**", "*"))
        return glob.has_magic(pattern) and name.count(os.sep) == pattern.count(os.sep) and fnmatch(name, pattern)

    def _hint(self, error: DocumentError) -> str | None:
        if "not text in" in str(error) and self.encoding is None:
            return f"State its encoding, for example --encoding {encoding_hint(_head(self.sources[0].file))}."
        if "state the target language" in str(error):
            return "add --target-language CODE, such as --target-language de"
        return None


def open_documents(settings: Settings) -> DocumentInput | None:
    """None for rows. Raises RefusedError, InputError."""
    source = settings.input
    if source is None or source == STREAM or settings.path is not None or settings.sheet is not None or settings.reduce:
        return None
    path = Path(os.path.expanduser(source))
    if path.is_dir() or (glob.has_magic(source) and not path.exists()):
        if not is_pattern(settings.output or ""):
            return None
        return DocumentInput(source, [_one_of_many(name, file) for name, file in files_of(str(path))], settings)
    if not path.is_file():
        return None
    format = _format_of(path, settings)
    if format is None:
        return None
    return DocumentInput(source, [Found(path.name, path, format)], settings)


def _one_of_many(name: str, file: Path) -> Found:
    head = _head(file)
    format = documents.detect(name, head) or ("text" if documents.suffix_of(name) in _TEXTS else None)
    if format is None and documents.suffix_of(name) == ".json" and head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{":
        format = "json"
    if format is None:
        refusal = documents.refusal(name, head)
        what = refusal.what if refusal is not None else "none of the document formats"
        raise InputError(
            f"{printable(name)} is {what}, which cannot be written back.",
            "Select the files with a glob, such as -i 'docs/**/*.md'.",
        )
    return Found(name, file, format)


def _format_of(path: Path, settings: Settings) -> str | None:
    head = _head(path)
    format = documents.detect(path.name, head)
    suffix = documents.suffix_of(path.name)
    output = settings.output or ""
    back = is_pattern(output) or (output and documents.suffix_of(output) == suffix)
    as_rows = settings.format == "rows"
    if format is None and (back or as_rows) and suffix in _TEXTS:
        return "text"
    if suffix == ".json" and (format == "json" or back):
        if back or as_rows:
            return "json" if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" else None
        return None if documents.suffix_of(output) in ROW_SUFFIXES or _has_rows(path) else format
    return format


def _has_rows(path: Path) -> bool:
    # also for invalid JSON, which the reader of rows reports
    try:
        value: Any = json.loads(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):
        return True
    lists = [each for each in value.values() if isinstance(each, list) and each] if isinstance(value, dict) else []  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]  foreign JSON
    return any(isinstance(each[0], dict) for each in lists)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  foreign JSON


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD)
    except OSError as error:
        raise InputError(f"Cannot read {printable(str(path))}: {error.strerror}.") from error


def _row(
    path: str, entry: "documents.Entry", encoding: str | None, more: Mapping[str, Any] | None = None
) -> Row | Invalid:
    name, segment, line = entry
    _, text, _, _, _, kind, _, context, note, longest, plural = segment
    fields: dict[str, Any] = {
        "path": path,
        "segment": name,
        "text": text.strip(),
        "context": context,
        "note": note,
        "max": longest,
        "kind": kind,
    }
    if more is not None:
        fields |= more
    if encoding is not None:
        fields["encoding"] = encoding
    if plural is not None:
        sources = {name: text.strip() for name, text in plural.sources.items()}
        fields |= {"text": json.dumps(sources, ensure_ascii=False), "plural": sources, "forms": plural.forms}
    try:
        return made(Row, (line, f"{path}#{name}", _dumps(fields).decode(), fields, None, None))
    except TypeError:
        return Invalid(line, printable(text), "a lone surrogate, which cannot be sent")


def halves(text: str) -> list[str]:
    fields: dict[str, Any] = orjson.loads(text)
    pieces, before = _split_in_two(fields), fields["context"]
    found: list[str] = []
    for number, piece in enumerate(pieces, 1):
        found.append(orjson.dumps(fields | {"text": piece.text, "context": before, "piece": number}).decode())
        before = piece.text[-CONTEXT:]
    return found


def join_halves(fields: Mapping[str, Any], values: Sequence[str]) -> str:
    return "".join(f"{value}{piece.gap}" for value, piece in zip(values, _split_in_two(fields), strict=True))


def _split_in_two(fields: Mapping[str, Any]) -> "list[documents.Piece]":
    text = str(fields["text"])
    if fields.get("kind") == Kind.MARKUP or fields.get("plural") or fields.get("max") is not None:
        return []
    found = documents.split(text, -(-len(text.encode(errors="surrogatepass")) // 2))
    return found if len(found) > 1 else []
