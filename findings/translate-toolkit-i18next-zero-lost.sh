#!/bin/sh
# translate-toolkit reads an i18next file (JSON v4) and writes it without the key `item_zero`, which i18next uses for a count
# of 0 in every language (https://www.i18next.com/translation-function/plurals). The text is lost without a warning.
# Exits 0 while that is so, 1 if it has changed.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$dir/lib" translate-toolkit==3.20.4
PYTHONPATH="$dir/lib" python3 - <<'PY'
import json
import sys
from importlib.metadata import version

from translate.storage.jsonl10n import I18NextV4File

before = {"item_zero": "no items", "item_one": "{{count}} item", "item_other": "{{count}} items"}
after = json.loads(bytes(I18NextV4File.parsestring(json.dumps(before).encode())))
print(f"translate-toolkit {version('translate-toolkit')}")
print(f"expected: {sorted(before)}, as nothing was changed")
print(f"seen:     {sorted(after)}")
sys.exit(0 if sorted(after) == ["item_one", "item_other"] else 1)
PY
