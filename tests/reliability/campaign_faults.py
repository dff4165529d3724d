"""The fault campaign: thousands of rows against a provider with every fault at once; the output accounts for each row.

    python tests/reliability/campaign_faults.py [SEEDS [ROWS]]         the figures, and exit code 1 if one is bad

The provider is the simulated one in a process of its own; each seed draws other faults. Rows that fail for now are
sent again by one `resume`. The seeds run side by side, since each run mostly waits.
"""

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from program import Program, Ran

from batchrun import sim

SHARES = {
    "500": 0.01, "502": 0.01, "503": 0.02, "504": 0.01, "529": 0.01, "408": 0.005, "409": 0.005, "520": 0.005,
    "reset": 0.01, "reset-late": 0.01, "close": 0.01,
    "truncate": 0.01, "cut": 0.01, "garbage": 0.005, "html": 0.005, "empty": 0.005, "null": 0.005, "list": 0.005,
    "error": 0.01, "badutf8": 0.005, "nochoices": 0.005, "nocontent": 0.005, "slow": 0.002, "hang": 0.001,
    "nousage": 0.01, "refusal": 0.01, "filter": 0.01, "context": 0.01, "400": 0.005, "413": 0.002, "422": 0.005,
    "418": 0.002, "throttle": 0.002, "concurrency": 0.005,
}  # fmt: skip
POISON = {"500": "poison-500", "reset": "poison-reset", "html": "poison-html"}
AMPLIFICATION = 1.5
RPM = 18_000
"""The provider's limit: its 429s come from the rate, as real ones do."""


def one(seed: int, rows: int) -> list[str]:
    """One run and its resume; what is bad about it."""
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        program = Program(Path(name))
        poison = list(POISON.values())
        program.rows(f"row {number} {poison[number % 3] if number % 500 == 7 else ''}" for number in range(rows))
        faults = [f"{fault}={share}" for fault, share in SHARES.items()]
        faults += [f"{fault}=text:{word}" for fault, word in POISON.items()]
        told = {"latency": "0.01-0.1", "faults": faults, "seed": seed, "retry_after": "ms", "drip": 0.05, "rpm": RPM}
        began = time.monotonic()
        with sim.spawn(sim.from_json(told)) as base_url:
            args = program.send(base_url, "--concurrency", "64", "--timeout", "5s", "--quiet")
            first = program(*args, timeout=1200)
            again = program("resume", "--quiet", timeout=1200)
            seen = sim.stats(base_url, prompts=False)
        return _judged(program, first, again, rows, seen["calls"], f"seed {seed}: {time.monotonic() - began:.0f} s")


def _judged(  # noqa: PLR0917 - what there is to judge
    program: Program, first: Ran, again: Ran, rows: int, calls: int, title: str
) -> list[str]:
    done = [row["id"] for row in program.output()]
    failed = program.failed()
    causes = {reason["cause"] for reason in failed.values()}
    amplification = calls / rows
    print(
        f"{title}, {len(done)} done, {len(failed)} failed, {amplification:.3f} calls a row; {again.account}", flush=True
    )
    bad = {
        f"exit codes {first.code}, {again.code}": {first.code, again.code} <= {0, 3},
        "rows missing or twice": sorted([*done, *failed]) == sorted(f"r{number}" for number in range(1, rows + 1)),
        "a foreign exception": "Traceback" not in first.err + again.err and "internal error" not in causes,
        f"amplification over {AMPLIFICATION}": amplification <= AMPLIFICATION,
        "the journal is not whole": program("check", "last").code == 0,
    }
    return [what for what, holds in bad.items() if not holds]


def main(arguments: list[str]) -> int:
    seeds, rows = [*map(int, arguments), *(5, 5000)[len(arguments) :]]
    with ThreadPoolExecutor(seeds) as side_by_side:
        judged = list(side_by_side.map(one, range(seeds), [rows] * seeds))
    found = [f"seed {seed}: {what}" for seed, bad in enumerate(judged) for what in bad]
    print("\n".join(["BAD:", *found]) if found else "all as promised")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
