"""How often each of many digests was met, in little memory: a million in 25 MB, where a dict takes 130.

Open addressing with linear probing over two arrays (Knuth, The Art of Computer Programming, 6.4, algorithm L). Digests
are hashes already, so their low bits are their place.
"""

from array import array

_SLOTS = 1024
"""At first; a power of two, doubled when two thirds are taken."""


class Digests:
    """A multiset of 64-bit digests."""

    def __init__(self) -> None:
        self._used = 0
        self._make(_SLOTS)

    def add(self, digest: int) -> int:
        """Count one more; how many there were before."""
        place = self._place(digest)
        before = self._counts[place]
        if not self._keys[place]:
            self._keys[place] = digest or 1
            self._used += 1
        self._counts[place] = before + 1
        if 3 * self._used > 2 * len(self._keys):
            self._grow()
        return before

    def take(self, digest: int) -> bool:
        """Count one less; whether there was one."""
        place = self._place(digest)
        there = self._counts[place] > 0
        self._counts[place] -= there
        return there

    def _place(self, digest: int) -> int:
        """Where the digest is, or the free slot where it would be; 0 marks a free one, and counts as 1."""
        keys, mask, wanted = self._keys, self._mask, digest or 1
        place = wanted & mask
        while keys[place] not in (0, wanted):
            place = (place + 1) & mask
        return place

    def _grow(self) -> None:
        keys, counts = self._keys, self._counts
        self._make(2 * len(keys))
        for key, count in zip(keys, counts, strict=True):
            if key:
                place = self._place(key)
                self._keys[place], self._counts[place] = key, count

    def _make(self, slots: int) -> None:
        self._mask = slots - 1
        self._keys, self._counts = array("Q", bytes(8 * slots)), array("I", bytes(4 * slots))
