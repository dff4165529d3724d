"""Pure functions from a snapshot and a width to lines of text."""

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from textual.content import Content

from batchrun.display import counted, printable
from batchrun.models import Flag
from batchrun.progress import Progress
from batchrun.report import words
from batchrun.tui.services import Phase, Point, RunSnapshot

Part = tuple[str, str] | str

DIM = "$foreground-muted"
_BLOCKS = " ▁▂▃▄▅▆▇█"
_PHASES = {
    Phase.CHECKING: ("◔", "$accent"),
    Phase.CONNECTING: ("◔", "$accent"),
    Phase.RUNNING: ("▶", "$success"),
    Phase.PAUSED: ("‖", "$warning"),
    Phase.STOPPING: ("◼", "$warning"),
    Phase.ENDED: ("■", "$foreground-muted"),
    Phase.REFUSED: ("✗", "$error"),
}
# each has its own sign, not only a colour
STATES = (
    ("done", "●", "$success"),
    ("failed", "✗", "$error"),
    ("skipped", "⊘", "$warning"),
    ("unknown", "?", "$warning"),
    ("in flight", "◌", "$accent"),
    ("in a batch", "◎", "$accent"),
    ("in post-processing", "◍", "$primary"),
    ("pending", "·", "$foreground-muted"),
)


SIGNS = {name: (sign, colour) for name, sign, colour in STATES}
_BAR = {
    "done": "█",
    "failed": "▚",
    "skipped": "░",
    "unknown": "▂",
    "in flight": "▒",
    "in a batch": "▄",
    "in post-processing": "▓",
    "pending": "─",
}


def joined(parts: Iterable[Part]) -> Content:
    return Content.assemble(*parts)


def heading(snapshot: RunSnapshot, width: int) -> Content:
    sign, colour = _PHASES[snapshot.phase]
    progress = snapshot.progress
    parts: list[Part] = [(f"{sign} {phase_text(snapshot)}", f"bold {colour}"), ("  ", ""), (snapshot.title, "bold")]
    if progress.model and not progress.simulated:
        parts.append((f"  {printable(progress.model, 40)}", "$secondary"))
    if progress.host and not progress.simulated:
        parts.append((f" at {printable(progress.host, 60)}", DIM))
    if progress.simulated:
        parts.append(("  SIMULATED", "bold $warning"))
    whole = joined([*parts, (f"  {progress.run or ''}", DIM)])
    return whole if whole.cell_length <= width else joined(parts)


def phase_text(snapshot: RunSnapshot) -> str:
    if snapshot.foreign is not None:
        return f"{snapshot.phase} in another process" if snapshot.bounds else "running elsewhere (read only)"
    if snapshot.state is not None:
        return snapshot.state
    ended = snapshot.progress.ended
    if snapshot.phase is Phase.ENDED and ended is not None:
        whole = "partial" if ended.totals.pending or ended.totals.unknown else "finished"
        return {0: whole, 3: f"{whole}, some rows failed"}.get(int(ended.exit_code), "stopped")
    return str(snapshot.phase)


def counts(progress: Progress) -> dict[str, int]:
    return {
        "done": progress.done,
        "failed": progress.failed,
        "skipped": progress.skipped,
        "unknown": progress.unknown,
        "in flight": progress.in_flight,
        "in a batch": progress.in_batches,
        "in post-processing": progress.post,
        "pending": progress.pending,
    }


def bar(progress: Progress, width: int) -> Content:
    found = counts(progress)
    shares = widths([found[name] for name, _, _ in STATES], width)
    return joined((_BAR[name] * share, colour) for (name, _, colour), share in zip(STATES, shares, strict=True))


