"""What all user interfaces show of a run: sentences, and JSON values of records and events."""

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from batchrun.account import MONEY
from batchrun.display import counted, printable
from batchrun.errors import ExitCode
from batchrun.events import BatchChanged, LaneState, LimitsChanged, Notice, SendersChanged, Waiting, WaitReason
from batchrun.models import Bill, Flag, Kind, Totals
from batchrun.plan import Plan
from batchrun.pricing import usd
from batchrun.progress import Progress

if TYPE_CHECKING:  # SQLite: not before the app's first frame
    from batchrun.engine.prediction import Prediction
    from batchrun.journal import Cause, LaneShare, Reader, TierShare
    from batchrun.registry import Summary

LONGEST_MESSAGE = 160  # characters
# seconds: a shorter run is mostly the start of the program, which a forecast leaves out
_MEASURABLE = 1.0


# begins a heading in a request shown as text
MARK = "▌ "


def account(totals: Totals, *, running: bool = False) -> str:
    """Each row counts once; while a process works on the run, rows without a known answer are in flight."""
    open_rows = f"{totals.unknown:,} {'in flight' if running else 'unknown'}"
    failed = f"{totals.failed:,} failed"
    kinds = [
        f"{count:,} {name}"
        for name, count in (("retryable", totals.retryable), ("in post-processing", totals.failed_post))
        if count
    ]
    if kinds:
        failed += f" ({', '.join(kinds)})"
    flagged = [(f"{flag}", getattr(totals, flag)) for flag in Flag]
    flags = [f"{count:,} {name}" for name, count in (("from equal requests", totals.deduplicated), *flagged) if count]
    done = f"{totals.done:,} done" + (f" ({', '.join(flags)})" if flags else "")
    return (
        f"{done} + {failed} + {totals.skipped:,} skipped + {open_rows} + {totals.pending:,} pending"
        f"{f' + {totals.in_batches:,} in batches' if totals.in_batches else ''} = {counted(totals.rows, 'input row')}"
    )


def resume_command(totals: Totals, reference: str, runs_dir: str | None = None) -> str | None:
    """None if nothing is left."""
    command = f"batchrun resume {_quoted(reference)}"
    if runs_dir is not None:
        command += f" --runs-dir {_quoted(runs_dir)}"
    if totals.pending or totals.unknown or totals.in_batches or totals.retryable:
        return command
    return f"{command} --failed" if totals.failed else None


def cause(found: "Cause") -> str:
    lines = ", ".join(map(str, found.lines))
    return f"{found.rows:,} × {printable(found.cause, 60)} (line {lines}): {printable(found.message, 160)}"


def outcome(totals: Totals, code: ExitCode) -> tuple[str, str]:
    left = totals.pending + totals.unknown + totals.in_batches
    done = f"{totals.done:,} of {counted(totals.rows)} done"
    failed = f", {totals.failed:,} failed" if totals.failed else ""
    rest = f", {left:,} left" if left else ""
    ended = code in (ExitCode.OK, ExitCode.ROWS_FAILED)
    waiting = code is ExitCode.WAITING
    how = "waiting for batches" if waiting else "stopped" if not ended else "partial" if left else "finished"
    bad = not ended and not waiting
    return f"{how}: {done}{failed}{rest}", "red" if bad else "yellow" if failed or left else "green"


def retry_cost(rows: int, totals: Totals, *, simulated: bool) -> str:
    finished = totals.done + totals.failed
    if simulated or not totals.cost or not finished:
        return ""
    return f" (about {money(totals.cost * rows // finished)})"


def retry_command(found: "Cause", reference: str, totals: Totals, *, simulated: bool) -> str:
    command = f"batchrun resume {_quoted(reference)}"
    if found.retryable < found.rows:
        command += f" --cause {_quoted(found.cause)}"
    return f"{command}{retry_cost(found.rows, totals, simulated=simulated)}"


