"""The rows of a journal as a list of any length: found and read in threads, each with its own reader, never on the loop.

One thread finds (it may take a second for a million rows, and a new query interrupts it), another reads pages, so that
scrolling goes on meanwhile.
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
    """One thread with one reader of the journal."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batchrun-reader")
        self._reader: Reader | None = None
        self._closed = False

    async def ask(self, question: Callable[[Reader], Result]) -> Result:
        """The answer, found in the thread. Raises StorageError, also when interrupted."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(self._answer, question))

    def _answer(self, question: Callable[[Reader], Result]) -> Result:
        if self._closed:
            raise StorageError("the list is closed")
        if self._reader is None:
            self._reader = Reader.open(self._path)
        return question(self._reader)

    def interrupt(self) -> None:
        """Let the present question fail."""
        if self._reader is not None:
            self._reader.interrupt()

    def close(self) -> None:
        """Let go of the file, behind what is still asked."""
        self.interrupt()
        self._closed = True
        self._pool.submit(self._let_go)
        self._pool.shutdown(wait=False)

    def _let_go(self) -> None:
        if self._reader is not None:
            self._reader.close()


class JournalRows:
    """The rows that are wanted, by number from 0: `total` of them so far, `finding` while more may come.

    `listed` is what the numbers mean now: until the first rows of a new query are found, still the query before. `counted`
    says whether they mean what is wanted, and `total` has been read for it.
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

    async def choose(self, wanted: Wanted, told: Callable[[], None]) -> None:
        """List other rows; `told` is called on the loop as they are found. A later query ends an earlier one."""
        self._query += 1
        self._finder.interrupt()
        self.wanted, self.trouble = wanted, None
        self.counted = self.counted and wanted == self.listed
        if wanted.everything:
            self._positions, self.listed = None, wanted
            await self.recount()
            told()
            return
        await self._find(wanted, self._query, told)

    async def recount(self) -> None:
        """How many rows the whole list has by now."""
        if self._positions is None:
            try:
                self.total = await self._pages.ask(_rows)
            except StorageError as error:
                self.trouble = error.message
            self.counted = self.wanted == self.listed

    async def _find(self, wanted: Wanted, query: int, told: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        found: array[int] = array("q")
        self.finding = True

        def taken(positions: list[int], *, last: bool) -> None:
            if query == self._query:
                found.extend(positions)
                self._positions, self.total, self.finding = found, len(found), not last
                self.listed, self.counted = wanted, last or bool(found)
                told()

        def find(reader: Reader) -> None:
            for positions in reader.positions(wanted):
                if query != self._query:
                    return
                loop.call_soon_threadsafe(partial(taken, positions, last=False))
            loop.call_soon_threadsafe(partial(taken, [], last=True))

        try:
            await self._finder.ask(find)
        except StorageError as error:
            if query == self._query:
                self.trouble, self.finding, self.counted = error.message, False, True
                told()

    async def page(self, first: int, count: int) -> list[Line]:
        """The rows from number `first`. Raises StorageError."""
        if self._positions is None:
            return await self._pages.ask(partial(_lines, first, count))
        positions = self._positions[first : first + count].tolist()
        return await self._pages.ask(partial(_lines_at, positions))

    async def record(self, seq: int) -> tuple[Record | None, list[Attempt]]:
        """One row with everything the journal has of it. Raises StorageError."""
        return await self._pages.ask(partial(_record, seq))

    async def ask(self, question: Callable[[Reader], Result]) -> Result:
        """Anything else of the journal, in the thread that reads pages. Raises StorageError."""
        return await self._pages.ask(question)

    def close(self) -> None:
        """Let go of the journal."""
        self._query += 1
        self._finder.close()
        self._pages.close()


def _rows(reader: Reader) -> int:
    return reader.totals.rows


def _lines(first: int, count: int, reader: Reader) -> list[Line]:
    return reader.lines(first, count)


def _lines_at(positions: list[int], reader: Reader) -> list[Line]:
    return reader.lines_at(positions)


def _record(seq: int, reader: Reader) -> tuple[Record | None, list[Attempt]]:
    return reader.row(seq=seq), reader.attempts(seq)
