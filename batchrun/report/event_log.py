"""The log of `--verbose` and `--log-file`, from DEBUG (attempts) to WARNING (failures)."""

import logging

from batchrun.display import counted, printable
from batchrun.events import (
    AttemptEnded,
    AttemptsStarted,
    AttemptStarted,
    BatchChanged,
    Draining,
    Event,
    IntakeProgress,
    LaneChanged,
    LimitsChanged,
    Notice,
    PostChanged,
    Resumed,
    RowDivided,
    RowFinished,
    RowLost,
    RowsAnswered,
    RunEnded,
    RunStarted,
    SendersChanged,
    Waiting,
)
from batchrun.models import State

log = logging.getLogger(__name__)


def record(event: Event) -> None:
    level, text = level_and_text(event)
    log.log(level, "%s", printable(text, 2000))


def level_and_text(event: Event) -> tuple[int, str]:
    match event:
        case AttemptStarted() | AttemptEnded():
            return _attempt(event)
        case RowFinished() | RowLost() | RowDivided() | RowsAnswered() | AttemptsStarted():
            return _row(event)
        case LaneChanged():
            return logging.INFO, f"lane {event.lane}: {event.state}{f': {event.reason}' if event.reason else ''}"
        case SendersChanged():
            counts = f"{event.ready} ready, {event.starting} starting, {event.suspect} suspect, {event.lost} lost"
            return logging.WARNING if event.lost else logging.INFO, f"senders: {counts}{event.why and f': {event.why}'}"
        case Waiting() | Resumed() | LimitsChanged() | PostChanged():
            return _speed(event)
        case _:
            return _run(event)


def _attempt(event: AttemptStarted | AttemptEnded) -> tuple[int, str]:
    name = f"line {event.line}, attempt {event.number}"
    if isinstance(event, AttemptStarted):
        return logging.DEBUG, f"{name}: sent"
    status = f"status {event.status}" if event.status else "no answer"
    text = f"{name}: {status} after {event.seconds:.3f} s"
    if event.usage is not None:
        text += f", {event.usage.input} tokens in, {event.usage.output} out"
    if event.cause is None:
        return logging.DEBUG, text
    paid = ", may have been billed" if event.possibly_billed else ""
    text += f" from {event.lane}" if event.lane else ""
    return logging.INFO, f"{text}: {event.cause}{paid}{', to be sent again' if event.retry else ''}"


def _row(event: RowFinished | RowLost | RowDivided | RowsAnswered | AttemptsStarted) -> tuple[int, str]:
    if isinstance(event, RowsAnswered | AttemptsStarted):
        return logging.DEBUG, f"{counted(event.rows)} done" if isinstance(
            event, RowsAnswered
        ) else f"{counted(len(event.seqs))} sent"
    if isinstance(event, RowDivided):
        return logging.INFO, f"line {event.line}: its reply was cut off; the text is sent in {event.pieces} pieces"
    if isinstance(event, RowLost):
        return logging.WARNING, f"line {event.line}: abandoned in flight, it may have been billed"
    outcome = event.outcome
    flags = f" ({', '.join(sorted(outcome.flags))})" if outcome.flags else ""
    text = f"line {event.line} (id {event.key}): {outcome.state.value}{flags}"
    if outcome.state is not State.FAILED:
        return logging.DEBUG, text
    return (
        logging.WARNING,
        f"{text}, {'permanent' if outcome.permanent else 'retryable'}: {outcome.cause}: {outcome.message}",
    )


def _speed(event: Waiting | Resumed | LimitsChanged | PostChanged) -> tuple[int, str]:
    if isinstance(event, Waiting):
        wait = "" if event.until is None else f" {max(0.0, event.until - event.at):.1f} s"
        return logging.INFO, f"waiting{wait}: {event.reason}{f': {event.said}' if event.said else ''}"
    if isinstance(event, Resumed):
        return logging.INFO, "resumed"
    if isinstance(event, PostChanged):
        none = "waiting for a worker of the cluster" if event.on_cluster else "in a thread"
        where = f"in {event.workers} worker processes" if event.workers else none
        return logging.DEBUG, f"{counted(event.rows)} in post-processing {where}"
    rates = f"{event.rpm or 'unknown'} requests and {event.tpm or 'unknown'} tokens per minute"
    return logging.DEBUG, f"{event.in_flight} of {event.allowed} allowed in flight (cap {event.cap}); limits: {rates}"


def _run(
    event: IntakeProgress | RunStarted | Draining | BatchChanged | Notice | RunEnded,
) -> tuple[int, str]:
    match event:
        case IntakeProgress(rows):
            return logging.INFO, f"{counted(rows)} read"
        case RunStarted():
            return logging.INFO, f"run {event.run} started: {counted(event.totals.rows)}, host {event.host}"
        case BatchChanged():
            status = f", {event.status}" if event.status else ""
            note = f": {event.note}" if event.note else ""
            return logging.INFO, f"batch {event.chunk} ({event.remote or '-'}): {event.state}{status}{note}"
        case Draining():
            return logging.INFO, f"stopping ({event.why}), {event.in_flight} in flight"
        case Notice(message):
            return logging.WARNING, message
        case RunEnded():
            text = f": {event.message}" if event.message else ""
            return logging.INFO, f"ended with exit code {int(event.exit_code)}{text}"
