#!/bin/sh
# pycaption turns the speaker of a WebVTT cue (`<v Anna>`, W3C WebVTT 3.4) into spoken text: after reading and writing, the cue
# has no voice, and its text begins with "Anna: ". Cue names and notes are lost as well.
# Exits 0 while that is so, 1 if it has changed.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet pycaption==2.3.14
cat >"$dir/look.py" <<'PY'
import sys

import pycaption

source = """WEBVTT

NOTE checked twice

intro
00:00:01.000 --> 00:00:03.000 align:start
<v Anna>Good morning
"""
written = pycaption.WebVTTWriter().write(pycaption.WebVTTReader().read(source))
print("pycaption 2.3.14")
print("expected: a file without changes is written as it was, or at least with the same text and voice")
print(f"seen:     {written!r}")
lost = [part for part in ("<v Anna>", "intro\n", "NOTE") if part not in written]
sys.exit(0 if "\nAnna: Good morning" in written and len(lost) == 3 else 1)
PY
"$dir/venv/bin/python" "$dir/look.py"
