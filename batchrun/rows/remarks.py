"""What is said of an input before the start though none of its rows is refused: counted, with the first place."""


class Remarks:
    """Remarks of one reading, in the order of their first occurrence; a new reading begins with `clear`.

    `offset` is added to lines: where several files are one input, the lines before the file at hand.
    """

    def __init__(self) -> None:
        self._found: dict[str, list[int]] = {}
        self.offset = 0

    def clear(self) -> None:
        """Forget what an earlier reading found."""
        self._found.clear()
        self.offset = 0

    def add(self, what: str, line: int | None = None) -> None:
        """Note `what` is remarkable: of the record at `line`, or of the whole input where there is none."""
        found = self._found.setdefault(what, [])
        if line is None:
            return
        if not found:
            found += [0, self.offset + line]
        found[0] += 1

    def all(self) -> list[tuple[str, int, int | None]]:
        """Each remark with how many records it is about and the line of the first (0 and None: the whole input)."""
        return [(what, *(found or (0, None))) for what, found in self._found.items()]  # pyright: ignore[reportReturnType]  two numbers
