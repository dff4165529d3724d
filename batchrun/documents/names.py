"""Duplicate detection for names in 12 to 24 bytes each; a dict takes 150."""

from array import array

_FEW, _MANY = 1 << 10, 1 << 18
"""Initial slots, and slots after the first growth; later growth doubles when two thirds are used."""

_FREE = array("q", [0]) * _FEW


class Names:
    """Numbers repeated names.

    It keeps 64-bit hashes with linear probing (Knuth, The Art of Computer Programming, 6.4, algorithm L); a million
    names collide in one of 37 million files.
    """

    def __init__(self) -> None:
        self._again: dict[str, int] = {}
        self._table = array("q", _FREE)
        self._mask, self._free = _FEW - 1, _FEW * 2 // 3

    def distinct(self, name: str) -> str:
        """The name, with its occurrence number if repeated."""
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
        """Rehash from behind a free slot, so that probe sequences move in order."""
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
