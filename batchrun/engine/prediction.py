"""What a pilot predicted of the run, as the journal has it, beside what came."""

import json
from typing import Any, NamedTuple

from batchrun.journal import Reader
from batchrun.pricing import usd
from batchrun.registry import RunFile

NOTE = "forecast"  # The journal's note that has it


class Prediction(NamedTuple):
    """US dollars and seconds."""

    cost: tuple[float, float, float] | None
    actual_cost: float
    seconds: tuple[float, float, float] | None
    actual_seconds: float


def prediction(run: RunFile) -> Prediction | None:
    """None until every row has its outcome."""
    with Reader.open(run.path) as reader:
        note, totals, sessions = reader.note(NOTE), reader.totals, reader.sessions
    if note is None or totals.pending or totals.unknown:
        return None
    predicted: dict[str, Any] = json.loads(note)
    after = sessions[predicted["sessions"] :]
    seconds = sum(session.ended - session.started for session in after if session.ended is not None)
    cost, time = predicted["cost"], predicted["seconds"]
    return Prediction(cost and tuple(cost), usd(totals.cost + totals.cost_reserved), time and tuple(time), seconds)
