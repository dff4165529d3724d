"""The lists of the start page. Blocks."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from batchrun import prompts, registry
from batchrun.errors import BatchrunError
from batchrun.plan import plan_from_json
from batchrun.registry import RunFile
from batchrun.report import words
from batchrun.rows.detect import BY_SUFFIX
from batchrun.tui import draft

RUNS, PROMPTS, INPUTS = 5, 8, 12
# bytes of an input whose rows are counted
COUNTED = 50_000_000


class Item(NamedTuple):
    name: str
    description: str
    run: RunFile | None = None


class Overview(NamedTuple):
    runs: tuple[Item, ...]
    prompts: tuple[Item, ...]
    inputs: tuple[Item, ...]


def overview(runs_dir: str | None) -> Overview:
    found = [Item(each.name, each.description) for each in prompts.available() if not each.error]
    runs = registry.listing(registry.directory_for(registry.STREAM, runs_dir))
    outputs = {run.output.resolve() for run in runs if run.output is not None}
    return Overview(tuple(_runs(runs[:RUNS])), tuple(found[:PROMPTS]), tuple(_inputs(Path.cwd(), outputs)))


def _runs(runs: Sequence[RunFile]) -> list[Item]:
    items: list[Item] = []
    for run in runs:
        try:
            found, plan = registry.summary(run), plan_from_json(run.meta.plan)
        except (BatchrunError, ValueError):
            continue
        model = "SIMULATED" if run.meta.simulated else plan.model or "no model"
        parts = (plan.prompt_name or "no prompt", Path(plan.input).name, model)
        counted = f"{words.state_of(found)} {found.totals.done:,}/{found.totals.rows:,}"
        items.append(Item(run.reference, " · ".join((counted, *parts)), run))
    return items


def _inputs(folder: Path, outputs: set[Path]) -> list[Item]:
    items: list[Item] = []
    written = outputs | {path.with_name(f"{path.stem}.errors.jsonl") for path in outputs}
    for path in sorted(folder.iterdir(), key=lambda path: (BY_SUFFIX.get(path.suffix) == "text", path.name)):
        if path.name.startswith(".") or path.suffix not in BY_SUFFIX or not path.is_file() or path.resolve() in written:
            continue
        try:
            head = draft.read_head(path.name, {}, has_prompt=True)
            rows = rows_of(path, head.format)
        except (BatchrunError, OSError, ValueError, csv.Error):
            continue
        items.append(Item(path.name, head.format if rows is None else f"{head.format} · {rows:,} rows"))
        if len(items) == INPUTS:
            break
    return items


def rows_of(path: Path, form: str) -> int | None:
    # only if counting takes no more than reading its lines
    if path.stat().st_size > COUNTED or form not in ("jsonl", "text", "csv"):
        return None
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        if form == "csv":
            return max(0, sum(1 for row in csv.reader(file) if row) - 1)
        return sum(1 for line in file if line.strip())
