"""The output of `runs`, `show` and a dry run. Loads no engine: these commands cost only Python and SQLite."""

import datetime
import json
import sys
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

import click

from batchrun import registry
from batchrun.display import coloured, counted, printable
from batchrun.journal import Reader
from batchrun.models import State
from batchrun.plan import plan_from_json
from batchrun.pricing import usd
from batchrun.registry import RunFile, Summary
from batchrun.report import batch_pages, words
from batchrun.report.words import plain

if TYPE_CHECKING:
    from batchrun.engine.request_stats import DryRun

FOLLOW_EVERY = 2.0


def runs_table(runs: list[Summary], *, as_json: bool, stream: TextIO | None = None) -> None:
    out = stream or sys.stdout
    for found in runs:
        print(json.dumps(summary_values(found)) if as_json else _run_line(found), file=out)
    if not runs and not as_json:
        print(
            "no runs here; a run is listed where its output is (--runs-dir DIR); `batchrun --help` shows how to start one",
            file=sys.stderr,
        )


def show_status(status: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(status))
        return
    counts = " + ".join(f"{status[name]:,} {name}" for name in ("done", "failed", "skipped", "pending"))
    rates = [f"{name} {'auto' if status[name] is None else f'{status[name]:,.10g}'}" for name in ("rpm", "tpm")]
    print(f"run {status['run']}: {status['state']}; {counts} + {status['in_flight']:,} in flight")
    print(f"limits: concurrency {status['concurrency']:,} ({status['allowed']:,} now), {', '.join(rates)}")
    if status["waiting"] is not None:
        print(f"waiting: {status['waiting']}")


def title(run: RunFile) -> str:
    found = registry.summary(run)
    if found.damage is not None:
        return f"run {run.id} (damaged)"
    totals = found.totals
    return f"run {run.id} ({printable(run.reference, 60)}, {totals.replies:,} {'reply' if totals.replies == 1 else 'replies'})"


def summary_values(found: Summary) -> dict[str, Any]:
    return {
        "id": found.run.id,
        "created": found.run.meta.created,
        "state": words.state_of(found),
        "simulated": found.run.meta.simulated,
        **{name: words.planned(found).get(name) for name in ("input", "model")},
        "prompt": words.planned(found).get("prompt_name"),
        "output": None if found.run.output is None else str(found.run.output),
        "journal": str(found.run.path),
        **plain(found.totals),
        "in_flight": found.totals.unknown if found.running is not None else 0,
        "unknown": 0 if found.running is not None else found.totals.unknown,
        "pending": found.totals.pending,
    }


def _run_line(found: Summary) -> str:
    totals = found.totals
    failed = f", {totals.failed:,} failed" if totals.failed else ""
    failed += f", {totals.in_batches:,} in batches" if totals.in_batches else ""
    mark = " [simulated]" if found.run.meta.simulated else ""
    target = "stdout" if found.run.output is None else printable(found.run.reference, 60)
    state, plan = words.state_of(found), words.planned(found)
    what = ", ".join(printable(str(part), 30) for part in (plan.get("prompt_name"), plan.get("model")) if part)
    if coloured(sys.stdout):
        shade = {"finished": "green", "running": "cyan", "damaged": "red", "killed": "red"}.get(state, "yellow")
        state = click.style(f"{state:<10}", fg=shade)
    return f"{found.run.id}  {state:<10}  {totals.done:,}/{totals.rows:,} done{failed}  {what}  {target}{mark}"


def show_run(run: RunFile, *, follow: bool, failed: bool, as_json: bool) -> None:
    out = sys.stdout
    _show_once(run, failed=failed, as_json=as_json, out=out)
    while follow and registry.summary(run).running is not None:
        time.sleep(FOLLOW_EVERY)
        if as_json:
            _show_once(run, failed=False, as_json=True, out=out)
        else:
            _show_progress(run, out)
    if follow and not as_json:
        with Reader.open(run.path) as reader:
            print(words.account(reader.totals), file=out)


