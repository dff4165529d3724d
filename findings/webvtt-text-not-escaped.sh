#!/bin/sh
# webvtt-py treats the text of a caption as plain text and writes it as WebVTT markup without escaping `<` and `&`. When the
# file is read again, text between `<` and `>` is a tag and lost, and `&amp;` is read as `&amp;`, not as `&`.
# Exits 0 while that is so, 1 if it has changed.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$dir/lib" webvtt-py==0.6.0
PYTHONPATH="$dir/lib" python3 - <<'PY'
import sys
from importlib.metadata import version

from webvtt import WebVTT

captions = WebVTT.from_string("WEBVTT\n\n00:01.000 --> 00:02.000\nsalt &amp; pepper\n")
read = captions[0].text
captions[0].text = "1 <2 and 3> 2"
again = WebVTT.from_string(captions.content)[0].text
print(f"webvtt-py {version('webvtt-py')}")
print("expected: 'salt & pepper' read, and '1 <2 and 3> 2' read again after it was written")
print(f"seen:     {read!r} read, and {again!r} read again")
sys.exit(0 if read == "salt &amp; pepper" and again == "1  2" else 1)
PY
