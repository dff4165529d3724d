"""A run's progress in Prometheus' text format, for the textfile collector of a node exporter.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/. Metrics: docs/operation.md.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from batchrun.account import TOKENS
from batchrun.errors import RefusedError
from batchrun.pricing import usd
from batchrun.progress import Progress


class Metric(NamedTuple):
    """`samples` are pairs of further labels and a value, None if unknown."""

    name: str
    kind: str
    help: str
    samples: tuple[tuple[Mapping[str, str], float | None], ...]


def check_place(path: Path) -> None:
    """Raises RefusedError."""
    if not path.parent.is_dir():
        raise RefusedError(f"--metrics-file: no such directory: {path.parent}", "make it, or name another file")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise RefusedError(f"--metrics-file: {path} cannot be written", "name a file in a directory of yours")


def write(path: Path, text: str) -> None:
    """Replace the file by renaming, as the collector reads whole files; permissions follow the umask. Raises OSError."""
    building = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        building.write_text(text, encoding="utf-8")
        building.replace(path)
    finally:
        with contextlib.suppress(OSError):
            building.unlink(missing_ok=True)


def text_of(progress: Progress, run: str, *, now: float | None = None) -> str:
    """The file's text; `now` is Unix time, `run` the run's id, a label of every sample."""
    lines: list[str] = []
    for metric in _metrics(progress, time.time() if now is None else now):
        samples = [(labels, value) for labels, value in metric.samples if value is not None]
        if samples:
            lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
        for labels, value in samples:
            pairs = ",".join(f'{name}="{_escaped(label)}"' for name, label in {"run": run, **labels}.items())
            lines.append(f"{metric.name}{{{pairs}}} {value:.15g}")
    return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _metrics(progress: Progress, now: float) -> Iterator[Metric]:
    """Row counters count the whole run, attempts and tokens this session."""
    limits, ended = progress.limits, progress.ended
    about = {"model": progress.model, "host": progress.host, "simulated": str(progress.simulated).lower()}
    yield Metric("batchrun_run_info", "gauge", "Provider and model of the run.", ((about, 1),))
    yield Metric("batchrun_running", "gauge", "1 while the run is active.", (({}, float(ended is None)),))
    yield Metric(
        "batchrun_exit_code", "gauge", "The exit code, once it has ended.", (({}, ended and float(ended.exit_code)),)
    )
    yield Metric("batchrun_updated_timestamp_seconds", "gauge", "When this was written.", (({}, now),))
    yield Metric("batchrun_rows", "gauge", "Rows of the run.", (({}, progress.rows),))
    yield Metric("batchrun_rows_total", "counter", "Rows with an outcome.", _by(progress, "done", "failed", "skipped"))
    states = _by(progress, "pending", "in_flight", "post", "in_batches", "unknown")
    yield Metric("batchrun_open_rows", "gauge", "Rows without an outcome.", states)
    causes = tuple(({"cause": cause}, float(rows)) for cause, rows in progress.causes.items())
    yield Metric("batchrun_failures_total", "counter", "Rows that failed in this session, by cause.", causes)
    for name, help_ in (
        ("attempts", "Requests sent in this session."),
        ("retries", "Rows sent again after a failure."),
        ("throttled", "Requests answered by a 429."),
    ):
        yield Metric(f"batchrun_{name}_total", "counter", help_, (({}, getattr(progress, name)),))
    tokens = tuple(({"kind": name.removesuffix("_tokens")}, float(getattr(progress, name))) for name in TOKENS)
    yield Metric("batchrun_tokens_total", "counter", "Tokens of this session; cached is part of input.", tokens)
    cost = float(usd(progress.cost)) if progress.priced else None
    yield Metric("batchrun_cost_dollars_total", "counter", "US dollars that the run was charged.", (({}, cost),))
    yield Metric("batchrun_rows_per_second", "gauge", "Over half a minute.", (({}, progress.row_rate),))
    yield Metric("batchrun_tokens_per_second", "gauge", "Over half a minute.", (({}, progress.token_rate),))
    yield Metric("batchrun_elapsed_seconds", "gauge", "Since it began to send.", (({}, progress.elapsed),))
    yield Metric("batchrun_remaining_seconds", "gauge", "Estimated.", (({}, progress.eta),))
    yield Metric(
        "batchrun_concurrency_limit", "gauge", "Requests allowed in flight.", (({}, limits and limits.allowed),)
    )
    rates = ("requests", limits and limits.rpm), ("tokens", limits and limits.tpm)
    allowed = tuple(({"of": name}, rate) for name, rate in rates)
    yield Metric("batchrun_rate_limit_per_minute", "gauge", "Rate limits in force.", allowed)
    reason = () if progress.waiting is None or ended else (({"reason": str(progress.waiting.reason)}, 1.0),)
    yield Metric("batchrun_waiting", "gauge", "1 while no request can be sent, and why.", reason)


def _by(progress: Progress, *names: str) -> tuple[tuple[dict[str, str], float], ...]:
    return tuple(({"state": name}, float(getattr(progress, name))) for name in names)
