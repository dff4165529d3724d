"""Sizes as people write them: `48MB`, `500kB`, `1.5GB`, `64MiB`, or a number of bytes."""

import re

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)")


def parse_size(value: object) -> int:
    """Bytes of a size, one at least. Raises ValueError with a text that says what is expected."""
    found = _SIZE.fullmatch(str(value).strip().lower()) if isinstance(value, int | float | str) else None
    unit = None if found is None or isinstance(value, bool) else _UNITS.get(found[2])
    size = 0 if found is None or unit is None else int(float(found[1]) * unit)
    if size < 1:
        raise ValueError(f"must be a size such as 48MB, 500kB or 1GB, not {value!r}")
    return size
