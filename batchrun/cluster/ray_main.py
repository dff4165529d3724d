"""The process that is Ray's driver. Only this module imports Ray, which takes over signals, changes the environment,
writes to standard output, and ends the process if it loses the cluster.

Messages (number, operation, arguments) on standard input, answers (number, None or the name of an error, value) on what
was standard output. It ends when its input does.
"""

import asyncio
import importlib
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import ray  # pyright: ignore[reportMissingImports]  an extra, which not every system has in its environment
from ray import exceptions  # pyright: ignore[reportMissingImports]  as above
from ray.util import scheduling_strategies  # pyright: ignore[reportMissingImports]  as above

from batchrun.cluster import messages

_ray: Any = ray
_exceptions: Any = exceptions
_strategies: Any = scheduling_strategies
_LEAVE = 2.0
_CONNECT = 0.5  # seconds for a connection to a node
_BY_ACTOR = ("run", "call")  # operations whose first argument is an actor


class Operations:
    def __init__(self) -> None:
        self._actors: dict[int, Any] = {}
        self._nodes: dict[int, str] = {}

    async def join(self, address: str, folder: str) -> None:
        # Ray would take over SIGTERM on the main thread.
        await asyncio.to_thread(
            _ray.init,
            address=address,
            runtime_env={"working_dir": folder},
            log_to_driver=False,
            logging_level="ERROR",
        )

    async def nodes(self) -> list[tuple[str, int]]:
        found = await asyncio.to_thread(_ray.nodes)
        return [(node["NodeID"], int(node["Resources"].get("CPU", 0))) for node in found if node["Alive"]]

    async def make(self, number: int, node: str, kind: str, processors: int, arguments: tuple[Any, ...]) -> Any:
        """Returns when the actor is loaded."""
        module, _, name = kind.partition(":")
        options = {
            "num_cpus": processors,
            "max_restarts": 0,
            "max_task_retries": 0,
            "enable_task_events": False,
            "scheduling_strategy": _strategies.NodeAffinitySchedulingStrategy(node, soft=False),
        }
        made = _ray.remote(getattr(importlib.import_module(module), name)).options(**options)
        self._nodes[number] = node
        actor = self._actors[number] = await asyncio.to_thread(made.remote)
        return await actor.load.remote(*arguments)

    async def call(self, number: int, method: str, *arguments: Any) -> Any:
        return await getattr(self._actors[number], method).remote(*arguments)

    async def run(self, number: int, data: bytes) -> bytes:
        """In pieces."""
        actor = self._actors[number]
        result = await actor.run.remote(*messages.pieces(data))
        if not isinstance(result, bytes):
            run, count = result
            result = b"".join(await asyncio.gather(*(actor.piece.remote(run, place) for place in range(count))))
        return result

    async def kill(self, number: int) -> None:
        actor = self._actors.pop(number, None)
        self._nodes.pop(number, None)
        if actor is not None:
            await asyncio.to_thread(_ray.kill, actor)  # it waits for the node, also for one that is not there any more

    async def is_gone(self, number: int) -> bool:
        # or refuses connections; the cluster takes 15 s to notice
        found = await asyncio.to_thread(_ray.nodes)
        for node in found:
            if node["NodeID"] == self._nodes.get(number) and node["Alive"]:
                return await _refuses(node["NodeManagerAddress"], node["NodeManagerPort"])
        return True


async def _refuses(host: str, port: int) -> bool:
    # A time-out may only be slow.
    try:
        async with asyncio.timeout(_CONNECT):
            _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return True
    except OSError:  # a time-out as well
        return False
    writer.close()
    return False


async def _answered(operations: Operations, operation: str, arguments: tuple[Any, ...]) -> tuple[str | None, Any]:
    # the error's name and text, or None and the value
    try:
        return None, await getattr(operations, operation)(*arguments)
    except (_exceptions.ActorUnavailableError, _exceptions.ActorDiedError) as error:
        if operation in _BY_ACTOR and await operations.is_gone(arguments[0]):
            return "node", _reason(error)
        unavailable = isinstance(error, _exceptions.ActorUnavailableError)
        return "unavailable" if unavailable else "died", _reason(error)
    except Exception as error:  # noqa: BLE001  whatever Ray raises is the answer
        return type(error).__name__, str(error)


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if not line.startswith("\t")]
    return lines[-1].partition(" Some common causes")[0] if lines else type(error).__name__


async def _serve(orders: BinaryIO, answers: BinaryIO) -> None:
    operations, loop = Operations(), asyncio.get_running_loop()
    under_way: set[asyncio.Task[None]] = set()
    over = asyncio.Event()

    async def answer(number: int, operation: str, arguments: tuple[Any, ...]) -> None:
        messages.write(answers, (number, *await _answered(operations, operation, arguments)))

    def begin(message: tuple[int, str, tuple[Any, ...]]) -> None:
        task = loop.create_task(answer(*message))
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    threading.Thread(target=_read, args=(orders, begin, over.set, loop), daemon=True).start()
    await over.wait()


def _read(
    orders: BinaryIO, begin: Callable[[Any], None], end: Callable[[], None], loop: asyncio.AbstractEventLoop
) -> None:
    try:
        while True:
            loop.call_soon_threadsafe(begin, messages.read(orders))
    except (EOFError, OSError):
        threading.Timer(_LEAVE, os._exit, (0,)).start()  # pyright: ignore[reportPrivateUsage]  Ray may wait for ever
        loop.call_soon_threadsafe(end)


def main() -> NoReturn:
    # Anything printed goes to standard error.
    orders, answers = sys.stdin.buffer, open(os.dup(1), "wb")  # noqa: SIM115  it is open as long as the process
    os.dup2(2, 1)
    asyncio.run(_serve(orders, answers))
    shutil.rmtree(Path.cwd(), ignore_errors=True)  # the folder made for it; batchrun may be gone and remove nothing
    _ray.shutdown()
    os._exit(0)  # pyright: ignore[reportPrivateUsage]  the function has no other name


if __name__ == "__main__":
    main()
