"""Logging for `--verbose` and `--log-file`: off by default, secrets masked."""

import logging
import os
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import TextIO

from batchrun.errors import RefusedError

_SILENCE = logging.NullHandler()  # without any handler Python prints warnings of libraries itself, unmasked
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class MaskingFormatter(logging.Formatter):
    def __init__(self, mask: Callable[[str], str]) -> None:
        super().__init__(_FORMAT)
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        return self._mask(super().format(record))


@contextmanager
def logging_to(*, verbose: bool, log_file: str | None, mask: Callable[[str], str]) -> Generator[None]:
    """A file gets mode 0600. Raises RefusedError if it cannot be opened."""
    with ExitStack() as stack:
        streams = [sys.stderr] if verbose else []
        if log_file is not None:
            streams.append(stack.enter_context(_opened(log_file)))
        logging.getLogger().addHandler(_SILENCE)
        for stream in streams:
            handler = logging.StreamHandler(stream)
            handler.setFormatter(MaskingFormatter(mask))
            logging.getLogger().addHandler(handler)
            stack.callback(logging.getLogger().removeHandler, handler)
        logging.getLogger("batchrun").setLevel(logging.DEBUG if streams else logging.NOTSET)
        yield


def _opened(path: str) -> TextIO:
    def private(name: str, flags: int) -> int:
        return os.open(name, flags, 0o600)

    try:
        return open(path, "a", encoding="utf-8", errors="backslashreplace", opener=private)
    except OSError as error:
        raise RefusedError(f"cannot write the log file {path}: {error.strerror or error}") from error
