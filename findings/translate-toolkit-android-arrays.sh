#!/bin/sh
# translate-toolkit lists the strings and plurals of an Android resource file, but not the items of a <string-array>, which
# are texts for users, too (https://developer.android.com/guide/topics/resources/string-resource#StringArray). A file
# translated through its units keeps these texts in the source language, without a warning.
# Exits 0 while that is so, 1 if it has changed.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$dir/lib" translate-toolkit==3.20.4
PYTHONPATH="$dir/lib" python3 - <<'PY'
import sys
from importlib.metadata import version

from translate.storage.aresource import AndroidResourceFile

RESOURCES = b"""<?xml version="1.0" encoding="utf-8"?>
<resources>
    <string name="title">Opening hours</string>
    <string-array name="days">
        <item>Monday</item>
        <item>Tuesday</item>
    </string-array>
    <plurals name="seats">
        <item quantity="one">%d seat</item>
        <item quantity="other">%d seats</item>
    </plurals>
</resources>
"""
seen = [unit.getid() for unit in AndroidResourceFile.parsestring(RESOURCES).units]
print(f"translate-toolkit {version('translate-toolkit')}")
print("expected: units for title, both items of days, and seats")
print(f"seen:     {seen}")
sys.exit(0 if seen == ["title", "seats"] else 1)
PY
