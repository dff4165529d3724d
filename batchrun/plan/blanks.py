"""Rows whose text is blank, and what becomes of them: sent as they are, left out, or answered blank without a call.

Models answer a blank text with a question, which is paid for and lands in the output.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from batchrun.models import Blank, Kind
from batchrun.plan.patterns import is_document
from batchrun.plan.record import Plan
from batchrun.plan.rendering import prompt_of
from batchrun.prompts import ABSENT, Prompt, cell

_SAID = {
    None: "the text is blank, and sent: --blank skip leaves such rows out, --blank copy leaves their output blank",
    Blank.SEND: "",
    Blank.SKIP: "the text is blank: skipped",
    Blank.COPY: "the text is blank: so is the output, without a call",
}


class Blanks(NamedTuple):
    """What is done with rows of which the prompt takes nothing but blanks; `columns` are those that it takes."""

    columns: tuple[str, ...]
    policy: Blank | None

    def is_blank(self, fields: Mapping[str, Any]) -> bool:
        """Whether a row has text in none of the columns, and an empty or blank one in some; null is blank too where
        blank rows are not sent."""
        blank = False
        for column in self.columns:
            value = cell(fields, column)
            if value is None and self.policy in (Blank.SKIP, Blank.COPY):
                blank = True
            if value is None or value is ABSENT:
                continue
            if type(value) is not str or (value and not value.isspace()):
                return False
            blank = True
        return blank

    @property
    def said(self) -> str:
        """What is said of such a row before the start."""
        return _SAID[self.policy]


def blanks_of(plan: Plan, prompt: Prompt | None) -> Blanks:
    """Those of a plan; no columns where its requests are not made from rows, or from the texts of segments, none of which
    is blank."""
    if prompt is None or plan.kind is not Kind.ROWS:
        return Blanks((), plan.blank)
    names = prompt.variables - plan.variables.keys()
    columns = {plan.columns.get(name, name) for name in names} - {plan.id_column}
    if is_document(plan.input_format) and "text" in columns:
        return Blanks((), plan.blank)
    return Blanks(tuple(sorted(columns)), plan.blank)


def copied(plan: Plan) -> Blanks:
    """The rows of a journaled plan that are answered blank, without a request; none where blank texts are sent."""
    return blanks_of(plan, prompt_of(plan)) if plan.blank is Blank.COPY else Blanks((), plan.blank)
