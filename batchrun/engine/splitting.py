"""Pieces of a text whose reply was cut off (`--split`), and the joined result. Pure."""

from collections.abc import Mapping
from typing import Any

import orjson

from batchrun.engine.judge import Judged
from batchrun.journal import IntakeRow
from batchrun.limits import NO_HINTS
from batchrun.models import Outcome, Parts, Pending, Reply, State
from batchrun.plan import Plan
from batchrun.plan.inputs import halves, join_halves
from batchrun.plan.reducing import Reduction
from batchrun.prompts import Renderer, request_digest
from batchrun.retry import Answer
from batchrun.rows import restore


def pieces_of(plan: Plan, renderer: Renderer, row: Pending, digest: str) -> list[IntakeRow]:
    """Empty if the text cannot be divided."""
    if plan.split is None or plan.output_fields or row.target is not None:
        return []
    pieces: list[IntakeRow] = []
    for number, text in enumerate(halves(row.text), 1):
        request = renderer.render(restore(row.line, row.key, text))
        pieces.append(IntakeRow(row.line, f"{row.key}~piece-{number}", request_digest(request, digest), text))
    return pieces


def whole_of(reduction: Reduction, parts: Parts, fields: Mapping[str, Any]) -> tuple[Judged, Outcome]:
    text = join_halves(fields, reduction.texts(parts))
    value = orjson.dumps(text).decode()
    judged = Judged(Answer(200), Reply(text, text, None, frozenset(), None, None), None, NO_HINTS, value)
    return judged, Outcome(State.DONE, True, None, None, frozenset(), value)
