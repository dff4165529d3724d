"""CPU per request: whole runs of two sizes, the smaller one taken off; alternating rounds, medians."""

from collections.abc import Callable
from typing import NamedTuple

from measure import Bench, MissingError, Spent, median
from mockserver import Mock, serving
from mockserver import ceiling as measured_ceiling

ROUNDS = 5
IN_FLIGHT = (64, 512)
FLOOR = "aiohttp"
TARGET, LEAST = 2.5, 3.5


class Runner(NamedTuple):
    """What is compared, and the two sizes that tell its cost; the slow ones get smaller ones and fewer rounds."""

    name: str
    label: str
    sizes: tuple[int, int]
    rounds: int
    in_flight: tuple[int, ...] = IN_FLIGHT


RUNNERS = (
    Runner(FLOOR, "(a) bare aiohttp, prepared bytes", (2_000, 22_000), ROUNDS),
    Runner("batchrun", "batchrun, a whole run", (2_000, 22_000), ROUNDS),
    Runner("openai", "(b) AsyncOpenAI.create, gather and semaphore", (500, 2_000), ROUNDS),
    Runner("openai-aiohttp", "(c) the same on DefaultAioHttpClient", (500, 2_000), ROUNDS),
    Runner("sequential", "(0) OpenAI.create in a loop", (200, 1_200), 3, (1,)),
    Runner("litellm", "(d) litellm, gather and semaphore", (200, 700), 3),
    Runner("langchain", "(d) langchain, gather and semaphore", (200, 700), 3),
)


def ceiling(bench: Bench) -> None:
    """How much the mock provider could take."""
    with serving(bench.program, cpu=bench.server_cpu) as mock:
        for in_flight in IN_FLIGHT:
            rate = max(measured_ceiling(bench.program, mock, in_flight, 200_000, bench.client_cpu) for _ in range(3))
            bench.table.row("1", f"the mock provider's own ceiling, {in_flight} in flight", f"{rate:,.0f} requests/s")


def run(bench: Bench) -> None:
    """All runners, at both concurrencies."""
    with serving(bench.program, cpu=bench.server_cpu) as mock:
        for in_flight in IN_FLIGHT:
            _compare(bench, mock, in_flight)


def _compare(bench: Bench, mock: Mock, in_flight: int) -> None:
    spent: dict[str, list[float]] = {}
    for number in range(ROUNDS):
        for runner in RUNNERS:
            if (
                number < runner.rounds
                and in_flight in (*runner.in_flight, IN_FLIGHT[0])
                and spent.get(runner.name) != []
            ):
                spent.setdefault(runner.name, [])
                spent[runner.name] += _round(bench, mock, runner, in_flight)
    ratios = {
        name: median([one / floor for one, floor in zip(found, spent[FLOOR], strict=False)])
        for name, found in spent.items()
        if found
    }
    for runner in RUNNERS:
        if runner.name in spent:
            _tell(bench, runner, in_flight, spent[runner.name], ratios.get(runner.name))


def _round(bench: Bench, mock: Mock, runner: Runner, in_flight: int) -> list[float]:
    """CPU seconds per request in this round; none if the runner is not installed."""
    small, large = runner.sizes
    measure = _measure(bench, mock, runner, in_flight)
    try:
        return [(measure(large).cpu - measure(small).cpu) / (large - small)]
    except MissingError:
        return []


def _measure(bench: Bench, mock: Mock, runner: Runner, in_flight: int) -> Callable[[int], Spent]:
    def measure(rows: int) -> Spent:
        if runner.name == "batchrun":
            return bench.batchrun(
                mock.base_url, rows, "--concurrency", str(in_flight), "--concurrency-fixed", pinned=True
            )
        return bench.other(runner.name, mock.base_url, rows, in_flight, pinned=True)

    return measure


def _tell(bench: Bench, runner: Runner, in_flight: int, found: list[float], ratio: float | None) -> None:
    what = f"CPU per request, {in_flight if len(runner.in_flight) > 1 else 1} in flight: {runner.label}"
    if ratio is None:
        bench.table.row("1", what, "not installed")
        return
    figure = f"{median(found) * 1e6:,.0f} µs, {ratio:.2f} × (a)"
    if runner.name == "batchrun":
        bench.table.row("2", what, figure, f"≤ {TARGET} × (at least {LEAST})", ratio <= TARGET)
    else:
        bench.table.row("1", what, figure)
