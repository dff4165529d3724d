"""`post`: the replies of a run through functions again, without a call."""

from typing import TYPE_CHECKING, Any

import click

from batchrun.cli import complete
from batchrun.cli.failures import ErrorBoundary
from batchrun.cli.help_format import HelpCommand, typed
from batchrun.cli.options import RUN, flag
from batchrun.errors import ExitCode

if TYPE_CHECKING:
    from batchrun.plan.sources import Gathered

_OPTIONS = {
    *("post", "workers", "ray", "post_timeout", "post_concurrency"),
    *("json", "quiet", "no_progress", "verbose", "log_file", "runs_dir", "drain"),
}


@click.command(
    "post",
    cls=HelpCommand,
    short_help="Post-process the replies of a run again.",
    params=[
        click.Argument(["ref"], metavar="[RUN]", required=False, default="last", shell_complete=complete.runs),
        flag("Post-processing", "--list list", "List the built-in functions."),
        *(option for option in RUN if option.name in _OPTIONS),
    ],
    examples=(
        "batchrun post last --post check.py:numbers     check existing replies again; no request is sent",
        "batchrun post reviews.translate.jsonl --post strip --post json",
        "batchrun post --list",
    ),
)
@click.pass_context
def post(ctx: click.Context, ref: str, list: bool, **_: Any) -> int:
    """Put the replies of a run through functions again, and write its output again. No call is made.

    RUN is a run id, a unique beginning of one, an output file, or last. Without --post the functions of the run are
    applied once more. A function takes a reply and returns a value: a dict is merged into the output row, any other
    JSON value becomes the output column, None keeps the text.
    """
    if list:
        from batchrun.post import described  # noqa: PLC0415  only for this list

        for name, what in described().items():
            click.echo(f"{name:<10}{what}")
        return ExitCode.OK
    from batchrun.report import headless  # noqa: PLC0415  the engine: not for --help

    flags = {name: value for name, value in typed(ctx).items() if name not in ("ref", "list")}

    def prepare_log(gathered: "Gathered") -> None:
        from batchrun.cli.run import prepare  # noqa: PLC0415  beside the engine

        prepare(ctx, gathered)

    ctx.ensure_object(ErrorBoundary)
    return headless.post(ref, flags, prepare_log)
