#!/bin/sh
# In XLIFF 1.2 `state` says how far a target is, and `approved`, "no" by default, whether somebody has approved it.
# translate-toolkit counts a unit as translated by `approved` alone: a target with state="translated" or "final" is fuzzy
# and not translated, and its statistics call a file of such units untranslated.
# Exits 0 while that is so, 1 if it has changed. Needs python3 with venv.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check translate-toolkit==3.20.4
"$dir/venv/bin/python" - <<'PY'
import sys

from translate.storage import xliff

FILE = b"""<?xml version="1.0" encoding="UTF-8"?>
<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2">
<file original="a" source-language="en" target-language="de" datatype="plaintext"><body>
<trans-unit id="1"><source>Hello</source><target state="translated">Hallo</target></trans-unit>
<trans-unit id="2"><source>Hello</source><target state="final">Hallo</target></trans-unit>
<trans-unit id="3" approved="yes"><source>Hello</source><target>Hallo</target></trans-unit>
</body></file></xliff>"""

seen = [unit.istranslated() for unit in xliff.xlifffile(FILE).units]
print("translate-toolkit 3.20.4")
print("expected: targets of state translated, of state final, and an approved one are translated: [True, True, True]")
print(f"seen:     {seen}")
sys.exit(0 if seen == [False, False, True] else 1)
PY
