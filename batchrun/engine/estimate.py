"""The estimate of a run before it is paid for: what would be sent, what is expected of it, and afterwards how far off
that was. A pilot's forecast is kept in the journal, so that the run's end can be held against it."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from batchrun.engine.forecast import Throughput
from batchrun.engine.start import Prepared, renderer_of
from batchrun.engine.survey import (
    EXAMPLES,
    Forecast,
    Survey,
    forecast,
    seen_in,
    stated_limits,
    survey,
    survey_pending,
    throughput_of,
)
from batchrun.events import Emit
from batchrun.journal import Reader
from batchrun.models import Pending
from batchrun.plan.rendering import prompt_of
from batchrun.plan.sources import Gathered
from batchrun.pricing import usd
from batchrun.registry import RunFile

_NOTE = "forecast"


class Estimate(NamedTuple):
    """What would be sent, and what is expected of it."""

    survey: Survey
    forecast: Forecast
    throughput: Throughput


def estimate(gathered: Gathered, emit: Emit, keep: int = EXAMPLES) -> Estimate:
    """The estimate from the input, and from what the run that belongs to the output has answered, if there is one.

    So many requests are kept as examples. Raises RefusedError as the run would.
    """
    found = survey(gathered, emit, keep)
    if found.run is None:
        throughput = throughput_of(found.plan, [], None, None)
        return Estimate(found, forecast(found, [], throughput, 0), throughput)
    seen = seen_in(found.run, renderer_of(found.plan, prompt_of(found.plan)))
    throughput = throughput_of(found.plan, seen, *stated_limits(found.run))
    return Estimate(found, forecast(found, seen, throughput, _charged(found.run)), throughput)


def estimate_after(prepared: Prepared, rpm: float | None, tpm: float | None) -> Estimate:
    """The estimate of what a pilot has left; `rpm` and `tpm` are the limits that it met. Noted in the journal."""
    found = survey_pending(prepared.plan, prepared.run, prepared.renderer, _pages(prepared))
    seen = seen_in(prepared.run, prepared.renderer)
    throughput = throughput_of(prepared.plan, seen, rpm, tpm)
    expected = forecast(found, seen, throughput, _charged(prepared.run))
    with Reader.open(prepared.run.path) as reader:
        sessions = len(reader.sessions)
    cost = None if expected.cost is None else [usd(int(amount)) for amount in expected.cost]
    seconds = None if expected.time is None else list(expected.time.seconds)
    prepared.journal.note(_NOTE, json.dumps({"sessions": sessions, "cost": cost, "seconds": seconds}))
    return Estimate(found, expected, throughput)


def _pages(prepared: Prepared) -> Iterator[list[Pending]]:
    after = 0
    while page := prepared.journal.pending(after, until=prepared.plan.limit):
        yield page
        after = page[-1].position


def _charged(run: RunFile) -> int:
    with Reader.open(run.path) as reader:
        totals = reader.totals
    return totals.cost + totals.cost_reserved


class Prediction(NamedTuple):
    """What a pilot predicted, and the actual figures: US dollars and seconds; None where nothing was predicted."""

    dollars: tuple[float, float, float] | None
    dollars_were: float
    seconds: tuple[float, float, float] | None
    seconds_were: float


def prediction(run: RunFile) -> Prediction | None:
    """How far off a pilot's forecast was, once every row has its outcome."""
    with Reader.open(run.path) as reader:
        note, totals, sessions = reader.note(_NOTE), reader.totals, reader.sessions
    if note is None or totals.pending or totals.unknown:
        return None
    said: dict[str, Any] = json.loads(note)
    after = sessions[said["sessions"] :]
    seconds = sum(session.ended - session.started for session in after if session.ended is not None)
    cost, time = said["cost"], said["seconds"]
    return Prediction(cost and tuple(cost), usd(totals.cost + totals.cost_reserved), time and tuple(time), seconds)
