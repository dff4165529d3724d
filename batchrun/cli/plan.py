"""`plan`: what a run would send, cost and take, before it is paid for."""

from typing import Any

import click

from batchrun.cli.failures import ErrorBoundary
from batchrun.cli.help_format import HelpCommand, typed
from batchrun.cli.options import RUN, flag, value
from batchrun.cli.run import prepare
from batchrun.errors import RefusedError

_EXAMPLES = (
    "batchrun plan --input reviews.csv --prompt summarize                 what it would send; no call is made",
    "batchrun plan --input reviews.csv --prompt summarize --pilot 50      measured on 50 rows; their replies are kept",
    "batchrun plan --input reviews.csv --prompt summarize --show 3       the first, the longest and the last request",
    "batchrun plan --input reviews.csv --prompt summarize --json | jq .cost",
)
_NOT_PLANNED = {"dry_run", "update", "json"}


@click.command(
    "plan",
    cls=HelpCommand,
    short_help="Estimate the requests, cost and time of a run.",
    params=[
        value("This command", "--pilot pilot", "N", "Run N rows from all over the input, and predict from them."),
        value("This command", "--show show", "N", "Print N requests: the first ones, the longest, the last."),
        flag("This command", "--json json", "One JSON object on standard output."),
        *(option for option in RUN if option.name not in _NOT_PLANNED),
    ],
    examples=_EXAMPLES,
)
@click.pass_context
def plan(ctx: click.Context, pilot: str | None, show: str | None, **_: Any) -> int:
    """Estimate the requests, cost and time of a run.

    The options are those of run. Every row is read and rendered, and no call is made. With --pilot N, N rows are sent
    as a run would send them; their replies are kept, and the run that follows does not pay for them again.
    """
    from batchrun.plan.resolve import check_input, check_provider  # noqa: PLC0415  pydantic: not for --help
    from batchrun.plan.sources import gather  # noqa: PLC0415  pydantic: not for --help
    from batchrun.report import headless  # noqa: PLC0415  the engine: not for --help

    gathered = gather({name: given for name, given in typed(ctx).items() if name not in ("pilot", "show")})
    prepare(ctx, gathered)
    check_input(gathered.settings)
    rows = None if pilot is None else _whole("--pilot", pilot)
    access = None
    if rows is not None:
        if gathered.settings.output == "-":
            raise RefusedError("a pilot's replies are kept in a run that is resumed later", "name an --output file")
        access = check_provider(gathered)
        ctx.ensure_object(ErrorBoundary).mask = access.mask.text
    return headless.plan(gathered, access, pilot=rows, show=0 if show is None else _whole("--show", show))


def _whole(name: str, text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1 or len(text) > 9:
        raise RefusedError(f"{name} must be a whole number of at least 1, not {text!r}")
    return int(text)
