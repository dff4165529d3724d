"""`app`: the Textual app; `batchrun` alone on a terminal opens it too."""

import os
import sys
from typing import Any

import click

from batchrun.cli import complete
from batchrun.cli.help_format import HelpCommand, typed
from batchrun.cli.options import RUN
from batchrun.errors import RefusedError

_NOT_SHOWN = {"input", "prompt", "json", "quiet", "no_progress", "yes", "dry_run", "verbose", "log_file"}
_EXAMPLES = (
    "batchrun                              the start page",
    "batchrun app translate reviews.csv    filled in",
    "batchrun app translate reviews.csv --profile sim --set language=Japanese",
    "batchrun app --profile sim             simulated: no key, no cost",
)


@click.command(
    "app",
    cls=HelpCommand,
    short_help="Open the app.",
    params=[
        click.Argument(["prompt"], required=False, shell_complete=complete.prompts),
        click.Argument(["input"], required=False, shell_complete=complete.files),
        *(option for option in RUN if option.name not in _NOT_SHOWN),
    ],
    examples=_EXAMPLES,
)
@click.pass_context
def app(ctx: click.Context, **_: Any) -> int:
    """Set up a run, start it, control it, read its results.

    Options fill in the setup screen. The footer shows the keys of a screen; F1 lists them all.
    """
    return open_app(typed(ctx))


def open_app(flags: dict[str, Any], resume: Any = None) -> int:
    """Open the app on this terminal; returns the exit code. Raises RefusedError without a terminal."""
    # textual-serve shows the app in a browser: it names its driver so, and has pipes for a terminal
    served = os.environ.get("TEXTUAL_DRIVER", "").startswith("textual.drivers.web_driver")
    if not (served or (sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty())):
        raise RefusedError("the app needs a terminal", "without one: batchrun --input FILE --prompt NAME")
    from batchrun.plan.config import app_settings  # noqa: PLC0415  not for --help
    from batchrun.tui.app import open_app as opened  # noqa: PLC0415  Textual: not for --help

    return opened(flags, settings=app_settings(), resume=resume)
