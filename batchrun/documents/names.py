"""Names that are told apart: which was met before, in 12 to 24 bytes for each, where a dict of them takes 150."""

from array import array

_FEW, _MANY = 1 << 10, 1 << 18
"""Slots of a table at first, and when it grows for the first time; after that it doubles when two thirds are taken."""

_FREE = array("q", [0]) * _FEW


class Names:
    """Gives each name an occurrence number from the second time on.

    A name is kept as its hash of 64 bits, by open addressing with linear probing (Knuth, The Art of Computer Programming,
    6.4, algorithm L); that two of a million have the same one happens in one of 37 million files.
    """

    def __init__(self) -> None:
        self._again: dict[str, int] = {}
        self._table = array("q", _FREE)
        self._mask, self._free = _FEW - 1, _FEW * 2 // 3

    def distinct(self, name: str) -> str:
        """The name, with its occurrence number where it was met before."""
        table, mask = self._table, self._mask
        key = hash(name) or 1
        place = key & mask
        while there := table[place]:
            if there == key:
                self._again[name] = number = self._again.get(name, 1) + 1
                return f"{name}#{number}"
            place = (place + 1) & mask
        table[place] = key
        self._free -= 1
        if not self._free:
            self._grow()
        return name

    def _grow(self) -> None:
        """Move the keys within a longer table, beginning behind a free slot: what was probed past before is moved before."""
        table, before = self._table, self._mask
        slots = max(2 * len(table), _MANY)
        for _ in range(len(table), slots, _FEW):
            table.extend(_FREE)
        self._mask = mask = slots - 1
        self._free += (slots - before - 1) * 2 // 3
        begin = table.index(0)
        for number in range(begin, begin + before + 1):
            if key := table[number & before]:
                table[number & before] = 0
                place = key & mask
                while table[place]:
                    place = (place + 1) & mask
                table[place] = key
