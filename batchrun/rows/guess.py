"""A guess at an encoding, for hints only."""

_SHORTEST = 120
_ENOUGH = 20_000


def encoding_hint(data: bytes) -> str:
    """The encoding to try with `--encoding`."""
    if len(data) < _SHORTEST:  # charset-normalizer is often wrong here; Windows-1252 is by far the likeliest
        return "cp1252"
    from charset_normalizer import from_bytes  # noqa: PLC0415  only for a file that is not UTF-8

    found = from_bytes(data[:_ENOUGH]).best()
    return "cp1252" if found is None or found.encoding in ("ascii", "utf_8") else found.encoding
