"""Which encoding a text that is not UTF-8 may be in: a hint for a message, never a decision.

charset-normalizer is often wrong below some 120 characters, so Windows-1252 is named there, the likeliest by far.
"""

_SHORTEST = 120
_ENOUGH = 20_000


def encoding_hint(data: bytes) -> str:
    """The name to try with `--encoding`."""
    if len(data) < _SHORTEST:
        return "cp1252"
    from charset_normalizer import from_bytes  # noqa: PLC0415  only for a file that is not UTF-8

    found = from_bytes(data[:_ENOUGH]).best()
    return "cp1252" if found is None or found.encoding in ("ascii", "utf_8") else found.encoding