def state_of(found: "Summary") -> str:
    """`partial`: ended as requested with rows left (`--limit`)."""
    if found.damage is not None:
        return "damaged"
    if found.running is not None:
        return "running"
    last = found.sessions[-1] if found.sessions else None
    if last is None or last.ended is None:
        return "new" if last is None else "killed"
    if last.exit_code in (ExitCode.OK, ExitCode.ROWS_FAILED):
        return "partial" if found.totals.pending or found.totals.unknown else "finished"
    if last.exit_code in (None, ExitCode.STOPPED):
        return "stopped"
    return f"stopped ({ExitCode(last.exit_code).name.lower()})"


def planned(found: "Summary") -> dict[str, Any]:
    """Raw JSON, so that one of another version is readable; empty if damaged."""
    with suppress(ValueError, RecursionError):
        return json.loads(found.run.meta.plan)
    return {}


def model_of(plan: Plan) -> str:
    if plan.model is None and plan.kind is Kind.BATCH:
        return "as each request says"
    return printable(plan.model or "-", 100)


def _quoted(text: str) -> str:
    import shlex  # noqa: PLC0415  only at the end of a run

    return shlex.quote(printable(text))


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count(number: float) -> str:
    """950, 12.3k, 4.1M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.1f}{unit}"
    return f"{number:.0f}" if number >= 10 or number == int(number) else f"{number:.1f}"


def money(cost: int) -> str:
    """Picodollars as $12.35, $0.0123, $0.00001."""
    dollars = usd(cost)
    if dollars >= 1 or not cost:
        return f"${dollars:,.2f}"
    return f"${dollars:.{max(4, 1 - math.floor(math.log10(dollars)))}f}"


def spending(progress: Progress) -> str:
    if not progress.priced:
        return ""
    ahead = progress.projected
    if ahead is None or progress.ended is not None:
        return money(progress.cost)
    return f"{money(progress.cost)} of about {money(ahead)}"


def bill(totals: Totals, *, simulated: bool = False) -> str:
    cost = totals.cost + totals.cost_reserved
    unpriced = f"{counted(totals.unpriced, 'attempt')} of unknown price" if totals.unpriced else ""
    if not cost:
        return f"unknown ({unpriced})" if unpriced and not simulated else ""
    maybe = totals.cost_possibly_billed + totals.cost_reserved
    parts = [
        f"{money(totals.cost_retries)} for replies that were requested again" if totals.cost_retries else "",
        f"up to {money(maybe)} for attempts that may have been billed" if maybe else "",
        unpriced and f"without {unpriced}",
        "simulated: nothing was paid" if simulated else "",
    ]
    details = ", ".join(part for part in parts if part)
    return money(cost) + (f" ({details})" if details else "")


_BATCH_NEWS = frozenset({"submitted", "unsure", "refused", "settled", "duplicate"})


def batch(event: BatchChanged) -> str | None:
    if event.state not in _BATCH_NEWS or (event.state == "submitted" and event.status not in ("validating", None)):
        return None
    named = f" ({printable(event.remote, 80)})" if event.remote else ""
    status = f", {printable(event.status, 40)}" if event.status else ""
    note = f": {printable(event.note, 200)}" if event.note else ""
    return f"batch {event.chunk}{named}: {counted(event.rows)} {event.state}{status}{note}"


def kinds(totals: Totals) -> dict[str, int]:
    """Picodollars."""
    if not totals.cost:
        return {}
    return {kind: getattr(totals, f"cost_{kind}") for kind in ("input", "cached", "cache_write", "output", "other")}


_KINDS = {
    "input": "input",
    "cached": "input from a cache",
    "cache_write": "cache writes",
    "output": "output",
    "other": "fees and attempts without usage",
}


def bill_by_kind(totals: Totals) -> str:
    """`$1.20 input, $4.10 output`."""
    return ", ".join(f"{money(cost)} {_KINDS[kind]}" for kind, cost in kinds(totals).items() if cost)


def bill_by_tier(tiers: "Sequence[TierShare]", *, chosen: bool = False) -> str:
    """`1,940 replies at flex $1.20`; empty if all were standard, unless `chosen`."""
    if not chosen and all(share.tier == "default" for share in tiers):
        return ""
    return ", ".join(f"{share.replies:,} replies at {printable(share.tier, 40)} {money(share.cost)}" for share in tiers)


def lanes_not_open(progress: Progress) -> str:
    """`lanes: gpu-2 down`."""
    found = [f"{printable(lane.name, 40)} {lane.state}" for lane in progress.lanes if lane.state is not LaneState.OPEN]
    return f"lanes: {', '.join(found)}" if found else ""


def notice(event: Notice | SendersChanged) -> str | None:
    if isinstance(event, Notice):
        return printable(event.message, 500)
    line = f"a sender was lost: {printable(event.why, 300)}; its requests in flight are sent again"
    return line if event.why else None


def senders(progress: Progress) -> str:
    """`senders: 1 ready, 1 suspect`; empty if all are ready."""
    counts = progress.senders
    if counts is None or not (counts.starting or counts.suspect or counts.lost):
        return ""
    named = ("starting", "ready", "suspect", "lost")
    return f"senders: {', '.join(f'{getattr(counts, name)} {name}' for name in named if getattr(counts, name))}"


def read_from_cache(totals: Totals) -> str:
    if not (totals.cached_tokens or totals.cache_write_tokens) or not totals.input_tokens:
        return ""
    written = f", {count(totals.cache_write_tokens)} written to one" if totals.cache_write_tokens else ""
    share = 100 * totals.cached_tokens / totals.input_tokens
    return f"{share:.0f} % of {count(totals.input_tokens)} input tokens were read from a prompt cache{written}"


def savings(totals: Totals) -> str:
    if not totals.deduplicated:
        return ""
    tokens = f", {counted(totals.saved_tokens, 'token')}" if totals.saved_tokens else ""
    return f"{counted(totals.deduplicated, 'request')}{tokens}{f', {money(totals.saved)}' if totals.saved else ''}"


def tokens(progress: Progress) -> str:
    cached = f" ({count(progress.cached_tokens)} cached)" if progress.cached_tokens else ""
    reasoning = f" ({count(progress.reasoning_tokens)} reasoning)" if progress.reasoning_tokens else ""
    return f"{count(progress.input_tokens)} tokens in{cached}, {count(progress.output_tokens)} out{reasoning}"


def waiting(wait: Waiting, now: float) -> str:
    message = f": {printable(wait.said, LONGEST_MESSAGE)}" if wait.said else ""
    if wait.until is None or wait.until <= now:
        return f"waiting: {wait.reason}{message}"
    return f"waiting {duration(wait.until - now)}: {wait.reason}{message}"


def bound(limits: LimitsChanged | None) -> str:
    if limits is None or limits.blocked_by not in (WaitReason.REQUESTS, WaitReason.TOKENS):
        return ""
    rate = limits.rpm if limits.blocked_by is WaitReason.REQUESTS else limits.tpm
    basis = f" ({limits.basis})" if limits.basis in ("inferred", "learned") else ""
    return f"limit: {count(rate)} {limits.blocked_by}{basis}" if rate is not None else ""


def blocked_by(progress: Progress) -> str:
    return waiting(progress.waiting, progress.now) if progress.waiting is not None else bound(progress.limits)


def failed(progress: Progress) -> str:
    if not progress.failed:
        return ""
    post = f" ({progress.failed_post:,} in post-processing)" if progress.failed_post else ""
    return f"{progress.failed:,} failed{post}"


def awaited(in_flight: int, post: int) -> str:
    later = f"; {post:,} in post-processing get a few more seconds; resume processes the rest" if post else ""
    return f"waiting for {counted(in_flight, 'request')} in flight{later}"


def status(progress: Progress) -> str:
    limits = progress.limits
    allowed = f"/{limits.allowed}" if limits is not None else ""
    parts = [
        f"{progress.finished:,}/{counted(progress.goal)}",
        f"{count(progress.row_rate)}/s",
        tokens(progress),
        spending(progress),
        failed(progress),
        f"{progress.in_flight}{allowed} in flight",
        f"{progress.post:,} in post-processing" if progress.post else "",
        f"{progress.retries:,} retries" if progress.retries else "",
        f"{progress.throttled:,} × 429" if progress.throttled else "",
        f"ETA {duration(progress.eta)}" if progress.eta is not None else "",
        blocked_by(progress),
        lanes_not_open(progress),
        senders(progress),
        f"stopping: {progress.in_flight} in flight" if progress.draining is not None else "",
    ]
    return ", ".join(part for part in parts if part)


class NamedShare(NamedTuple):
    name: str
    share: "LaneShare"


def lane_shares(reader: "Reader", plan: Plan) -> list[NamedShare]:
    """Reads all attempts."""
    names = {(lane["base_url"], lane["api_key_env"], lane["model"]): str(lane["name"]) for lane in plan.lanes}
    return [
        NamedShare(names.get((share.base_url, share.key_name, share.model), share.base_url), share)
        for share in reader.lanes()
    ]


def lane_values(found: Iterable[NamedShare]) -> list[dict[str, Any]]:
    return [{"name": lane.name, **plain(lane.share)} for lane in found]


def lane_lines(found: Iterable[NamedShare]) -> list[str]:
    return [_lane_line(lane.name, lane.share) for lane in found]


def _lane_line(name: str, share: "LaneShare") -> str:
    replies = "1 reply" if share.replies == 1 else f"{share.replies:,} replies"
    parts = [
        f"{printable(name, 60)}: {replies}",
        f"{share.seconds:.2f} s each" if share.seconds is not None else "",
        f"{share.throttled:,} × 429" if share.throttled else "",
        counted(share.errors, "error") if share.errors else "",
        f"{share.possibly_billed:,} may have been billed" if share.possibly_billed else "",
        money(share.cost) if share.cost else "",
    ]
    return ", ".join(part for part in parts if part)


_MONEY = frozenset((*MONEY, "charged"))


def plain(event: Any) -> dict[str, Any]:
    """Sets become sorted lists, enums their names, picodollars US dollars."""
    if dataclasses.is_dataclass(event):
        names = [item.name for item in dataclasses.fields(event)]
        return {name: _named(name, getattr(event, name)) for name in names}
    return {name: _named(name, value) for name, value in zip(event._fields, event, strict=True)}


def _named(name: str, value: Any) -> Any:
    return usd(value) if name in _MONEY and value is not None else _value(value)


def _value(value: Any) -> Any:
    if isinstance(value, Bill):
        return {kind: usd(cost) for kind, cost in value._asdict().items()}
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) or hasattr(value, "_fields"):
        return plain(value)
    if isinstance(value, frozenset):
        return sorted(str(item) for item in cast("frozenset[object]", value))
    if isinstance(value, tuple):
        return [_value(item) for item in cast("tuple[object, ...]", value)]
    return value


def prediction(found: "Prediction") -> str:
    """Empty if nothing can be compared."""
    parts: list[str] = []
    if found.cost is not None:
        low, expected, high = (money(int(amount * 1e12)) for amount in found.cost)
        was = money(int(found.actual_cost * 1e12))
        parts.append(f"{expected} ({low} to {high}), and it is {was}{_off(found.actual_cost, found.cost[1])}")
    if found.seconds is not None and found.seconds[1] >= _MEASURABLE:
        expected, was = duration(found.seconds[1]), duration(found.actual_seconds)
        parts.append(f"{expected} for the rest, and it took {was}{_off(found.actual_seconds, found.seconds[1])}")
    return "the pilot predicted " + "; ".join(parts) if parts else ""


def _off(was: float, expected: float) -> str:
    return "" if not expected else f" ({100 * (was - expected) / expected:+.0f} %)"
