"""The command line: `main` is the entry point, `program` the tree of commands.

Modules here import only click and the standard library at the top: `batchrun --help` must be quick.
"""

import gc
import io
import os
import sys
from collections.abc import Sequence
from typing import cast

import click

from batchrun import __version__
from batchrun.cli import batches, run, runs, tools
from batchrun.cli.failures import ErrorBoundary
from batchrun.cli.help_format import RootGroup
from batchrun.errors import ExitCode

_MODES = {"stdin": ("r", os.O_RDONLY), "stdout": ("w", os.O_RDONLY), "stderr": ("w", os.O_WRONLY)}


def replace_closed_streams() -> None:
    """So that no opened file takes their number."""
    for number, (name, (mode, flags)) in enumerate(_MODES.items()):
        if getattr(sys, name) is not None:
            continue
        if os.open(os.devnull, flags) == number:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  for the whole process


_COMPLETE = "_BATCHRUN_COMPLETE"
_EXAMPLES = (
    "batchrun --input reviews.csv --prompt summarize --profile sim     simulated: no key, no cost",
    "batchrun --input reviews.csv --prompt translate --set language=French --model gpt-5.4-mini",
    "batchrun --input requests.jsonl                                   an OpenAI Batch file, sent live",
    "batchrun resume                                                   resume the last run",
)


@click.group(cls=RootGroup, examples=_EXAMPLES, invoke_without_command=True)
@click.version_option(__version__, prog_name="batchrun", message="%(prog)s %(version)s")
@click.pass_context
def program(ctx: click.Context) -> int:
    """Run one prompt over many rows: ten or ten million LLM calls, from a file to a file.

    Every row is answered or accounted for, nothing is paid for twice. Options without a command belong to run:
    see batchrun run --help.
    """
    if ctx.invoked_subcommand is None:
        if sys.stdin.isatty() and sys.stdout.isatty():
            return run.open_app({})
        click.echo(ctx.get_help(), err=True)
    return ExitCode.REFUSED


for _command in (
    *(run.app, run.run, run.resume, batches.batches, batches.import_results, run.plan),
    *(runs.runs, runs.show, runs.steer, runs.export, runs.report, run.post, runs.check, runs.rm),
):
    program.add_command(_command)
for _command in (tools.sim, tools.prompts, tools.profiles, tools.completion):
    program.add_command(_command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit code."""
    # Modules and rows on their way are many objects and hardly a cycle. A run has made 100,000 until its first request,
    # and then does not look at them again; each search of 20,000 took 4 ms.
    gc.set_threshold(150_000, 20, 100)
    replace_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        cast("io.TextIOWrapper", sys.stdout).reconfigure(
            errors="backslashreplace"
        )  # a terminal or a pipe may have another encoding than UTF-8
    boundary = ErrorBoundary()
    args = list(sys.argv[1:] if argv is None else argv)

    def command() -> int:
        if instruction := os.environ.get(_COMPLETE):
            from click.shell_completion import shell_complete  # noqa: PLC0415  loaded only to complete

            return shell_complete(program, {}, "batchrun", _COMPLETE, instruction)
        with program.make_context("batchrun", args, obj=boundary) as ctx:
            return int(program.invoke(ctx) or 0)

    return int(boundary.run(command))
