"""The rows of a journal as a list of any length. One thread finds rows, which may take a second for a million; another
reads pages meanwhile.
"""

import asyncio
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from batchrun.errors import StorageError
from batchrun.journal import Attempt, Line, Reader, Record, Wanted

Result = TypeVar("Result")


class _Thread:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batchrun-reader")
        self._reader: Reader | None = None
        self._closed = False

    async def query(self, query: Callable[[Reader], Result]) -> Result:
        """Raises StorageError, also if interrupted."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(self._answer, query))

    def _answer(self, query: Callable[[Reader], Result]) -> Result:
        if self._closed:
            raise StorageError("the list is closed")
        if self._reader is None:
            self._reader = Reader.open(self._path)
        return query(self._reader)

    def interrupt(self) -> None:
        if self._reader is not None:
            self._reader.interrupt()

    def close(self) -> None:
        self.interrupt()
        self._closed = True
        self._pool.submit(self._close_reader)
        self._pool.shutdown(wait=False)

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()


class JournalRows:
    """The wanted rows by number from 0: `total` so far, `finding` while more may come. `listed` is the query of the
    current numbers, `counted` whether `total` belongs to the wanted one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wanted = self.listed = Wanted()
        self.total = 0
        self.finding = self.counted = False
        self.trouble: str | None = None
        self._positions: array[int] | None = None
        self._pages = _Thread(path)
        self._finder = _Thread(path)
        self._query = 0

    async def choose(self, wanted: Wanted, changed: Callable[[], None]) -> None:
        """A later query ends an earlier one."""
        self._query += 1
        self._finder.interrupt()
        self.wanted, self.trouble, self.finding = wanted, None, not wanted.everything
        self.counted = self.counted and wanted == self.listed
        if wanted.everything:
            self._positions, self.listed = None, wanted
            await self.recount()
            changed()
            return
        await self._find(wanted, self._query, changed)

    async def recount(self) -> None:
        if self._positions is not None:
            return
        try:
            total = await self._pages.query(lambda reader: reader.totals.rows)
        except StorageError as error:
            total, self.trouble = self.total, error.message
        if self._positions is None:  # no other list was found meanwhile
            self.total, self.counted = total, self.wanted == self.listed

    async def _find(self, wanted: Wanted, query: int, changed: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        found: array[int] = array("q")
        again = wanted == self.listed  # the earlier list stays until this one is complete

        def taken(positions: list[int], *, last: bool) -> None:
            if query != self._query:
                return
            found.extend(positions)
            self.finding = not last
            if last or not again:
                self._positions, self.total = found, len(found)
                self.listed, self.counted = wanted, last or bool(found)
                changed()

        def find(reader: Reader) -> None:
            for positions in reader.positions(wanted):
                if query != self._query:
                    return
                loop.call_soon_threadsafe(partial(taken, positions, last=False))
            loop.call_soon_threadsafe(partial(taken, [], last=True))

        try:
            await self._finder.query(find)
        except StorageError as error:
            if query == self._query:
                self.trouble, self.finding, self.counted = error.message, False, True
                changed()

    def number_of(self, position: int) -> int | None:
        """Where the row of this position is in a list that was found."""
        try:
            return None if self._positions is None else self._positions.index(position)
        except ValueError:
            return None

    async def page(self, first: int, count: int) -> list[Line]:
        """Raises StorageError."""
        if self._positions is None:
            return await self._pages.query(lambda reader: reader.lines(first, count))
        positions = self._positions[first : first + count].tolist()
        return await self._pages.query(lambda reader: reader.lines_at(positions))

    async def record(self, seq: int) -> tuple[Record | None, list[Attempt]]:
        """Raises StorageError."""
        return await self._pages.query(lambda reader: (reader.row(seq=seq), reader.attempts(seq)))

    async def query(self, query: Callable[[Reader], Result]) -> Result:
        """Raises StorageError."""
        return await self._pages.query(query)

    def close(self) -> None:
        self._query += 1
        self._finder.close()
        self._pages.close()
