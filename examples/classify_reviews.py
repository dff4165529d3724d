"""Classify the reviews beside this file and count the results, with the simulated provider: no key, no cost.

For a real provider, set its key and use another profile: profile="openai", model="gpt-5.4-mini", max_cost=1.
"""

import csv
from collections import Counter
from pathlib import Path

import batchrun

HERE = Path(__file__).parent

with (HERE / "reviews.csv").open(encoding="utf-8", newline="") as file:
    reviews = list(csv.DictReader(file))

result = batchrun.run(reviews, prompt=HERE / "classify.prompty", output="reviews.jsonl", profile="sim")

print(Counter(row["sentiment"] for row in result.rows))
for outcome in result.outcomes:
    if outcome.state == "failed":
        print(f"row {outcome.line}: {outcome.cause}: {outcome.message}")
print(f"{result.totals.done} of {result.totals.rows} rows done, in {result.output}")
