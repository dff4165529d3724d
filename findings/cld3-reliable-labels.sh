#!/bin/sh
# CLD3 marks a wrong language as reliable: short, correctly spelled labels without markup are detected as Serbian,
# Romanian, Danish, Galician and others, one with a probability of 0.995. `is_reliable` means only that the probability
# is above 0.7 (github.com/google/cld3, nnet_language_identifier.cc), so a check of translated labels also needs a minimum
# length.
# Exits 0 while that is so, 1 if it has changed.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$dir/lib" cld3-py==3.1.0
PYTHONPATH="$dir/lib" python3 - <<'PY'
import sys
from importlib.metadata import version

import gcld3

labels = {"Delete": "en", "Settings": "en", "Open file": "en", "Supprimer": "fr", "Eliminar": "es", "Configuración": "es"}
identifier = gcld3.NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=1000)
print(f"cld3-py {version('cld3-py')}")
wrong = 0
for label, language in labels.items():
    found = identifier.FindLanguage(label)
    wrong += found.is_reliable and found.language != language
    print(f"{label}: expected {language} or not reliable; seen {found.language}, reliable {found.is_reliable}, {found.probability:.3f}")
sys.exit(0 if wrong == len(labels) else 1)
PY