def _show_progress(run: RunFile, out: TextIO) -> None:
    with Reader.open(run.path) as reader:
        totals, samples = reader.totals, reader.samples(time.time() - 30)
    state: dict[str, Any] = samples[-1].state if samples else {}
    wait = f", waiting: {state['waiting']}" if state.get("waiting") else ""
    flying = f", {state.get('in_flight', 0)}/{state.get('allowed', 0)} in flight" if state else ""
    finished = totals.done + totals.failed + totals.skipped
    print(f"{finished:,}/{counted(totals.rows)}, {totals.failed:,} failed{flying}{wait}", file=out, flush=True)


def _show_once(run: RunFile, *, failed: bool, as_json: bool, out: TextIO) -> None:
    values = run_values(run)
    if as_json:
        print(json.dumps(values), file=out, flush=True)
        return
    for line in run_lines(run, values):
        print(line, file=out)
    if failed:
        _show_failed(run, out)


def run_values(run: RunFile) -> dict[str, Any]:
    with Reader.open(run.path) as reader:
        plan, totals = plan_from_json(reader.meta.plan), reader.totals
        return {
            **summary_values(registry.summary(run)),
            "cost_by_kind": {kind: usd(cost) for kind, cost in words.kinds(totals).items()} or None,
            "cost_by_tier": [plain(share) for share in reader.tiers()],
            "lanes": words.lane_values(words.lane_shares(reader, plan)),
            "plan": json.loads(reader.meta.plan),
            "errors": [plain(cause) for cause in reader.errors_by_cause()],
            "slowest": [
                {"line": entry.line, "id": entry.key, "seconds": entry.seconds, "output_tokens": entry.output_tokens}
                for entry in reader.slowest(5)
            ],
            "sessions": [plain(session) for session in reader.sessions],
            "batches": batch_pages.batches(reader, plan),
            "history": history([(sample.at, sample.state) for sample in reader.samples()]),
            "kind": plan.kind.value,
        }


