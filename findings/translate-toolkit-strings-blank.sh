#!/bin/sh
# In a .strings file of Apple blanks may stand between the value and the semicolon, as between all tokens.
# translate-toolkit takes the closing quotation mark and the blank for the end of the text, and nothing says so.
# Exits 0 while that is so, 1 if it has changed. Needs python3 with venv.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check translate-toolkit==3.20.4
"$dir/venv/bin/python" - <<'PY'
import sys

from translate.storage import properties

file = properties.stringsutf8file()
file.parse(b'"open" = "Open";\n"save" = "Save" ;\n')
seen = [unit.source for unit in file.units]
print("translate-toolkit 3.20.4")
print("expected: ['Open', 'Save']")
print(f"seen:     {seen}")
sys.exit(0 if seen == ["Open", 'Save" '] else 1)
PY
