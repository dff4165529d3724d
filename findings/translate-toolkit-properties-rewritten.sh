#!/bin/sh
# translate-toolkit rewrites entries of a .properties file that were not changed: continued lines are joined, and blanks
# around separators are dropped. After one translation, a file of ten thousand lines has a diff of thousands.
# Exits 0 while that is so, 1 if it has changed.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$dir/lib" translate-toolkit==3.20.4
PYTHONPATH="$dir/lib" python3 - <<'PY'
import sys
from importlib.metadata import version

from translate.storage.properties import javautf8file

before = "hello = Hello\nlong = one \\\n       two\nmenu.open : Open\n"
store = javautf8file.parsestring(before.encode())
store.units[0].target = "Hallo"
after = bytes(store).decode()
print(f"translate-toolkit {version('translate-toolkit')}")
print(f"expected: {before.replace('Hello', 'Hallo')!r}, the first line alone changed")
print(f"seen:     {after!r}")
sys.exit(0 if "long = one \\\n       two\n" not in after and "menu.open : Open" not in after else 1)
PY
