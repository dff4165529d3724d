"""`runs`, `show`, `export`, `check`, `rm`, `report`, `steer`: the runs of a directory."""

import sys
import time
from typing import Any

import click

from batchrun.cli import complete
from batchrun.cli.help_format import HelpCommand, RunArgument, typed
from batchrun.cli.options import RUNS_DIR, action_argument, configured_runs_dir, flag, run_argument, value
from batchrun.errors import DamagedError, ExitCode, RefusedError

_JSON = flag("Options", "--json json", "Print one JSON object per line.")


@click.command(
    "runs", cls=HelpCommand, params=[_JSON, RUNS_DIR], examples=("batchrun runs", "batchrun runs --json | jq -r .id")
)
def runs(json: bool, runs_dir: str | None) -> int:
    """List the runs of this directory, the latest first."""
    from batchrun import registry  # noqa: PLC0415  only for this command
    from batchrun.display import printable  # noqa: PLC0415  only for this command
    from batchrun.report import pages  # noqa: PLC0415  only for this command

    directory = registry.directory_for("-", runs_dir or configured_runs_dir())
    unreadable = registry.unreadable(directory)
    for error in unreadable.values():
        click.echo(f"batchrun: {printable(error.message)}", err=True)
    runs = registry.summaries(directory)
    if runs or not unreadable:
        pages.runs_table(runs, as_json=json)
    return ExitCode.OK


@click.command(
    "show",
    cls=HelpCommand,
    short_help="Show one run.",
    params=[
        run_argument(),
        flag("Options", "-f --follow follow", "Follow a run that another terminal started."),
        flag("Options", "--failed failed", "List the rows that failed, and why."),
        value("Options", "--row row", "ID|LINE", "Show one row: request, reply, thinking, every attempt."),
        _JSON,
        RUNS_DIR,
    ],
    examples=(
        "batchrun show                        the last run",
        "batchrun show last --follow          follow a run that another terminal started",
        "batchrun show reviews.translate.csv --failed",
        "batchrun show last --row 17          the row of line 17, or with this id",
    ),
)
def show(ref: str, json: bool, runs_dir: str | None, **what: Any) -> int:
    """Show one run: its plan, totals, what is left and how to resume."""
    from batchrun import registry  # noqa: PLC0415  only for this command
    from batchrun.report import pages  # noqa: PLC0415  only for this command

    found = registry.find(ref, runs_dir or configured_runs_dir())
    if what["row"] is not None:
        pages.show_row(found, what["row"], as_json=json, out=sys.stdout)
        return ExitCode.OK
    pages.show_run(found, follow=what["follow"], failed=what["failed"], as_json=json)
    return ExitCode.OK


@click.command(
    "export",
    cls=HelpCommand,
    short_help="Write the output of a run again.",
    params=[
        run_argument(),
        value("Options", "-o --output output", "FILE", "Write to this file instead; -: standard output.", completer=complete.files),
        value("Options", "--format format", "FORMAT", "jsonl, csv, tsv, parquet or xlsx.", completer=complete.one_of("jsonl", "csv", "tsv", "parquet", "xlsx")),
        flag("Options", "--failed failed", "Write only the failed rows, as input for another run."),
        value("Options", "--journal journal", "FILE", "Write a copy of the journal, for another directory.", completer=complete.files),
        value("Options", "--batch-requests batch_requests", "DIR", "Write the requests of pending rows as batch files, to run by hand.", completer=complete.files),
        flag("Options", "--with-files with_files", "With --journal: also copy the pictures, audio and documents of its rows."),
        RUNS_DIR,
    ],
    examples=(
        "batchrun export last                          the output again; no request is sent",
        "batchrun export last --output all.csv",
        "batchrun export last --failed --output again.jsonl",
        "batchrun export last --journal backup.db --with-files",
        "batchrun export last --batch-requests out     requests for a console or vllm run-batch",
    ),
)  # fmt: skip
def export(**options: Any) -> int:
    """Write the output of a run again from its journal, also while the run is under way."""
    from batchrun import registry  # noqa: PLC0415  only for this command
    from batchrun.report import exports  # noqa: PLC0415  only for this command

    try:
        found = registry.find(options.pop("ref"), options.pop("runs_dir") or configured_runs_dir())
        if (folder := options.pop("batch_requests")) is not None:
            exports.export_requests(found, folder, **options)
        else:
            exports.export_run(found, **options)
    except DamagedError as error:
        if options["failed"] or options["journal"]:
            raise
        return exports.export_readable(error, options["output"])
    return ExitCode.OK


@click.command(
    "check",
    cls=HelpCommand,
    short_help="Check the journal of a run.",
    params=[run_argument(), RUNS_DIR],
    examples=("batchrun check last", "batchrun check reviews.translate.csv && cp -r .batchrun /backup"),
)
def check(ref: str, runs_dir: str | None) -> int:
    """Verify the whole journal of a run; exit 5 if it is damaged."""
    from batchrun import registry  # noqa: PLC0415  only for this command
    from batchrun.report import exports  # noqa: PLC0415  only for this command

    exports.check(registry.journal_of(ref, runs_dir or configured_runs_dir()))
    return ExitCode.OK


