"""Unknown names, and the nearest known one."""

import difflib
from collections.abc import Iterable

from batchrun.errors import RefusedError


def nearest(name: str, known: Iterable[str]) -> str | None:
    spellings = {_plain(candidate): candidate for candidate in known}
    matches = difflib.get_close_matches(_plain(name), spellings, n=1, cutoff=0.6)
    return spellings[matches[0]] if matches else None


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def unknown(what: str, name: str, known: Iterable[str], where: str = "") -> RefusedError:
    names = sorted(known)
    guess = nearest(name, names)
    hint = f"did you mean {guess}?" if guess else f"known: {', '.join(names)}" if names else None
    return RefusedError(f"unknown {what}{where}: {name}", hint)
