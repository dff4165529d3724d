"""A limit is a target: how much of an allowed rate is used, and how often it is overstepped, as the provider counts."""

import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from measure import Bench, body
from mockserver import Arrivals, serving

SETTLED = 10.0
USED, REFUSED = 0.97, 0.005


class Case(NamedTuple):
    """A provider's limit of requests or tokens per second, whether `batchrun` is told, and for how long it runs."""

    rate: float
    known: bool
    tokens: bool
    seconds: int
    latency: float = 0.1

    @property
    def name(self) -> str:
        """As the table has it."""
        what = f"{self.rate:,.0f} {'tokens' if self.tokens else 'requests'}/s"
        return f"{what}, {'known by ' + self.flag if self.known else 'in headers'}"

    @property
    def flag(self) -> str:
        """The option that tells it."""
        return "--tpm" if self.tokens else "--rpm"


SLOW = tuple(Case(rate, known, False, 66) for rate in (10, 200) for known in (False, True))
TOKENS = tuple(Case(5_000, known, True, 66) for known in (False, True))
FAST = tuple(Case(2_000, known, False, 25) for known in (False, True))


def run(bench: Bench) -> None:
    """The slow ones at the same time, since they hardly use the machine; the fast ones alone."""
    with ThreadPoolExecutor(len(SLOW) + len(TOKENS)) as pool:
        for case, found in zip(
            (*SLOW, *TOKENS), pool.map(lambda case: seen(bench, case), (*SLOW, *TOKENS)), strict=True
        ):
            _tell(bench, case, found)
    for case in FAST:
        _tell(bench, case, seen(bench, case))


_making = threading.Lock()


def seen(bench: Bench, case: Case, *more: str) -> Arrivals:
    """What the provider counted in the time, with `more` options; then the run is stopped."""
    per_minute = case.rate * 60
    rows = round(case.rate * (case.seconds + 5) / (_tokens_a_row() if case.tokens else 1))
    limit = {"tpm" if case.tokens else "rpm": per_minute}
    options = ["--stop-after", f"{case.seconds}s", "--drain", "2s"] + (
        [case.flag, str(per_minute)] if case.known else []
    )
    with serving(bench.program, latency_ms=case.latency * 1000, **limit) as mock:
        with _making:
            command = bench.command(
                mock.base_url, rows, *options, *more, name=f"limits-{case.rate}-{case.known}-{case.tokens}"
            )
        done = subprocess.run(
            command, cwd=bench.folder, env=bench.environment, capture_output=True, check=False, text=True
        )
        if done.returncode not in (0, 6):
            raise RuntimeError(done.stderr)
        return mock.arrivals()


def _tokens_a_row() -> float:
    return len(body(1000)) / 4 + 8


def _tell(bench: Bench, case: Case, seen: Arrivals) -> None:
    late = seen.after(SETTLED)
    seconds = late.at[-1] - (seen.at[0] + SETTLED)
    admitted = (
        sum(used for used, ok in zip(late.tokens, late.admitted, strict=True) if ok)
        if case.tokens
        else late.admitted.count(True)
    )
    used = admitted / seconds / case.rate
    share = seen.refused / len(seen.at)
    table = bench.table
    table.row("4", f"{case.name}: used after {SETTLED:.0f} s", f"{used:.1%}", f"≥ {USED:.0%}", used >= USED)
    if case.known:
        table.row("4", f"{case.name}: 429s", f"{seen.refused} of {len(seen.at):,}", "0", seen.refused == 0)
    else:
        table.row(
            "4",
            f"{case.name}: 429s",
            f"{seen.refused} of {len(seen.at):,}, {share:.2%}",
            f"< {REFUSED:.1%}",
            share < REFUSED,
        )
    for span in (1, 60):
        if span <= case.seconds:
            _tell_most(bench, case, seen, span)


def _tell_most(bench: Bench, case: Case, seen: Arrivals, span: int) -> None:
    """The most within any stretch of time. Requests of many tokens come whole, so a second of tokens has no target."""
    grain = max(seen.tokens) if case.tokens else 1
    most = seen.most_tokens_in(span) if case.tokens else seen.most_in(span)
    allowed = case.rate * span * 1.01 + grain
    target = "" if case.tokens and span == 1 else f"≤ {allowed:,.0f}"
    bench.table.row("4", f"{case.name}: most in any {span} s", f"{most:,}", target, most <= allowed if target else None)
