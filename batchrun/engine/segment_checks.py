"""Per-row checks of replies: the segment replaced, its plural forms, named checks."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import orjson

from batchrun import documents, prompts, replies
from batchrun.documents import Kind
from batchrun.errors import RefusedError
from batchrun.models import Flag, Pending
from batchrun.plan import Plan
from batchrun.plan.outputs import is_document
from batchrun.plan.settings import NO_CHECK
from batchrun.replies import Checker, Complaint

_DEFAULT = ("not-empty", "placeholders", "markup", "blanks")
NUMBERS = Flag.NUMBERS  # Only sets a flag, unless in `--fail-on`: a translation may spell numbers in words
FIT = "fit"  # The name of the check that a text does not damage its document


class RowChecks:
    def __init__(self, plan: Plan, schema: Checker | None) -> None:
        self._document = is_document(plan.input_format)
        self._schema = schema
        self._field = plan.output_fields[0] if len(plan.output_fields) == 1 else plan.output_column
        self._flags = {NUMBERS} - plan.fail_on
        self._names = tuple(name for name in named(plan) if name not in self._flags)
        self._noted = tuple(name for name in named(plan) if name in self._flags)
        self._column = plan.columns.get("text", "text")
        self._language = plan.target_language

    def of(self, row: Pending) -> "SegmentChecker":
        fields = cast("dict[str, Any]", orjson.loads(row.text))
        return SegmentChecker(self, fields)

    @property
    def names(self) -> tuple[str, ...]:
        return self._names

    def judge(self, fields: Mapping[str, Any], text: str) -> Any | Complaint:
        forms: Mapping[str, str] | None = fields.get("forms") if self._document else None
        if forms:
            value = _form_checker(tuple(forms.items())).check(text)
        elif self._schema is not None:
            value = self._schema.check(text)
        else:
            value = text
        if isinstance(value, Complaint):
            return value
        texts = self._texts(value, plural=bool(forms))
        known = self._sources(fields, plural=bool(forms))
        for each in texts:
            if known and (complaint := self._complaint(fields, known, each)) is not None:
                return complaint
        return value

    def flags(self, fields: Mapping[str, Any], value: Any) -> frozenset[Flag]:
        if not self._noted:
            return frozenset()
        plural = self._document and bool(fields.get("forms"))
        known = self._sources(fields, plural=plural)
        found = (
            all(documents.failed([name], source, text) for source in known)
            for name in self._noted
            for text in self._texts(value, plural=plural)
        )
        return frozenset({NUMBERS}) if known and any(found) else frozenset()

    def _sources(self, fields: Mapping[str, Any], *, plural: bool) -> list[str]:
        texts = cast("dict[str, str]", fields["plural"]).values() if plural else [fields.get(self._column)]
        return [text for text in texts if isinstance(text, str)]

    def _texts(self, value: Any, *, plural: bool) -> list[str]:
        if plural:
            return list(cast("dict[str, str]", value).values())
        if isinstance(value, dict):
            value = cast("dict[str, Any]", value).get(self._field)
        return [value] if isinstance(value, str) else []

    def _complaint(self, fields: Mapping[str, Any], sources: list[str], target: str) -> Complaint | None:
        # A plural may match any form of the source (`one file` has no number).
        names = self._names
        if fields.get("kind") == Kind.CUE and self._document and names:
            names = (*names, "lines")
        found = [documents.failed(names, source, target, self._language) for source in sources]
        if all(found) and found[0] is not None:
            name, message = found[-1] or found[0]
            return Complaint(message, name)
        if not self._document:
            return None
        most = fields.get("max")
        if isinstance(most, int) and (problem := documents.maximum(most, target)) is not None:
            return Complaint(problem, "max-length")
        problem = unfit(fields, target)
        return None if problem is None else Complaint(problem, FIT)


class SegmentChecker:
    def __init__(self, checks: RowChecks, fields: Mapping[str, Any]) -> None:
        self._checks = checks
        self._fields = fields
        self.flags: frozenset[Flag] = frozenset()

    def check(self, text: str) -> Any | Complaint:
        value = self._checks.judge(self._fields, text)
        if not isinstance(value, Complaint):
            self.flags = self._checks.flags(self._fields, value)
        return value


def row_checks(plan: Plan, schema: Checker | None) -> "RowChecks | Checker | None":
    return RowChecks(plan, schema) if is_document(plan.input_format) or named(plan) else schema


def named(plan: Plan) -> tuple[str, ...]:
    """With the defaults of documents."""
    chosen = tuple(name for name in plan.check if name != NO_CHECK)
    usual = _DEFAULT if is_document(plan.input_format) and NO_CHECK not in plan.check else ()
    return tuple(dict.fromkeys((*usual, *chosen)))


def check_named(plan: Plan, columns: Sequence[str]) -> None:
    """Raises RefusedError without a text or language to compare with."""
    if not plan.check:
        return
    if documents.LANGUAGE in plan.check:
        if plan.target_language is None or not documents.is_identifiable(plan.target_language):
            missing = "needs a target language"
            unsupported = f"does not support {plan.target_language}"
            raise RefusedError(
                f"the check language {missing if plan.target_language is None else unsupported}",
                "name one by its code, such as --target-language de, or leave this check out",
            )
        if not documents.is_installed():
            raise RefusedError(
                'the check language needs cld3-py (the extra "documents"), which is not installed',
                "pip install cld3-py; with uv tool, install batchrun again with --with cld3-py",
            )
    column = plan.columns.get("text", "text")
    if not is_document(plan.input_format) and column not in columns:
        raise RefusedError(
            f"--check compares a reply with the column {column}, which the input does not have",
            "name its column: --column text=NAME",
        )


def unfit(fields: Mapping[str, Any], target: str) -> str | None:
    source = str(fields.get("text"))
    plural: Mapping[str, str] | None = fields.get("plural")
    if plural:
        source = list(plural.values())[-1]
    kind = Kind(str(fields.get("kind") or Kind.TEXT))
    return documents.misfit(kind, source, target) or documents.unwritable(target, fields.get("encoding"))


@lru_cache(maxsize=64)
def _form_checker(forms: tuple[tuple[str, str], ...]) -> Checker:
    return replies.checker(prompts.forms_schema(dict(forms)))
