#!/bin/sh
# Babel reads the previous text of a fuzzy message (`#| msgid`, GNU gettext) as a translator's comment and writes it back as
# `# | msgid`, which no tool recognises as previous text, even with include_previous. After `pybabel update`, a translation
# file no longer shows reviewers what has changed.
# Exits 0 while that is so, 1 if it has changed.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet babel==2.19.0 polib==1.2.0
cat >"$dir/look.py" <<'PY'
import io
import sys

import polib
from babel.messages.pofile import read_po, write_po

source = """msgid ""
msgstr ""
"Content-Type: text/plain; charset=utf-8\\n"

#, fuzzy
#| msgid "Old house"
msgid "House"
msgstr "Altes Haus"
"""
read = read_po(io.BytesIO(source.encode()), locale="de")
written = io.BytesIO()
write_po(written, read, include_previous=True)
lines = [line for line in written.getvalue().decode().splitlines() if "Old house" in line]
message = read["House"]
by_polib = polib.pofile(source)[0].previous_msgid
print("babel 2.19.0")
print(f"expected: the previous text is read as such (polib: {by_polib!r}) and written back as it was: #| msgid \"Old house\"")
print(f"seen:     previous text {message.previous_id!r}, remark {message.user_comments!r}, written {lines!r}")
same = not message.previous_id and lines == ['# | msgid "Old house"'] and by_polib == "Old house"
sys.exit(0 if same else 1)
PY
"$dir/venv/bin/python" "$dir/look.py"
