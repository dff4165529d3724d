#!/bin/sh
# With log_to_driver=False, Ray writes "(raylet) A worker died …" in colour to the driver's standard output when an actor
# ends its process. The documentation says that the option determines whether output of workers is sent to the driver. A
# program whose standard output is data must run Ray in a process of its own.
# Exits 0 while that is so, 1 if it has changed.
set -eu
dir=$(mktemp -d /tmp/rayXXXX)
trap 'rm -rf "$dir"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$dir/lib" ray==2.60.0
cat > "$dir/driver.py" <<'PY'
import os
import sys
import time

import ray

ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR", _temp_dir=sys.argv[1])


@ray.remote(max_restarts=0)
class Actor:
    def leave(self):
        os._exit(3)


try:
    ray.get(Actor.remote().leave.remote())
except ray.exceptions.ActorDiedError:
    time.sleep(8)  # what a raylet says comes a few seconds later
ray.shutdown()
PY
PYTHONPATH="$dir/lib" RAY_USAGE_STATS_ENABLED=0 python3 "$dir/driver.py" "$dir" > "$dir/out" 2> "$dir/err"
seen=$(grep -c "(raylet).*A worker died" "$dir/out" || true)
echo "Ray 2.60.0"
echo "expected: nothing on standard output"
echo "seen:     $seen lines: $(grep "(raylet)" "$dir/out" | head -1 | cut -c1-100)"
[ "$seen" -gt 0 ]
