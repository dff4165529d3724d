#!/bin/sh
# click does not miss a required argument whose default is None: the command runs with None. Until click 8.2 a default of None
# meant that there is none; since 8.3 it is a value, also where the argument is required.
# Exits 0 while that is so, 1 if it has changed.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$dir/lib" click==8.5.1
python3 -m pip install --quiet --disable-pip-version-check --target "$dir/old" click==8.2.1
cat >"$dir/run.py" <<'PY'
from importlib.metadata import version

import click


@click.command()
@click.argument("run", required=True, default=None)
def command(run):
    print(f"click {version('click')}: the command ran with {run!r}")


try:
    command([], standalone_mode=False)
except click.MissingParameter as error:
    print(f"click {version('click')}: refused: {error.format_message()}")
PY
before=$(PYTHONPATH="$dir/old" python3 "$dir/run.py")
now=$(PYTHONPATH="$dir/lib" python3 "$dir/run.py")
echo "expected: $before"
echo "seen:     $now"
case "$before/$now" in
*refused*/*"ran with None"*) exit 0 ;;
*) exit 1 ;;
esac
