"""Logging for `--verbose` and `--log-file`: off by default, and never with a secret in it."""

import logging
import os
from collections.abc import Callable

from batchrun.errors import RefusedError

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class MaskingFormatter(logging.Formatter):
    """Masks the finished record, so that messages, arguments and tracebacks are all covered."""

    def __init__(self, mask: Callable[[str], str]) -> None:
        super().__init__(_FORMAT)
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        return self._mask(super().format(record))


def start_logging(*, verbose: bool, log_file: str | None, mask: Callable[[str], str]) -> None:
    """Sends batchrun's log to stderr, to a file of mode 0600, or both. Raises RefusedError for a file that cannot be
    opened."""
    handlers: list[logging.Handler] = [logging.StreamHandler()] if verbose else []
    if log_file is not None:
        handlers.append(_file_handler(log_file))
    for handler in handlers:
        handler.setFormatter(MaskingFormatter(mask))
        logging.getLogger().addHandler(handler)
    if handlers:
        logging.getLogger("batchrun").setLevel(logging.DEBUG)


def _file_handler(path: str) -> logging.Handler:
    def private(name: str, flags: int) -> int:
        return os.open(name, flags, 0o600)

    try:
        stream = open(path, "a", encoding="utf-8", errors="backslashreplace", opener=private)  # noqa: SIM115  kept open for the life of the process
    except OSError as error:
        raise RefusedError(f"cannot write the log file {path}: {error.strerror or error}") from error
    return logging.StreamHandler(stream)