def history(samples: list[tuple[float, dict[str, Any]]], points: int = 12) -> list[dict[str, Any]]:
    step = max(1, len(samples) // points)
    return [{"at": at, **state} for at, state in samples[::step]]


def run_lines(run: RunFile, values: dict[str, Any]) -> Iterable[str]:
    with Reader.open(run.path) as reader:
        plan, totals, causes = plan_from_json(reader.meta.plan), reader.totals, reader.errors_by_cause()
        tiers, of_lanes = reader.tiers(), words.lane_shares(reader, plan)
    yield f"run      {run.id} ({values['state']}{', SIMULATED replies' if run.meta.simulated else ''})"
    yield f"input    {printable(plan.input, 100)} ({plan.input_format}, {plan.kind})"
    yield f"prompt   {printable(plan.prompt_name or '-', 100)}"
    where = printable(plan.base_url, 100) or "(started by the run)"
    yield f"model    {words.model_of(plan)} with profile {plan.profile} {where}"
    if plan.processes > 1:
        yield f"senders  {plan.processes} processes"
    if plan.senders is not None:
        many = "one on each node" if plan.senders == "node" else str(plan.senders)
        yield f"senders  {many} of the Ray cluster {printable(plan.senders_ray or '', 100)}"
    yield f"output   {printable(str(run.output or 'stdout'), 200)}"
    yield f"rows     {words.account(totals, running=values['state'] == 'running')}"
    yield (
        f"tokens   {totals.input_tokens:,} in ({totals.cached_tokens:,} from a cache, "
        f"{totals.cache_write_tokens:,} written to one), {totals.output_tokens:,} out "
        f"({totals.reasoning_tokens:,} reasoning); {totals.attempts:,} attempts, {totals.possibly_billed:,} may have been billed"
    )
    if text := words.bill(totals, simulated=run.meta.simulated):
        yield f"cost     {text}"
    for text in (words.bill_by_kind(totals), words.bill_by_tier(tiers)):
        if text:
            yield f"         {text}"
    if text := words.savings(totals):
        yield f"saved    {text}"
    yield from _session_lines(values["sessions"], running=values["state"] == "running")
    yield from _section("batches", batch_pages.lines(values["batches"], time.time()))
    yield from _section("lanes", words.lane_lines(of_lanes))
    yield from _section("errors by cause", [words.cause(cause) for cause in causes])
    slowest = (
        f"line {entry['line']}: {words.duration(entry['seconds'])}, {entry['output_tokens'] or '?'} tokens out"
        for entry in values["slowest"]
    )
    yield from _section("slowest rows", list(slowest))
    yield from _section("history", [_history_line(point) for point in values["history"]])
    command = words.resume_command(totals, run.reference, run.runs_dir)
    if command is not None and values["state"] != "running":
        yield f"\nresume with: {command}"


def _section(title: str, lines: list[str]) -> Iterable[str]:
    if lines:
        yield f"\n{title}"
        yield from (f"  {line}" for line in lines)


def _session_lines(sessions: list[dict[str, Any]], *, running: bool) -> Iterable[str]:
    for session in sessions[-5:]:
        began = datetime.datetime.fromtimestamp(session["started"]).astimezone()
        ended = session["ended"]
        how = "no end recorded"
        if running and session is sessions[-1]:
            how = "running"
        elif ended is not None:
            exit_code = "killed" if session["exit_code"] is None else f"exit {session['exit_code']}"
            how = f"{words.duration(ended - session['started'])}, {exit_code}"
        yield f"session  {began:%Y-%m-%d %H:%M:%S}, {how}"


def _history_line(point: dict[str, Any]) -> str:
    at = datetime.datetime.fromtimestamp(point["at"]).astimezone()
    rates = "".join(
        f", {name} {point[key]:,.0f}/min" for name, key in (("requests", "rpm"), ("tokens", "tpm")) if point.get(key)
    )
    wait = f", waiting: {point['waiting']}" if point.get("waiting") else ""
    return f"{at:%H:%M:%S} {point['done']:,} done, {point['in_flight']}/{point['allowed']} in flight{rates}{wait}"


def _show_failed(run: RunFile, out: TextIO) -> None:
    with Reader.open(run.path) as reader:
        for record in reader.export_rows():
            if record.state is State.FAILED:
                when = "permanent" if record.permanent else "retryable"
                text = printable(f"{record.cause}: {record.message}", 300)
                print(f"line {record.line} ({printable(record.key, 60)}), {when}: {text}", file=out)


def show_row(run: RunFile, wanted: str, *, as_json: bool, out: TextIO) -> None:
    """Raises RefusedError, StorageError."""
    from batchrun.engine.selection import record_of  # noqa: PLC0415  the engine, prompts and replies: only for a row
    from batchrun.report.row_text import row_lines, row_values  # noqa: PLC0415  likewise

    with Reader.open(run.path) as reader:
        plan, record = plan_from_json(reader.meta.plan), record_of(reader, wanted)
        attempts, parts = reader.attempts(record.seq), reader.parts(record.seq)
    if as_json:
        print(json.dumps(row_values(plan, record, attempts, parts), ensure_ascii=False), file=out)
        return
    for line in row_lines(plan, record, attempts, parts):
        print(printable(line), file=out)


def show_dry_run(found: "DryRun", *, as_json: bool) -> None:
    plan = found.plan
    values = {
        "rows": found.rows,
        "skipped": found.skipped,
        "body_bytes": found.body_bytes,
        "output": plan.output,
        "profile": plan.profile,
        "base_url": plan.base_url,
        "model": plan.model,
        "first": None if found.first is None else json.loads(bytes(found.first.body)),
    }
    if as_json:
        print(json.dumps(values))
        return
    print(
        f"{counted(found.rows)} would be sent ({found.body_bytes:,} bytes), {found.skipped:,} skipped; nothing was sent"
    )
    print(f"to {printable(plan.base_url or plan.profile)}, model {words.model_of(plan)}")
    print(f"output {printable(plan.output)}")
    if found.first is not None:
        print("the first request:")
        print(printable(json.dumps(values["first"], ensure_ascii=False, indent=2), 4000).replace("␊", "\n"))
