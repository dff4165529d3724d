"""Notices about an input that refuse no row."""


class Remarks:
    """Remarks of one reading, in order of first occurrence."""

    def __init__(self) -> None:
        self._found: dict[str, list[int]] = {}
        self.offset = 0  # lines of the files before, where several files are one input

    def clear(self) -> None:
        """Remove all remarks."""
        self._found.clear()
        self.offset = 0

    def add(self, what: str, line: int | None = None) -> None:
        """About the record at `line`, or the whole input."""
        found = self._found.setdefault(what, [])
        if line is None:
            return
        if not found:
            found += [0, self.offset + line]
        found[0] += 1

    def all(self) -> list[tuple[str, int, int | None]]:
        """Each remark with its number of records and first line."""
        return [(what, *(found or (0, None))) for what, found in self._found.items()]  # pyright: ignore[reportReturnType]  two numbers
