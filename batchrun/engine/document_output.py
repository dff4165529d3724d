"""Writes documents: the journaled bytes, with translated segments in place.

Segments that failed or would damage the document keep their source.
"""

import base64
import json
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, count, groupby
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import orjson

from batchrun import documents
from batchrun.documents import CHUNK, DocumentError, Existing, Value
from batchrun.engine.output_files import replaced
from batchrun.engine.segment_checks import unfit
from batchrun.errors import StorageError
from batchrun.journal import Journal, Reader, Record
from batchrun.models import State
from batchrun.plan import Plan, outputs
from batchrun.plan.inputs import DocumentInput
from batchrun.plan.outputs import partial_path

_SOURCES = "documents"
_PIECE = 1 << 20  # Compressed bytes of a document per journal note


class Written(NamedTuple):
    outputs: tuple[Path, ...]
    rows: int
    failed: int


def keep(journal: Journal, source: DocumentInput) -> None:
    """Raises InputError where a file has changed since."""
    for each in source.sources:
        packer, held, number = zlib.compressobj(), bytearray(), 0
        for chunk in source.chunks(each):
            held += packer.compress(chunk)
            if len(held) >= _PIECE:
                journal.note(_piece(each.path, number), base64.b64encode(held).decode())
                held.clear()
                number += 1
        held += packer.flush()
        journal.note(_piece(each.path, number), base64.b64encode(held).decode())
    known = ((each.path, each.format, source.digests.get(each.path, "")) for each in source.sources)
    listed = [[*each, source.encoding or ""] for each in known]
    journal.note(_SOURCES, json.dumps(listed, ensure_ascii=False))


def _piece(path: str, number: int) -> str:
    return f"{_SOURCES}+{number}/{path}" if number else f"{_SOURCES}/{path}"


def _stored(reader: Reader, path: str) -> Iterator[bytes]:
    unpacker = zlib.decompressobj()
    for number in count():
        if unpacker.eof or (piece := reader.note(_piece(path, number))) is None:
            break
        packed = base64.b64decode(piece)
        while packed and not unpacker.eof:
            yield unpacker.decompress(packed, CHUNK)
            packed = unpacker.unconsumed_tail
    yield unpacker.flush()


def write_documents(  # noqa: PLR0913  where each part goes
    plan: Plan,
    reader: Reader,
    output: Path,
    errors: BinaryIO,
    *,
    line_of: Callable[[Plan, Record], str],  # Of a failed row in the errors file
    value_of: Callable[[Plan, Record], str],  # JSON of a translation
) -> Written:
    """Raises OSError, StorageError."""
    noted = reader.note(_SOURCES)
    if noted is None:
        raise StorageError(
            "the journal does not contain the documents: the run was stopped while they were read",
            "run its first command again",
        )
    listed = cast("list[list[str]]", json.loads(noted))
    open_paths = _unfinished(reader) if outputs.is_pattern(output) else set[str]()
    groups = groupby(_rows(reader), key=lambda row: row[0])
    group = next(groups, None)
    done = failed = 0
    for path, format, _, encoding in listed:
        rows = _DocumentRows(plan, errors, line_of, value_of)
        if group is not None and group[0] == path:
            rows.take(group[1])
        data = partial(_stored, reader, path)
        existing = Existing(plan.existing)
        try:
            rows.check()
            document = documents.Document(
                format, data, language=plan.target_language, existing=existing, encoding=encoding or None
            )
            with replaced(_target(output, path, open_paths)) as stream:
                for piece in document.written(rows.values(), trimmed=True):
                    stream.write(piece)
        except DocumentError as error:
            for _ in rows.values():
                pass
            if rows.done or not rows.failed:
                raise StorageError(f"{path}: the document cannot be written: {error}") from error
        done, failed = done + rows.done, failed + rows.failed
        if group is not None and group[0] == path:
            group = next(groups, None)
    return Written(_patterns(output, len(listed), len(open_paths)), done, failed)