@click.command(
    "rm",
    cls=HelpCommand,
    short_help="Delete runs with every reply in them.",
    params=[
        RunArgument(["refs"], metavar="[RUN…]", nargs=-1, required=False, shell_complete=complete.runs),
        value(
            "Options",
            "--older-than older_than",
            "TIME",
            "All runs that ended longer ago than this, such as 30d.",
        ),
        flag("Options", "-y --yes yes", "Delete without asking."),
        RUNS_DIR,
    ],
    examples=("batchrun rm 20261121-1430", "batchrun rm last --yes", "batchrun rm --older-than 30d"),
)
def rm(refs: tuple[str, ...], older_than: str | None, yes: bool, runs_dir: str | None) -> int:
    """Delete runs: the journal with every reply in it. The output files stay."""
    from batchrun import registry  # noqa: PLC0415  only for this command
    from batchrun.report import pages  # noqa: PLC0415  only for this command

    runs_dir = runs_dir or configured_runs_dir()
    if not refs and older_than is None:
        raise RefusedError("no run is named", "batchrun rm RUN, or batchrun rm --older-than 30d")
    found = [registry.deletable(ref, runs_dir) for ref in refs]
    if older_than is not None:
        found += registry.ended_before(time.time() - _age(older_than), registry.directory_for("-", runs_dir))
    if found and not yes and not sys.stdin.isatty():
        raise RefusedError("confirmation required and no terminal to ask on", "add --yes")
    for run in {run.path.resolve(): run for run in found}.values():  # named twice, or also old enough
        if yes or click.confirm(f"Delete {pages.title(run)}?", err=True):
            registry.remove(run)
            click.echo(f"batchrun: deleted {run.id}", err=True)
    if not found:
        click.echo(f"batchrun: nothing deleted: no run here ended more than {older_than} ago", err=True)
    return ExitCode.OK


def _age(text: str) -> float:
    from batchrun.plan.durations import parse_duration  # noqa: PLC0415  only for this command

    try:
        return parse_duration(text)
    except ValueError as error:
        raise RefusedError(f"--older-than {error}", "such as 12h or 30d") from error


_EXAMPLES = (
    "batchrun report                              the last run, into RUN.html",
    "batchrun report reviews.translate.csv -o report.html",
    "batchrun report last --json | jq .cost",
)


@click.command(
    "report",
    cls=HelpCommand,
    short_help="Write a page about one run.",
    params=[
        run_argument(),
        value("Options", "-o --output output", "FILE", "The file of the page; -: standard output [default: RUN.html].", completer=complete.files),
        flag("Options", "--json json", "Print one JSON object instead."),
        RUNS_DIR,
    ],
    examples=_EXAMPLES,
)  # fmt: skip
def report(ref: str, output: str | None, json: bool, runs_dir: str | None) -> int:
    """Write one HTML page about a run: account, cost, speed, limits, failures, some rows.

    The page is a single file without external resources.
    """
    from json import dumps  # noqa: PLC0415  `json` is the option here

    from batchrun import registry  # noqa: PLC0415  only for this command
    from batchrun.report import exports, html  # noqa: PLC0415  the same

    run = registry.find(ref, runs_dir or configured_runs_dir())
    if json:
        click.echo(dumps(html.report_values(run)))
        return ExitCode.OK
    page = html.report_page(run).encode("utf-8", "replace")
    if output == "-":
        sys.stdout.buffer.write(page)
        return ExitCode.OK
    exports.write_page(page, output or f"{run.id}.html")
    return ExitCode.OK


_AUTO = "auto"


@click.command(
    "steer",
    cls=HelpCommand,
    short_help="Pause, resume or stop a run in another terminal, or change its limits.",
    params=[
        run_argument(required=True),
        action_argument("status", "pause", "resume", "stop", "stop-now"),
        value("Options", "--concurrency concurrency", "N", "At most N requests in flight from now on."),
        value("Options", "--rpm rpm", "N|auto", "At most N requests per minute from now on; auto: from the provider."),
        value("Options", "--tpm tpm", "N|auto", "At most N tokens per minute from now on; auto: from the provider."),
        flag("Options", "--json json", "Print the status as a JSON object."),
        RUNS_DIR,
    ],
    examples=(
        "batchrun steer last                      prints the status",
        "batchrun steer last pause",
        "batchrun steer last resume --concurrency 8",
        "batchrun steer reviews.translate.csv --rpm 500 --tpm auto",
        "batchrun steer last stop                 as Ctrl-C there; stop-now: as a second Ctrl-C",
    ),
)  # fmt: skip
@click.pass_context
def steer(ctx: click.Context, ref: str, action: str | None, json: bool, runs_dir: str | None, **_: Any) -> int:
    """Pause, resume or stop a run in another terminal, or change its limits. Without ACTION, print its status.

    ACTION is status, pause, resume, stop (send nothing new and wait for requests in flight) or stop-now (do not wait,
    write no output). Only the user who started the run can steer it.
    """
    from batchrun import registry, steering  # noqa: PLC0415  only for this command
    from batchrun.report import pages  # noqa: PLC0415  only for this command

    limits = {name: _limit(name, text) for name, text in typed(ctx).items() if name in steering.LIMITS}
    run = registry.find(ref, runs_dir or configured_runs_dir())
    requests: list[dict[str, Any]] = [{"command": "limits", **limits}] if limits else []
    if action is not None or not requests:
        requests.append({"command": action or "status"})
    for request in requests:
        status = registry.steer(run, request)
    pages.show_status(status, as_json=json)  # pyright: ignore[reportPossiblyUnboundVariable]  there is a request
    return ExitCode.OK


def _limit(name: str, text: str) -> float | None:
    if text == _AUTO and name != "concurrency":
        return None
    try:
        return int(text) if name == "concurrency" else float(text)
    except ValueError:
        raise RefusedError(f"--{name} must be a number, not {text!r}", "batchrun steer --help") from None
