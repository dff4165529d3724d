"""`report`: one run as a page to read and to pass on."""

import sys

import click

from batchrun.cli import complete
from batchrun.cli.help_format import HelpCommand
from batchrun.cli.options import configured_runs_dir, flag, talk, value
from batchrun.errors import ExitCode

_EXAMPLES = (
    "batchrun report                              the last run, into RUN.html",
    "batchrun report reviews.translate.jsonl -o report.html",
    "batchrun report last --json | jq .cost",
)


@click.command(
    "report",
    cls=HelpCommand,
    short_help="Write a page about one run.",
    params=[
        click.Argument(["ref"], metavar="[RUN]", required=False, default="last", shell_complete=complete.runs),
        value("Options", "-o --output output", "FILE", "Where the page goes, or - [default: RUN.html].", completer=complete.files),
        flag("Options", "--json json", "One JSON object on standard output."),
        *talk("runs_dir"),
    ],
    examples=_EXAMPLES,
)  # fmt: skip
def report(ref: str, output: str | None, json: bool, runs_dir: str | None) -> int:
    """Write one HTML page about a run: account, cost, speed, limits, failures, some rows.

    The page is a single file that loads nothing. RUN is a run id, a unique beginning of one, an output file, or last.
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
