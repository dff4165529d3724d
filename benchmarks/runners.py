"""What batchrun is compared with: the same rows, sent by other means. Each runs as a process of its own.

    python benchmarks/runners.py NAME BASE_URL BODIES OUTPUT IN_FLIGHT COUNT

BODIES has a prepared request body a line. A runner that is not installed ends with exit code 3.
"""

import asyncio
import contextlib
import ctypes
import importlib
import itertools
import json
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

KEY = "sk-benchmark"
NOT_INSTALLED = 3
TOGETHER = 16_000_000
"""Bytes of a transaction."""


def bodies(path: str, count: int) -> Iterator[bytes]:
    """The prepared bodies."""
    with Path(path).open("rb") as lines:
        for line in itertools.islice(lines, count):
            yield line[:-1]


def sequential(base_url: str, rows: Iterator[bytes], output: TextIO, in_flight: int) -> None:
    """The loop that everybody writes first."""
    from openai import OpenAI  # noqa: PLC0415  each runner pays for its own imports

    with OpenAI(api_key=KEY, base_url=base_url, max_retries=0) as client:
        for row in rows:
            reply = client.chat.completions.create(**json.loads(row))
            output.write(f"{reply.choices[0].message.content}\n")


def bare_aiohttp(base_url: str, rows: Iterator[bytes], output: TextIO, in_flight: int) -> None:
    """The floor: prepared bytes over an aiohttp session, the text of the reply, nothing kept of either."""
    import aiohttp  # noqa: PLC0415  each runner pays for its own imports

    async def work(session: aiohttp.ClientSession) -> None:
        for row in rows:
            async with session.post(url, data=row) as response:
                reply = json.loads(await response.read())
            output.write(f"{reply['choices'][0]['message']['content']}\n")

    async def main() -> None:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            await asyncio.gather(*(work(session) for _ in range(in_flight)))

    url = f"{base_url}/chat/completions"
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    asyncio.run(main())


def journaled(base_url: str, rows: Iterator[bytes], output: TextIO, in_flight: int) -> None:
    """The floor of whoever keeps the rows: each is hashed and in SQLite, on the disk, before the first is sent.

    Memory is kept for the next rows as batchrun keeps it (`engine/bytes_held.py`), or a copy would cost ten times as much.
    """
    from blake3 import blake3  # noqa: PLC0415  each runner pays for its own imports

    with contextlib.suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        library.mallopt(-3, 8 * 1024 * 1024)
        library.mallopt(-1, 32 * 1024 * 1024)
    with contextlib.closing(sqlite3.connect(Path(output.name).with_suffix(".db"), isolation_level=None)) as journal:
        for pragma in ("page_size = 32768", "journal_mode = TRUNCATE", "synchronous = FULL"):
            journal.execute(f"PRAGMA {pragma}")
        journal.execute("DROP TABLE IF EXISTS rows")
        journal.execute("CREATE TABLE rows (seq INTEGER PRIMARY KEY, request TEXT, text TEXT)")
        room = 0
        for row in rows:
            if room <= 0:
                if journal.in_transaction:
                    journal.execute("COMMIT")
                journal.execute("BEGIN")
                room = TOGETHER
            digest = blake3(row).hexdigest(16)
            journal.execute("INSERT INTO rows (request, text) VALUES (?, ?)", (digest, row.decode()))
            room -= len(row)
        journal.execute("COMMIT")
        kept = (text.encode() for (text,) in journal.execute("SELECT text FROM rows ORDER BY seq"))
        bare_aiohttp(base_url, kept, output, in_flight)


async def _gathered(
    rows: Iterator[bytes], output: TextIO, in_flight: int, ask: Callable[[dict[str, Any]], Awaitable[str | None]]
) -> None:
    """A task a row, and a semaphore: the recipe of most notebooks."""
    slots = asyncio.Semaphore(in_flight)

    async def one(row: bytes) -> None:
        async with slots:
            output.write(f"{await ask(json.loads(row))}\n")

    await asyncio.gather(*map(one, rows))


def async_openai(base_url: str, rows: Iterator[bytes], output: TextIO, in_flight: int, **client: Any) -> None:
    """`AsyncOpenAI.create` on its default transport."""
    from openai import AsyncOpenAI  # noqa: PLC0415  each runner pays for its own imports

    async def main() -> None:
        async with AsyncOpenAI(api_key=KEY, base_url=base_url, max_retries=0, **client) as openai:

            async def ask(body: dict[str, Any]) -> str | None:
                return (await openai.chat.completions.create(**body)).choices[0].message.content

            await _gathered(rows, output, in_flight, ask)

    asyncio.run(main())


def async_openai_on_aiohttp(base_url: str, rows: Iterator[bytes], output: TextIO, in_flight: int) -> None:
    """The same on the SDK's aiohttp transport."""
    import httpx2  # noqa: PLC0415  each runner pays for its own imports
    from openai import DefaultAioHttpClient  # noqa: PLC0415

    limits = httpx2.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    async_openai(base_url, rows, output, in_flight, http_client=DefaultAioHttpClient(limits=limits))


def litellm(base_url: str, rows: Iterator[bytes], output: TextIO, in_flight: int) -> None:
    """litellm's `acompletion`, gathered."""
    completion = importlib.import_module("litellm").acompletion

    async def ask(body: dict[str, Any]) -> str | None:
        body["model"] = f"openai/{body['model']}"
        reply = await completion(**body, api_base=base_url, api_key=KEY, num_retries=0)
        return reply.choices[0].message.content

    asyncio.run(_gathered(rows, output, in_flight, ask))


def langchain(base_url: str, rows: Iterator[bytes], output: TextIO, in_flight: int) -> None:
    """langchain's `ChatOpenAI.ainvoke`, gathered."""
    chat = importlib.import_module("langchain_openai").ChatOpenAI
    model = chat(base_url=base_url, api_key=KEY, model="mock", max_retries=0)

    async def ask(body: dict[str, Any]) -> str | None:
        reply = await model.ainvoke([(message["role"], message["content"]) for message in body["messages"]])
        return reply.content

    asyncio.run(_gathered(rows, output, in_flight, ask))


RUNNERS: dict[str, Callable[[str, Iterator[bytes], TextIO, int], None]] = {
    "sequential": sequential,
    "aiohttp": bare_aiohttp,
    "journaled": journaled,
    "openai": async_openai,
    "openai-aiohttp": async_openai_on_aiohttp,
    "litellm": litellm,
    "langchain": langchain,
}


def main() -> int:
    """Run one."""
    name, base_url, source, target, in_flight, count = sys.argv[1:]
    try:
        with Path(target).open("w") as output:
            RUNNERS[name](base_url, bodies(source, int(count)), output, int(in_flight))
    except ModuleNotFoundError:
        return NOT_INSTALLED
    return 0


if __name__ == "__main__":
    sys.exit(main())
