"""Imports aiohttp without reading the certificates of the system.

aiohttp reads them for its two default contexts, a fifth of its import; for https the context of `trust` is used.
"""

import ssl
from importlib import import_module
from typing import Any


class LateContext(ssl.SSLContext):
    _pending = True

    def _read(self) -> None:
        if self._pending:
            self._pending = False
            self.set_default_verify_paths()

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        self._read()
        return super().wrap_bio(*args, **options)

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        self._read()
        return super().wrap_socket(*args, **options)


def import_aiohttp() -> None:
    """Call it once, before any other module imports aiohttp."""
    made: list[ssl.SSLContext] = []

    def postpone(self: ssl.SSLContext) -> None:
        made.append(self)

    # The base class in C has the method: this hides it, and is removed again.
    ssl.SSLContext.set_default_verify_paths = postpone
    try:
        import_module("aiohttp.connector")
    finally:
        del ssl.SSLContext.set_default_verify_paths
    for context in made:
        context.__class__ = LateContext