def widths(values: Sequence[int], width: int) -> list[int]:
    """The sum is `width`; each value above 0 has at least 1."""
    total = sum(values)
    if total <= 0 or width <= 0:
        return [0] * (len(values) - 1) + [max(0, width)]
    shares = [max(1, value * width // total) if value else 0 for value in values]
    largest = max(range(len(values)), key=lambda place: shares[place])
    shares[largest] += width - sum(shares)
    return [max(0, share) for share in shares]


def account(progress: Progress, *, narrow: bool) -> Content:
    found = counts(progress)
    percent = 100 * progress.finished / progress.rows if progress.rows else 0.0
    shown = f"{percent:.1f} %" if 0 < percent < 99.95 or progress.finished == progress.rows else f"{percent:.2f} %"
    parts: list[Part] = [(f"{shown}", "bold"), "  "]
    for name, sign, colour in STATES:
        if found[name] or name in ("done", "failed"):
            text = words.count(found[name]) if narrow else f"{found[name]:,}"
            click = f" @click=screen.show_state({name!r})"
            parts += [(f"{sign} {text}", f"{f'bold {colour}' if found[name] else DIM}{click}")]
            parts += [(f" {name}", f"{DIM}{click}"), "  "]
    flags = [f"{count:,} {flag}" for flag in Flag if (count := getattr(progress, flag))]
    if progress.deduplicated and not narrow:
        saved = f", {words.money(progress.saved)} saved" if progress.saved else ""
        parts.append((f"({progress.deduplicated:,} from equal requests{saved})  ", DIM))
    if flags and not narrow:
        parts.append((f"({', '.join(flags)})  ", "$warning"))
    parts.append((f"of {words.count(progress.rows) if narrow else counted(progress.rows)}", DIM))
    return joined(parts)


def spark(history: Sequence[Point], width: int, field: str) -> str:
    rates = rates_of(history, field)[-width:]
    top = max(rates, default=0.0)
    if top <= 0:
        return " " * width
    line = "".join(_BLOCKS[min(8, round(8 * rate / top))] if rate > 0 else "▁" for rate in rates)
    return line.rjust(width)


def rates_of(history: Sequence[Point], field: str) -> list[float]:
    found: list[float] = []
    for before, after in pairwise(history):
        span = after.at - before.at
        gained = getattr(after, field) - getattr(before, field)
        found.append(max(0.0, gained / span) if span > 0 else 0.0)
    return found


def gauge(share: float | None, width: int) -> str:
    if share is None:
        return "·" * width
    full = round(max(0.0, min(1.0, share)) * width)
    return "█" * full + "░" * (width - full)


def speed_lines(snapshot: RunSnapshot, width: int, height: int) -> list[Content]:
    progress = snapshot.progress
    room = max(4, width - 20)
    lines = [
        _line("rows/s", words.count(progress.row_rate), spark(snapshot.history, room, "rows"), "$success"),
        _line("tokens/s", words.count(progress.token_rate), spark(snapshot.history, room, "tokens"), "$accent"),
        _pair("elapsed", words.duration(progress.elapsed), "ETA", eta(snapshot)),
        tokens_line(progress, width),
        *cost_lines(progress),
    ]
    if height < len(lines) and progress.priced:
        del lines[1]
    return lines


def tokens_line(progress: Progress, width: int) -> Content:
    whole = _tokens(progress, progress.cached_tokens, progress.reasoning_tokens)
    return whole if whole.cell_length <= width else _tokens(progress, 0, 0)


def _tokens(progress: Progress, cached: int, reasoning: int) -> Content:
    parts: list[Part] = [(f"{'tokens in':<10}", DIM), (f"{words.count(progress.input_tokens):>7}", "bold")]
    if cached:
        parts.append((f" ({words.count(cached)} cached)", DIM))
    parts += [("  out ", DIM), (words.count(progress.output_tokens), "bold")]
    if reasoning:
        parts.append((f" ({words.count(reasoning)} reasoning)", DIM))
    return joined(parts)


def cost_lines(progress: Progress) -> list[Content]:
    if not progress.priced:
        return [_pair("cost", "–", "simulated: no cost" if progress.simulated else "no price known", "")]
    ahead = progress.projected if progress.ended is None else None
    first: list[Part] = [(f"{'cost':<10}", DIM), (f"{words.money(progress.cost):>7}", "bold")]
    first += [("  of about ", DIM), (words.money(ahead), "bold")] if ahead is not None else []
    first += [("  simulated", "$warning")] if progress.simulated else []
    apart = (("retries", progress.cost_retries), ("maybe billed", progress.cost_possibly_billed))
    second: list[Part] = [f"{name} {words.money(amount)}  " for name, amount in apart if amount]
    second += [f"{progress.unpriced:,} unpriced"] if progress.unpriced else []
    kinds = (
        ("in", progress.cost_input),
        ("cached", progress.cost_cached),
        ("writes", progress.cost_cache_write),
        ("out", progress.cost_output),
        ("other", progress.cost_other),
    )
    third: list[Part] = [f"{name} {words.money(amount)}  " for name, amount in kinds if amount]
    tiers = progress.tiers.items()
    third += [f"{count:,} at {printable(tier, 20)} {words.money(paid)}  " for tier, (count, paid) in tiers]
    lines = [joined([(f"{'of it':<10}", DIM), *parts]) for parts in (second, third) if parts]
    return [joined(first), *lines]


def _line(name: str, value: str, drawn: str, colour: str) -> Content:
    return joined([(f"{name:<10}", DIM), (f"{value:>7}  ", "bold"), (drawn, colour)])


def _pair(name: str, value: str, other: str, second: str) -> Content:
    return joined([(f"{name:<10}", DIM), (f"{value:>7}", "bold"), (f"  {other} ", DIM), (second, "bold")])


def eta(snapshot: RunSnapshot) -> str:
    left = snapshot.progress.eta
    if snapshot.phase in (Phase.STOPPING, Phase.ENDED, Phase.REFUSED):
        return "–"
    if snapshot.phase is Phase.PAUSED:
        return "paused"
    if left is None:
        return "not known"
    return f"≈ {words.duration(left if left < 600 else 60 * round(left / 60)).removesuffix(' 0 s')}"


def limit_lines(snapshot: RunSnapshot, width: int, height: int) -> list[Content]:
    progress, limits, bounds = snapshot.progress, snapshot.progress.limits, snapshot.bounds
    room = max(4, min(30, width - 27))
    if limits is None:
        empty = [joined([(f"{name:<10}", DIM), ("–", DIM)]) for name in ("in flight", "requests", "tokens")]
        return [*empty, *_tries(progress, width, height - 3)]
    cap = f"/{bounds.cap if bounds else limits.cap}"
    share = progress.in_flight / limits.allowed if limits.allowed else 0.0
    used = f"{progress.in_flight}/{limits.allowed}"
    return [
        joined([(f"{'in flight':<10}", DIM), (f"{used:>9} ", "bold"), (gauge(share, room), "$accent"), (cap, DIM)]),
        _limit("requests", limits.rpm, progress.row_rate, room, bounds.rpm if bounds else None),
        _limit("tokens", limits.tpm, progress.token_rate, room, bounds.tpm if bounds else None),
        *_tries(progress, width, height - 3),
    ]


def _limit(name: str, rate: float | None, pace: float, room: int, mine: float | None) -> Content:
    # `pace` is per second, `rate` per minute
    if rate is None:
        return joined([(f"{name:<10}", DIM), (f"{'no limit':>9} ", DIM), ("·" * room, DIM)])
    used = 60 * pace / rate if rate > 0 else 1.0
    colour = "$warning" if used > 0.95 else "$primary"
    own = " set" if mine is not None else ""
    shown = f"{words.count(rate)}/min"
    return joined([(f"{name:<10}", DIM), (f"{shown:>9} ", "bold"), (gauge(used, room), colour), (own, DIM)])


def _tries(progress: Progress, width: int, height: int) -> list[Content]:
    attempts, retries = words.count(progress.attempts), words.count(progress.retries)
    throttled: Part = (words.count(progress.throttled), "bold $warning" if progress.throttled else "bold")
    paid: list[Part] = []
    if progress.possibly_billed:
        paid = [("  maybe billed ", DIM), (words.count(progress.possibly_billed), "bold $warning")]
    aligned: list[Part] = [(f"{'attempts':<10}", DIM), (f"{attempts:>9}", "bold")]
    close: list[Part] = [("attempts ", DIM), (attempts, "bold")]
    again: list[Part] = [("  retries ", DIM), (retries, "bold")]
    shed: list[Part] = [("  429 ", DIM), throttled, *paid]
    for parts in ([*aligned, *again, *shed], [*close, *again, *shed]):
        if joined(parts).cell_length <= width:
            return [joined(parts)]
    if height > 1:
        return [
            joined([*aligned, *again]),
            joined([(f"{'429':<10}", DIM), (f"{throttled[0]:>9}", throttled[1]), *paid]),
        ]
    whole = joined([*close, *shed])
    return [whole if whole.cell_length <= width or not paid else joined([("429 ", DIM), throttled, *paid])]


def status_lines(snapshot: RunSnapshot, width: int, height: int) -> list[Content]:
    lines: list[Content] = [waiting_line(snapshot)]
    if snapshot.trouble is not None:
        lines.append(joined([(printable(snapshot.trouble.message, 400), "$error")]))
        if snapshot.trouble.hint:
            lines.append(joined([("next: ", DIM), printable(snapshot.trouble.hint, 300)]))
    lines += retry_lines(snapshot, height - len(lines))
    lines += cause_lines(snapshot.progress, width)
    lines += [joined([("· ", DIM), (notice, DIM)]) for notice in reversed(snapshot.notices)]
    return folded(lines, width, height)


def folded(lines: Sequence[Content], width: int, height: int) -> list[Content]:
    spare = height - len(lines)
    found: list[Content] = []
    for line in lines:
        pieces = line.wrap(width) if width > 0 and spare > 0 else [line]
        shown = min(len(pieces), 1 + max(0, spare))
        found += [*pieces[: shown - 1], Content(" ").join(pieces[shown - 1 :])]
        spare -= shown - 1
    return found[:height]


def waiting_line(snapshot: RunSnapshot) -> Content:
    progress = snapshot.progress
    line = _PHASE_LINES.get(snapshot.phase)
    if line is not None:
        return line(snapshot)
    if progress.waiting is not None:
        return joined([(words.waiting(progress.waiting, progress.now), "bold $warning")])
    bound = words.lanes_not_open(progress) or words.senders(progress) or words.bound(progress.limits)
    return joined([(bound, "$warning") if bound else ("not waiting", DIM)])


def _checking(snapshot: RunSnapshot) -> Content:
    return joined([("checking the input ", "$accent"), (counted(snapshot.checked), "bold")])


def _stopping(snapshot: RunSnapshot) -> Content:
    progress, drain = snapshot.progress, snapshot.progress.draining
    wait = "" if drain is None else f", at most {words.duration(drain.until - progress.now)} more"
    post = f"; {progress.post:,} in post-processing get a few more seconds" if drain is not None and drain.post else ""
    return joined(
        [("stopping: ", "bold $warning"), f"waiting for {counted(progress.in_flight, 'request')} in flight{wait}{post}"]
    )


def _paused(snapshot: RunSnapshot) -> Content:
    flying = f"; {snapshot.progress.in_flight} still in flight" if snapshot.progress.in_flight else ""
    return joined([("paused: ", "bold $warning"), f"p resumes{flying}"])


def _ended(snapshot: RunSnapshot) -> Content:
    ended = snapshot.progress.ended
    if ended is None:
        return joined([(snapshot.state or "not running", "bold")])
    text, colour = words.outcome(ended.totals, ended.exit_code)
    theme = {"green": "$success", "yellow": "$warning", "red": "$error"}[colour]
    parts: list[Part] = [(text, f"bold {theme}")]
    parts += [("  wrote ", DIM), (printable(", ".join(ended.files), 200), "$success")] if ended.files else []
    return joined(parts)


def retry_lines(snapshot: RunSnapshot, room: int) -> list[Content]:
    progress, ended = snapshot.progress, snapshot.progress.ended
    if snapshot.phase is not Phase.ENDED or (ended is None and snapshot.journal is None):
        return []
    now = progress if ended is None else ended.totals
    kinds = (
        (now.in_batches, "collects the results of batches", "in batches"),
        (now.pending + now.unknown, "sends pending rows", "pending"),
        (now.retryable, "retries retryable rows", "retryable"),
        (now.failed - now.retryable, "retries rows that failed permanently", "failed permanently"),
    )
    found = [(rows, does, short) for rows, does, short in kinds if rows]
    key = ("r ", "bold $accent")
    if len(found) > max(1, room):
        return [joined([key, "resumes: " + " · ".join(f"{counted(rows)} {short}" for rows, _, short in found)])]
    costs = [
        ""
        if ended is None or short == "in batches"
        else words.retry_cost(rows, ended.totals, simulated=progress.simulated)
        for rows, _, short in found
    ]
    return [joined([key, f"{does}: {counted(rows)}{cost}"]) for (rows, does, _), cost in zip(found, costs, strict=True)]


_PHASE_LINES: dict[Phase, Callable[[RunSnapshot], Content]] = {
    Phase.CHECKING: _checking,
    Phase.CONNECTING: lambda _: joined([("connecting to the provider", "$accent")]),
    Phase.STOPPING: _stopping,
    Phase.PAUSED: _paused,
    Phase.ENDED: _ended,
    Phase.REFUSED: lambda _: joined([("nothing was sent", "bold $error")]),
}


def cause_lines(progress: Progress, width: int) -> list[Content]:
    room = max(8, width - 10)
    return [
        joined(
            [
                (f"{words.count(count):>7}", "bold $error"),
                (" × ", DIM),
                (printable(cause or "no cause", room), f"$foreground @click=screen.show_cause({place})"),
            ]
        )
        for place, (cause, count) in enumerate(list(progress.causes.items())[:6])
    ]


def clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
