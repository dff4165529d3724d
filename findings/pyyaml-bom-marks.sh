#!/bin/sh
# With a byte order mark at the start, the marks of PyYAML's C loader are one character smaller than those of its Python
# loader: text[mark.index] is another character for the same event.
# Exits 0 while that is so, 1 if it has changed.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$dir/lib" PyYAML==6.0.3
PYTHONPATH="$dir/lib" python3 - <<'PY'
import sys

import yaml

text = '\ufeffhello: "world"\n'


def quoted(loader):
    events = [event for event in yaml.parse(text, Loader=loader) if isinstance(event, yaml.ScalarEvent)]
    return text[events[1].start_mark.index : events[1].end_mark.index]


print(f"PyYAML {yaml.__version__}, libyaml {yaml.__with_libyaml__}")
pure, c = quoted(yaml.SafeLoader), quoted(yaml.CSafeLoader)
print("expected: the marks of the value enclose '\"world\"' with both loaders")
print(f"seen:     SafeLoader {pure!r}, CSafeLoader {c!r}")
sys.exit(0 if pure == '"world"' and c != pure else 1)
PY
