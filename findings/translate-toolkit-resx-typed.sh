#!/bin/sh
# An entry of a .resx file with `type` or `mimetype` is not text: a size, a picture in base64, a file's name. So are entries
# `>>name.Type`, which the form designer keeps. translate-toolkit offers all of them for translation, as it does texts.
# Exits 0 while that is so, 1 if it has changed. Needs python3 with venv.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check translate-toolkit==3.20.4
"$dir/venv/bin/python" - <<'PY'
import sys

from translate.storage import resx

FILE = b"""<?xml version="1.0" encoding="utf-8"?>
<root>
<resheader name="resmimetype"><value>text/microsoft-resx</value></resheader>
<data name="ok.Text" xml:space="preserve"><value>Yes</value></data>
<data name="ok.Size" type="System.Drawing.Size, System.Drawing"><value>75, 23</value></data>
<data name="&gt;&gt;ok.Type" xml:space="preserve"><value>System.Windows.Forms.Button</value></data>
<data name="icon" type="System.Drawing.Bitmap, System.Drawing" mimetype="application/x-microsoft.net.object.bytearray.base64">
<value>Qk0=</value></data>
</root>"""

file = resx.RESXFile()
file.parse(FILE)
seen = [unit.source.strip() for unit in file.units if unit.istranslatable()]
print("translate-toolkit 3.20.4")
print("expected: one text to translate: ['Yes']")
print(f"seen:     {seen}")
sys.exit(0 if seen == ["Yes", "75, 23", "System.Windows.Forms.Button", "Qk0="] else 1)
PY
