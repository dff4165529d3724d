"""Processes that batchrun starts: an environment without secrets, and output into the log."""

import logging
import re
from collections.abc import Collection, Mapping

log = logging.getLogger("batchrun.post.output")

_LINE = 10_000
_SECRET = re.compile(r"(KEY|KEYS|TOKEN|TOKENS|SECRET|SECRETS|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)(_|\d|$)")


def without_secrets(
    environ: Mapping[str, str], names: Collection[str] = (), values: Collection[str] = ()
) -> dict[str, str]:
    """Without variables named like secrets, in `names`, or containing one of `values`."""
    held = [value for value in values if value]
    return {
        name: value
        for name, value in environ.items()
        if name not in names and not _SECRET.search(name.upper()) and not any(secret in value for secret in held)
    }


def into_log(reading: int) -> None:
    with open(reading, encoding="utf-8", errors="backslashreplace", newline="\n") as lines:
        while line := lines.readline(_LINE):
            log.info("%s", line.rstrip("\n"))
