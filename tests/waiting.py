"""How long tests wait: for what must come about in the end, on however slow a machine."""

import asyncio

PATIENCE = 240.0
"""Seconds for another process. They end what hangs and judge nothing: no test is slower for them, or measured by them."""


async def a_while(seconds: float) -> None:
    """So long at least, and long enough for a loop that was held up to do what was due in the meantime."""
    for _ in range(max(20, int(seconds * 1000))):
        await asyncio.sleep(0.001)
