#!/bin/sh
# polib drops the previous text (`#~| msgid`) of an obsolete entry when a catalog is read and written unchanged. GNU
# gettext has written such lines since 0.16 (msgmerge --previous).
# Exits 0 while that is so, 1 if it has changed.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$dir/lib" polib==1.2.0
cat > "$dir/a.po" <<'PO'
msgid ""
msgstr "Content-Type: text/plain; charset=UTF-8\n"

#~| msgid "Open the file"
#~ msgid "Open file"
#~ msgstr "Datei öffnen"
PO
PYTHONPATH="$dir/lib" python3 - "$dir/a.po" <<'PY'
import sys

import polib

before = open(sys.argv[1], encoding="utf-8").read()
after = str(polib.pofile(sys.argv[1]))
line = '#~| msgid "Open the file"'
print(f"polib {polib.__version__}")
print(f"expected: the line {line} in what is written")
print(f"seen:     {'kept' if line in after else 'dropped'}")
sys.exit(0 if line in before and line not in after else 1)
PY
