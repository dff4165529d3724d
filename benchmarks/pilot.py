"""How far off a pilot's forecast is: seeded runs with rows and replies of differing lengths against the simulator.

    python benchmarks/pilot.py [--runs 40] [--first 1] [--rows 2000] [--pilot 50] [--results FILE]

Each run is `batchrun plan --pilot` and then the run itself, in processes of their own, with prices of 1 and 10 USD per
million tokens. Row lengths are log-normal, uniform or of two kinds. In two runs of three, replies follow from the rows,
cut at differing limits; in every third each row has a limit of its own, which its length does not tell. Requests or
tokens per minute bind in turn, and the time that counts is that of sending, as the run states it: start-up is not in it.

A run takes about 25 seconds, so 40 take a quarter of an hour. With `--results` each one is kept as a JSON line, those
that are there are not repeated, and the table and the verdicts are of all of them: so it can be run in parts. Costs do
not depend on what else the machine does, times do.
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
SHARE = 0.85
"""Of the runs, how many must cost what was predicted: 34 of 40."""
WIDEST = 0.25
TIME = 0.15


class Result(NamedTuple):
    """One run against its forecast. Dollars and seconds; `kind` is what its rows and replies are like."""

    seed: int
    kind: str
    low: float
    expected: float
    high: float
    cost: float
    predicted_seconds: float
    seconds: float
    binding: str

    @property
    def inside(self) -> bool:
        """Whether the cost was in the stated range."""
        return self.low <= self.cost <= self.high

    @property
    def width(self) -> float:
        """The larger side of the range, as a share of what was expected."""
        return max(self.expected - self.low, self.high - self.expected) / self.expected

    @property
    def off(self) -> float:
        """How far the cost was from what was expected, as a share of that."""
        return self.cost / self.expected - 1

    @property
    def time_off(self) -> float:
        """The same for the time."""
        return self.seconds / self.predicted_seconds - 1

    @property
    def line(self) -> str:
        """The line of the table."""
        return (
            f"{self.seed:4}  {self.kind:26} ${self.expected:.4f}  ±{self.width:5.1%}  ${self.cost:.4f}  {self.off:+6.1%}  "
            f"{'yes' if self.inside else 'NO ':4} {self.predicted_seconds:6.1f} s {self.seconds:6.1f} s  {self.time_off:+6.1%}  {self.binding}"
        )


HEAD = "seed  rows, replies              predicted range   cost     off     in it? predicted  took     off     bound by"


def sentences(random: Random, words: int) -> str:
    """So many words in sentences of 4 to 15."""
    parts: list[str] = []
    while words > 0:
        count = min(words, random.randint(4, 15))
        parts.append(" ".join(random.choice(WORDS) for _ in range(count)).capitalize() + ".")
        words -= count
    return " ".join(parts)


def lengths(random: Random, kind: str) -> int:
    """The words of one row."""
    if kind == "log-normal":
        return max(3, min(1500, int(random.lognormvariate(4.0, 0.6))))
    if kind == "uniform":
        return random.randint(5, 200)
    return random.randint(100, 200) if random.random() < 0.3 else random.randint(5, 40)


def lines(random: Random, kind: str, rows: int, *, own_limits: bool) -> Iterable[dict[str, Any]]:
    """The input: rows for a prompt, or requests with limits of output of their own."""
    for _ in range(rows):
        text = sentences(random, lengths(random, kind))
        if own_limits:
            limit = max(3, min(400, int(random.lognormvariate(3.5, 0.5))))
            yield {"messages": [{"role": "user", "content": text}], "max_completion_tokens": limit}
        else:
            yield {"text": text}


def settings(random: Random, seed: int, *, own_limits: bool) -> str:
    """The configuration of one run; requests or tokens per minute bind in turn, for about 20 seconds."""
    limit = "rpm = 6000" if seed % 2 else f"tpm = {600_000 if own_limits else 3_000_000}"
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
    kind, own_limits = random.choice(["log-normal", "uniform", "two kinds"]), seed % 3 == 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "batchrun.toml").write_text(settings(random, seed, own_limits=own_limits))
        with (folder / "in.jsonl").open("w") as stream:
            for line in lines(random, kind, rows, own_limits=own_limits):
                stream.write(json.dumps(line) + "\n")
        prompt = () if own_limits else ("-p", "summarize")
        same = ("-i", "in.jsonl", *prompt, "-P", "sim", "-o", "out.jsonl")
        (said,) = batchrun(folder, "plan", *same, "--pilot", str(pilot), "--json", "--quiet")
        *_, ended = batchrun(folder, "run", *same, "--json")
    predicted, seconds = ended["prediction"], said["seconds"]["expected"]
    replies = "replies apart" if own_limits else "replies follow"
    return Result(
        seed,
        f"{kind}, {replies}",
        *predicted["cost"],
        predicted["actual_cost"],
        seconds,
        predicted["actual_seconds"],
        said["binding"],
    )


def verdicts(found: list[Result]) -> Iterable[str]:
    """Each target, what was measured, and whether it is met."""
    timed = [result for result in found if result.binding.endswith("per minute")]
    inside, needed = sum(result.inside for result in found), round(SHARE * len(found))
    widest, worst = max(result.width for result in found), max((abs(result.time_off) for result in timed), default=0.0)
    within = sum(abs(result.time_off) <= TIME for result in timed)
    yield f"{_verdict(inside >= needed)}  cost in the stated range: {inside} of {len(found)}; target {needed}"
    yield f"{_verdict(widest <= WIDEST)}  widest range: ±{widest:.1%}; target ±{WIDEST:.0%}"
    yield (
        f"{_verdict(within == len(timed))}  time within {TIME:.0%} where a rate binds: {within} of {len(timed)}, "
        f"worst {worst:.1%}; target all"
    )


def _verdict(met: bool) -> str:
    return "met    " if met else "NOT MET"


def kept(path: Path | None) -> dict[int, Result]:
    """The results of earlier parts, by seed."""
    if path is None or not path.exists():
        return {}
    return {result.seed: result for result in (Result(*json.loads(line)) for line in path.open())}


def main() -> None:
    """Run them all and say how many were as predicted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for name, default in (("runs", 40), ("rows", 2000), ("pilot", 50), ("first", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    found = kept(options.results)
    print(HEAD)
    for seed in sorted({*found, *range(options.first, options.first + options.runs)}):
        if seed not in found:
            found[seed] = trial(seed, options.rows, options.pilot)
            if options.results is not None:
                with options.results.open("a") as stream:
                    stream.write(json.dumps(found[seed]) + "\n")
        print(found[seed].line, flush=True)
    print(*verdicts(list(found.values())), sep="\n")


if __name__ == "__main__":
    main()
