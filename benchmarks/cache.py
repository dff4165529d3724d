"""What prompt caches save: the same rows by this build and by another, against the simulated provider.

    .venv/bin/python benchmarks/cache.py --base /path/to/an/earlier/checkout [--rounds 3]

Four runs of 2,000 rows, each with 40 tokens of its own and about 100 out. The provider keeps marked prefixes only (reads at
0.1 and writes at 1.25 times the input's price, from 1,024 tokens on, for five minutes and one key), marked ones and the last
message's (`implicit`), or whatever is repeated (`automatic`). Input is charged as the provider counts it (`charged_input_tokens`); the total
counts output at six times the input's price. Rounds alternate; times are the best of the rounds, since a busy machine only ever adds to them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import NamedTuple

from batchrun import sim

ROWS = 2_000
OUTPUT_FACTOR = 6
MODEL = "gpt-5.6-luna"
WORDS = ["alpha", "beta", "gamma", "delta", "kappa", "lambda", "sigma", "omega", "river", "stone", "paper", "light"]


class Case(NamedTuple):
    """A provider's cache, the tokens of the prompt's fixed part, and the most that input may cost beside the base."""

    cache: str
    fixed: int
    most: float


CASES = (
    Case("explicit", 3_000, 0.20),
    Case("implicit", 3_000, 1.0),
    Case("automatic", 3_000, 1.0),
    Case("explicit", 300, 1.0),
)


class Spent(NamedTuple):
    """Of one command: input tokens as they are charged, output tokens, seconds from the first to the last call at the
    provider, and of the whole command, whose start alone takes seconds on a busy machine."""

    input: float
    output: int
    seconds: float
    whole: float

    @property
    def total(self) -> float:
        """In tokens of input."""
        return self.input + OUTPUT_FACTOR * self.output


def main() -> None:
    """Every case by both builds, and a line for each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", type=Path, required=True, help="a checkout with its .venv")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=ROWS)
    given = parser.parse_args()
    builds = {"base": given.base / ".venv/bin/batchrun", "this": Path(sys.executable).with_name("batchrun")}
    print(f"{'cache':<10} {'fixed':>6}  {'input':>22}  {'total':>22}  {'seconds (command)':>24}")
    for case in CASES:
        spent: dict[str, list[Spent]] = {name: [] for name in builds}
        for _ in range(given.rounds):
            for name, program in builds.items():
                spent[name].append(measure(program, case, given.rows))
        tell(case, spent["base"], spent["this"])


def measure(program: Path, case: Case, rows: int) -> Spent:
    """One command against a provider of its own."""
    settings = sim.Settings(cache=case.cache, latency=sim.parse_latency("0.4-0.8"), reasoning=57, reply="echo")
    with tempfile.TemporaryDirectory() as name, sim.spawn(settings) as base_url:
        directory = Path(name)
        write(directory, case, rows)
        environment = {**os.environ, "OPENAI_API_KEY": "none", "XDG_CONFIG_HOME": name}
        command = [program, "run", "-i", "in.jsonl", "-p", "p.prompty", "--base-url", base_url, "-m", MODEL]
        began = time.monotonic()
        subprocess.run([*command, "-o", "out.jsonl", "-q"], cwd=directory, env=environment, check=True)
        whole = time.monotonic() - began
        stats = sim.stats(base_url, prompts=False)
        assert stats["answered"] == rows, stats
        seconds = stats["last"] - stats["first"]
        return Spent(stats["charged_input_tokens"], stats["output_tokens"], seconds, whole)


def write(directory: Path, case: Case, rows: int) -> None:
    """The prompt and the rows of a case, always the same."""
    random = Random(1)  # noqa: S311  not a secret
    prompt = f"---\nname: p\n---\nsystem:\n{text(random, case.fixed)}\nuser:\n{{{{ text }}}}\n"
    (directory / "p.prompty").write_text(prompt)
    lines = [json.dumps({"id": number, "text": text(random, 40)}) for number in range(rows)]
    (directory / "in.jsonl").write_text("\n".join(lines) + "\n")


def text(random: Random, tokens: int) -> str:
    """Words of so many tokens, at four bytes each."""
    found = ""
    while len(found) < 4 * tokens:
        found += random.choice(WORDS) + " "
    return found[: 4 * tokens - 1] + "."


def tell(case: Case, base: list[Spent], this: list[Spent]) -> None:
    """One line: what each build spent, and the ratio."""
    median = statistics.median
    best = {"input": median, "total": median, "seconds": min, "whole": min}
    ratios = [
        find([getattr(one, kind) for one in this]) / find([getattr(one, kind) for one in base])
        for kind, find in best.items()
    ]
    shown = [
        f"{median([getattr(one, kind) for one in base]):>10,.0f} → {ratio:>6.3f} ×"
        for kind, ratio in zip(("input", "total"), ratios, strict=False)
    ]
    times = f"{min([one.seconds for one in base]):>5.1f} → {ratios[2]:.2f} × ({ratios[3]:.2f} ×)"
    met = "met" if ratios[0] <= case.most and ratios[2] <= 1.05 else "NOT MET"
    print(f"{case.cache:<10} {case.fixed:>6}  {'  '.join(shown)}  {times:>24}  {met} (at most {case.most} ×, 1.05 ×)")


if __name__ == "__main__":
    main()
