"""An inference server's queue gauges, whose names are data (`providers/queues.toml`).

The format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import json
import math
import re
from functools import cache
from typing import NamedTuple

from batchrun.providers import table

_LABELS = r'(?:\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})?'


class Queue(NamedTuple):
    """Of all clients."""

    server: str
    running: float
    waiting: float


def read(text: str) -> Queue | None:
    if text.startswith('"'):
        try:
            text = str(json.loads(text))
        except json.JSONDecodeError:
            return None
    for server, running, waiting in _known():
        if works := _values(running, text):
            return Queue(server, sum(works), sum(_values(waiting, text)))
    return None


def _values(gauge: re.Pattern[str], text: str) -> list[float]:
    try:
        values = [float(value) for value in gauge.findall(text)]
    except ValueError:
        return []
    return values if all(0 <= value < math.inf for value in values) else []


@cache
def _known() -> tuple[tuple[str, re.Pattern[str], re.Pattern[str]], ...]:
    def gauge(name: str) -> re.Pattern[str]:
        return re.compile(rf"^{re.escape(name)}{_LABELS}[ \t]+(\S+)", re.MULTILINE)

    return tuple(
        (server["name"], gauge(server["running"]), gauge(server["waiting"])) for server in table("queues")["servers"]
    )
