"""What holds for every test."""

import asyncio

# looptime asks for the current event loop around synchronous tests as well. Before any was ever set, asyncio would
# make one that nobody closes, and some later test would fail for it; once None was set, there simply is none.
asyncio.set_event_loop(None)
