"""Rows whose text is blank, which models answer with a question."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from batchrun.models import Blank, Kind
from batchrun.plan.outputs import is_document
from batchrun.plan.record import Plan
from batchrun.plan.rendering import prompt_of
from batchrun.prompts import ABSENT, Prompt, cell

_NOTICES = {
    None: "the text is blank and is sent: --blank skip leaves out such rows, --blank copy leaves their output blank",
    Blank.SEND: "",
    Blank.SKIP: "the text is blank: skipped",
    Blank.COPY: "the text is blank: the output is blank too, without a request",
}


class Blanks(NamedTuple):
    columns: tuple[str, ...]
    policy: Blank | None

    def is_blank(self, fields: Mapping[str, Any]) -> bool:
        """No column has text, and one is blank, or null if blanks are not sent."""
        columns, policy = self
        blank = False
        for column in columns:
            value = fields.get(column)
            if type(value) is str and value and not value.isspace():  # nearly every one
                return False
            value = cell(fields, column)
            if value is None and policy in (Blank.SKIP, Blank.COPY):
                blank = True
            if value is None or value is ABSENT:
                continue
            if type(value) is not str or (value and not value.isspace()):
                return False
            blank = True
        return blank

    @property
    def notice(self) -> str:
        return _NOTICES[self.policy]


def blanks_of(plan: Plan, prompt: Prompt | None) -> Blanks:
    """Segments are never blank."""
    if prompt is None or plan.kind is not Kind.ROWS:
        return Blanks((), plan.blank)
    names = prompt.variables - plan.variables.keys()
    columns = {plan.columns.get(name, name) for name in names} - {plan.id_column}
    if is_document(plan.input_format) and "text" in columns:
        return Blanks((), plan.blank)
    return Blanks(tuple(sorted(columns)), plan.blank)


def copied(plan: Plan) -> Blanks:
    return blanks_of(plan, prompt_of(plan)) if plan.blank is Blank.COPY else Blanks((), plan.blank)
