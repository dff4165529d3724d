#!/bin/sh
# genai-prices treats one Usage as one call: a price that depends on the length of the prompt is applied to all tokens of
# a sum of calls. Four hundred calls of 1,000 tokens cost twice as much if their usage is added up first, without a
# warning. So the cost of a run must be added up call by call.
# Exits 0 while that is so, 1 if it has changed.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$dir/lib" genai-prices==0.2.3
PYTHONPATH="$dir/lib" python3 - <<'PY'
import sys
from importlib.metadata import version

from genai_prices import Usage, calc_price

call = Usage(input_tokens=1_000, output_tokens=0)
calls = [calc_price(call, "claude-sonnet-4-5", provider_id="anthropic").total_price for _ in range(400)]
summed = calc_price(Usage(input_tokens=400_000, output_tokens=0), "claude-sonnet-4-5", provider_id="anthropic").total_price
print(f"genai-prices {version('genai-prices')}")
print(f"expected: ${sum(calls)} for 400 calls, also for the sum of their usage")
print(f"seen:     ${summed} for the sum of their usage")
sys.exit(0 if summed == 2 * sum(calls) else 1)
PY
