#!/bin/sh
# ray.init changes the environment of the process, and ray.shutdown does not restore it: child processes that are started
# later inherit Ray's settings, and a later ray.init uses the settings of the first.
# Exits 0 while that is so, 1 if it has changed.
set -eu
dir=$(mktemp -d /tmp/rayXXXX)
trap 'rm -rf "$dir"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$dir/lib" ray==2.60.0
PYTHONPATH="$dir/lib" python3 - "$dir" <<'PY'
import os
import sys

import ray

before = dict(os.environ)
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR", _temp_dir=sys.argv[1])
ray.shutdown()
new = sorted(name for name in os.environ.keys() | before.keys() if os.environ.get(name) != before.get(name))
print(f"Ray {ray.__version__}")
print("expected: after ray.shutdown the environment is as it was before ray.init")
print(f"seen:     {len(new)} variables differ: {', '.join(new)}")
sys.exit(0 if new else 1)
PY