def _patterns(output: Path, count: int, unfinished: int) -> tuple[Path, ...]:
    if not outputs.is_pattern(output):
        return (output,)
    final = Path(str(output).removesuffix(".partial"))
    return (final,) * (unfinished < count) + (partial_path(final),) * (unfinished > 0)


def _target(output: Path, path: str, unfinished: set[str]) -> Path:
    if not outputs.is_pattern(output):
        return output
    final = outputs.file_for(str(output).removesuffix(".partial"), path)
    final.parent.mkdir(parents=True, exist_ok=True)
    if path in unfinished:
        return partial_path(final)
    partial_path(final).unlink(missing_ok=True)
    return final


class _DocumentRows:
    def __init__(
        self,
        plan: Plan,
        errors: BinaryIO,
        line_of: Callable[[Plan, Record], str],
        value_of: Callable[[Plan, Record], str],
    ) -> None:
        self._plan, self._errors, self._line_of, self._value_of = plan, errors, line_of, value_of
        self.source: Iterator[tuple[str, dict[str, Any], Record]] = iter(())
        self.done = self.failed = 0
        self._unread = False

    def take(self, rows: Iterator[tuple[str, dict[str, Any], Record]]) -> None:
        first = next(rows)
        self._unread = "segment" not in first[1]
        self.source = chain([first], rows)

    def check(self) -> None:
        if self._unread:
            raise DocumentError("it could not be read")

    def values(self) -> Iterator[tuple[str, Value]]:
        """In document order; a text in pieces is one value."""
        parts: list[tuple[dict[str, Any], Value]] = []
        for _, fields, record in self.source:
            if fields.get("part", 1) == 1:
                parts = []
            if record.state is State.DONE:
                value = orjson.loads(self._value_of(self._plan, record))
                problem = _damage(fields, value)
                parts.append((fields, value))
                whole = len(parts) == fields.get("parts", 1)
                if problem is None and whole and len(parts) > 1:
                    fields, value = _joined(parts)  # noqa: PLW2901  the row that ends the text
                    problem = _damage(fields, value)
                if problem is None:
                    self.done += 1
                    if whole:
                        yield str(fields["segment"]), value
                    continue
                parts.clear()
                record = record._replace(cause="does not fit the document", message=problem, permanent=True)  # noqa: PLW2901  journaled as it is
            elif record.state not in (State.FAILED, State.SKIPPED):
                continue
            self.failed += 1
            self._errors.write(self._line_of(self._plan, record).encode() + b"\n")


def _joined(parts: list[tuple[dict[str, Any], Value]]) -> tuple[dict[str, Any], str]:
    text = "".join(f"{fields['text']}{fields['gap']}" for fields, _ in parts)
    return parts[0][0] | {"text": text}, "".join(f"{value}{fields['gap']}" for fields, value in parts)


def _damage(fields: dict[str, Any], value: Any) -> str | None:
    forms = cast("dict[str, str] | None", fields.get("forms"))
    if forms is not None:
        if not isinstance(value, dict) or set(cast("dict[str, Any]", value)) != set(forms):
            return "it lacks the plural forms of the target language"
        texts = list(cast("dict[str, Any]", value).values())
    else:
        texts = [value]
    for text in texts:
        if not isinstance(text, str):
            return "it is not text"
        if (problem := unfit(fields, text)) is not None:
            return problem
    return None


def _rows(reader: Reader) -> Iterator[tuple[str, dict[str, Any], Record]]:
    """An unreadable document has only its path."""
    for record in reader.export_rows():
        found = orjson.loads(record.text)
        fields = cast("dict[str, Any]", found) if isinstance(found, dict) else {"path": found}
        yield str(fields["path"]), fields, record


def _unfinished(reader: Reader) -> set[str]:
    totals = reader.totals
    if totals.pending + totals.unknown + totals.in_batches == 0:
        return set()
    return {path for path, _, record in _rows(reader) if not record.state.is_final}
