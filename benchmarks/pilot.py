"""How far off a pilot's forecast is: seeded runs with rows and replies of differing lengths against the simulator.

    python benchmarks/pilot.py [--runs 40] [--rows 2000] [--pilot 50]

Each run is `batchrun plan --pilot` and then the run itself, in processes of their own, with prices of 1 and 10 USD per
million tokens. Row lengths are log-normal, uniform or of two kinds; replies follow from them, cut at differing limits.
Time is measured where requests or tokens per minute bind; a run takes about 25 seconds, so 40 take a quarter of an hour.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

WORDS = ["river", "stone", "evening", "a", "of", "the", "weather", "signal", "under", "morning", "it", "measure"]


class Result(NamedTuple):
    """One run against its forecast: shares of what was expected."""

    inside: bool
    width: float
    off: float
    binding: str
    time_off: float


def sentences(random: Random, words: int) -> str:
    """So many words in sentences of 4 to 15."""
    parts: list[str] = []
    while words > 0:
        count = min(words, random.randint(4, 15))
        parts.append(" ".join(random.choice(WORDS) for _ in range(count)).capitalize() + ".")
        words -= count
    return " ".join(parts)


def lengths(random: Random, rows: int) -> Iterable[int]:
    """The words of each row."""
    kind = random.choice(["log-normal", "uniform", "two kinds"])
    for _ in range(rows):
        if kind == "log-normal":
            yield max(3, min(1500, int(random.lognormvariate(4.0, 0.6))))
        elif kind == "uniform":
            yield random.randint(5, 200)
        else:
            yield random.randint(100, 200) if random.random() < 0.3 else random.randint(5, 40)


def settings(random: Random, seed: int) -> str:
    """The configuration of one run; requests or tokens per minute bind in turn."""
    limit = "rpm = 6000" if seed % 2 else "tpm = 3000000"
    return (
        "[profiles.sim]\ninput_price = 1.0\noutput_price = 10.0\n"
        f"[sim]\n{limit}\nseed = {seed}\nreply_tokens = {random.choice([64, 150, 400])}\n"
        f'latency = "{random.choice(["0.05-0.2", "lognormal:0.1:0.4"])}"\n'
    )


def batchrun(folder: Path, *args: str) -> list[dict[str, Any]]:
    """The JSON lines of one command."""
    command = [sys.executable, "-m", "batchrun", *args]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def trial(seed: int, rows: int, pilot: int) -> Result:
    """One seeded run."""
    random = Random(seed)  # noqa: S311  seeded rows, no secret
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "batchrun.toml").write_text(settings(random, seed))
        with (folder / "in.jsonl").open("w") as stream:
            for words in lengths(random, rows):
                stream.write(json.dumps({"text": sentences(random, words)}) + "\n")
        same = ("-i", "in.jsonl", "-p", "summarize", "-P", "sim", "-o", "out.jsonl")
        (said,) = batchrun(folder, "plan", *same, "--pilot", str(pilot), "--json", "--quiet")
        *_, ended = batchrun(folder, "run", *same, "--json")
    low, expected, high = ended["foretold"]["dollars"]
    cost, seconds = ended["foretold"]["dollars_were"], ended["foretold"]["seconds_were"]
    width = max(expected - low, high - expected) / expected
    return Result(
        low <= cost <= high,
        width,
        cost / expected - 1,
        said["binding"],
        seconds / said["seconds"]["expected"] - 1,
    )


def main() -> None:
    """Run them all and say how many were as foretold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for name, default in (("runs", 40), ("rows", 2000), ("pilot", 50), ("first", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    found: list[Result] = []
    for seed in range(options.first, options.first + options.runs):
        result = trial(seed, options.rows, options.pilot)
        found.append(result)
        verdict = "in the range" if result.inside else "NOT in the range"
        print(
            f"{seed:3}  cost {result.off:+7.1%}, range ±{result.width:5.1%}, {verdict}; "
            f"time {result.time_off:+7.1%}, bound by {result.binding}",
            flush=True,
        )
    timed = [result for result in found if result.binding.endswith("per minute")]
    print(f"cost in the stated range: {sum(result.inside for result in found)} of {len(found)}")
    print(f"widest range: ±{max(result.width for result in found):.1%}")
    print(
        f"worst time where a rate binds: {max((abs(result.time_off) for result in timed), default=0):.1%} of {len(timed)}"
    )


if __name__ == "__main__":
    main()
