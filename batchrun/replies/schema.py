"""Checking a reply against the JSON schema of the prompt's outputs."""

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

import orjson

from batchrun import extraction
from batchrun.errors import PromptError
from batchrun.models import Flag
from batchrun.replies.json_text import repaired

if TYPE_CHECKING:
    import jsonschema_rs

_MOST_COMPLAINTS = 3
_LONGEST_COMPLAINT = 200

# To orjson an integer of more than 64 bits is a float.
_LONG_INTEGER = re.compile(r"[0-9]{19}")


class Complaint(NamedTuple):
    """For the model."""

    message: str
    check: str | None = None  # None: the schema


class ReplyChecker(Protocol):
    @property
    def flags(self) -> frozenset[Flag]:
        """Findings that are no reason to refuse the last reply."""
        ...

    def check(self, text: str) -> Any | Complaint:
        """The value of a text that fits."""
        ...


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def checked(checker: ReplyChecker, text: str) -> tuple[str | None, str | None, str | None]:
    """The error, the failed check, and the JSON of the value if it is not the text."""
    found = checker.check(text)
    if isinstance(found, Complaint):
        return found.message, found.check, None
    return None, None, None if found is text else _encode(found)


class Checker:
    """Draft 2020-12 unless the schema names another one."""

    flags: frozenset[Flag] = frozenset()

    def __init__(self, validator: "jsonschema_rs.Validator") -> None:
        self._validator = validator

    def check(self, text: str) -> Any | Complaint:
        """The first of `extraction.candidates` that fits, else a Complaint about the first JSON. Integers keep all
        digits.
        """
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            return self._searched(text)
        if self._validator.is_valid(value):
            return json.loads(text) if _LONG_INTEGER.search(text) else value
        return self._searched(text)

    def _searched(self, text: str) -> Any | Complaint:
        no_json: Complaint | None = None
        misfit: Complaint | None = None
        for candidate in extraction.candidates(text):
            found = _parsed(candidate)
            if isinstance(found, Complaint):
                no_json = no_json or found
                continue
            inside, value = found
            if self._validator.is_valid(value):
                return json.loads(inside) if _LONG_INTEGER.search(inside) else value
            misfit = misfit or Complaint("; ".join(self._complaints(value)))
        return misfit or no_json or Complaint("The answer is empty.")

    def _complaints(self, value: Any) -> list[str]:
        complaints: list[str] = []
        for error in self._validator.iter_errors(value):
            if len(complaints) == _MOST_COMPLAINTS:
                complaints.append("and more")
                break
            steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path)
            complaints.append(f"at ${''.join(steps)}: {error.message}"[:_LONGEST_COMPLAINT])
        return complaints


def _parsed(text: str) -> tuple[str, Any] | Complaint:
    try:
        return text, orjson.loads(text)
    except orjson.JSONDecodeError as error:
        found = repaired(text)
        if found is not None and not found.numbers:
            return found.text, found.data
        return Complaint(f"The answer is not JSON: {error.msg} (line {error.lineno}, column {error.colno}).")


def checker(schema: dict[str, Any]) -> Checker:
    """Raises PromptError; references outside the schema are never fetched."""
    import jsonschema_rs  # noqa: PLC0415  only a run with a schema pays for it

    try:
        return Checker(jsonschema_rs.validator_for(schema, retriever=_refuse))
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "message", None) or str(error)
        raise PromptError(
            f"The output schema cannot be used: {reason[:500]}", "See https://json-schema.org."
        ) from error


def _refuse(uri: str) -> NoReturn:
    raise ValueError(f"references to other documents are not followed ({uri})")
