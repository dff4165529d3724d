"""No idle slot: rows of one fixed latency, against the wall time that the latency alone would take."""

import math

from measure import Bench, MissingError
from mockserver import serving

ROWS, LATENCY, IN_FLIGHT = 9_984, 0.5, 256
IDEAL = ROWS / IN_FLIGHT * LATENCY


def run(bench: Bench) -> None:
    """Fixed, adaptive from cold, and two others for comparison."""
    fixed = ("--concurrency", str(IN_FLIGHT), "--concurrency-fixed")
    _batchrun(bench, "fixed", 1.03, 1.08, *fixed)
    _batchrun(bench, "adaptive from cold", 1.15, None, "--concurrency", str(IN_FLIGHT))
    for runner in ("aiohttp", "openai"):
        _other(bench, runner)


def _batchrun(bench: Bench, how: str, requests: float, command: float | None, *options: str) -> None:
    with serving(bench.program, cpu=bench.server_cpu, latency_ms=LATENCY * 1000) as mock:
        spent = bench.batchrun(mock.base_url, ROWS, *options)
        at, peak = mock.arrivals().at, mock.peak()
    what = f"{ROWS:,} rows, {LATENCY * 1000:.0f} ms, {IN_FLIGHT} in flight {how}"
    between = at[-1] + LATENCY - at[0]
    figure = f"{between:.2f} s, {between / IDEAL:.3f} × the ideal {IDEAL:.1f} s (peak {peak})"
    bench.table.row("3", f"{what}: first to last request", figure, f"≤ {requests} ×", between <= requests * IDEAL)
    told = f"{spent.wall:.2f} s, {spent.wall / IDEAL:.3f} ×"
    bench.table.row(
        "3",
        f"{what}: whole command",
        told,
        f"≤ {command} ×" if command else "",
        command and spent.wall <= command * IDEAL,
    )


def _other(bench: Bench, runner: str) -> None:
    with serving(bench.program, cpu=bench.server_cpu, latency_ms=LATENCY * 1000) as mock:
        try:
            spent = bench.other(runner, mock.base_url, ROWS, IN_FLIGHT)
        except MissingError:
            return
        peak = mock.peak()
    ideal = math.ceil(ROWS / IN_FLIGHT) * LATENCY
    bench.table.row(
        "3", f"the same: {runner}, whole command", f"{spent.wall:.2f} s, {spent.wall / ideal:.3f} × (peak {peak})"
    )
