"""`run`, `resume`, `plan`, `post` and `app`: from typed flags to the engine or the app."""

import gc
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from batchrun.cli import complete
from batchrun.cli.failures import ErrorBoundary
from batchrun.cli.help_format import HelpCommand, typed
from batchrun.cli.options import RESUME, RUN, configured_runs_dir, flag, run_argument, value
from batchrun.errors import ExitCode, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchrun.plan import Plan
    from batchrun.plan.resolve import Access
    from batchrun.plan.sources import Gathered

_RUN_EXAMPLES = (
    "batchrun --input reviews.csv --prompt summarize --set language=French",
    "batchrun -i questions.jsonl -p ask.prompty -m gpt-5.4-mini --param temperature=0 -o answers.jsonl",
    "batchrun -i requests.jsonl                      an OpenAI Batch file, sent live",
    "cat notes.txt | batchrun -i - -p summarize -o - | jq .output",
    "batchrun -i reviews.csv -p summarize -P sim     simulated: no key, no cost",
)
_RESUME_EXAMPLES = (
    "batchrun resume                          the last run here: everything that is not done",
    "batchrun resume reviews.translate.csv    the run that belongs to this output",
    "batchrun resume last --failed            also the rows that failed permanently",
    "batchrun resume last --cause empty       also those that failed permanently for this cause",
    "batchrun resume last --rows r17,r23      only these rows",
    "batchrun resume last --concurrency 8",
)


@click.command("run", cls=HelpCommand, params=list(RUN), examples=_RUN_EXAMPLES)
@click.pass_context
def run(ctx: click.Context, **_: Any) -> int:
    """Run a prompt over the rows of an input.

    The same command again continues the run that belongs to its output: rows that are done are not sent again.
    Every option can also be set in batchrun.toml or in a BATCHRUN_* variable. TIME is written 90s, 10m or 1h30m.
    """
    from batchrun.plan.resolve import check_input, check_provider  # noqa: PLC0415  not for --help
    from batchrun.plan.sources import gather  # noqa: PLC0415  not for --help
    from batchrun.report import headless  # noqa: PLC0415  the engine: not for --help

    gathered = gather(typed(ctx))
    prepare(ctx, gathered)
    check_input(gathered.settings)
    access = check_provider(gathered)
    ctx.ensure_object(ErrorBoundary).mask = access.mask.text
    return headless.run(gathered, access)


@click.command(
    "resume",
    cls=HelpCommand,
    params=[
        run_argument(),
        flag("This command", "--failed failed", "Also send the rows that failed permanently."),
        value("This command", "--cause cause", "CAUSE", "Also send the rows that failed permanently for this cause.", completer=complete.causes),
        value("This command", "--rows rows", "IDS|FILE", "Send only these rows: ids or line numbers separated by commas, or a file with one per line, such as an errors file.", completer=complete.files),
        flag("This command", "--done done", "With --rows: also rows that are done; their earlier replies stay in the journal."),
        flag("This command", "--tui tui", "Resume in the app."),
        *RESUME,
    ],
    examples=_RESUME_EXAMPLES,
)  # fmt: skip
@click.pass_context
def resume(ctx: click.Context, ref: str, failed: bool, tui: bool, **given: Any) -> int:
    """Resume a run: everything that is not done.

    The rows, the prompt and the plan come from the journal; neither the input nor the prompt file is read. Options change
    the plan from now on; without one, the run keeps its own value, whatever default is listed here.
    """
    own = ("ref", "failed", "cause", "rows", "done", "tui")
    flags = {name: value for name, value in typed(ctx).items() if name not in own}
    if "runs_dir" not in flags and (runs_dir := configured_runs_dir()) is not None:
        flags["runs_dir"] = runs_dir
    cause, rows, done = given["cause"], given["rows"], given["done"]
    if done and not rows:
        raise RefusedError("--done needs --rows", "name the rows to send again: --rows r17,r23 --done")
    if tui and (cause or rows):
        raise RefusedError("--tui does not take --cause or --rows", "in the app, r chooses what to send again")
    if tui:
        from batchrun.tui.services import ResumedRun  # noqa: PLC0415  Textual: not for --help

        return open_app(flags, ResumedRun(reference=ref, flags=flags, failed=failed))
    from batchrun.report import headless  # noqa: PLC0415  the engine: not for --help

    return headless.resume(ref, flags, admit=admission(ctx), failed=failed, cause=cause, chosen=rows, done=done)


def prepare(ctx: click.Context, gathered: "Gathered") -> None:
    from batchrun.cli.logs import logging_to  # noqa: PLC0415  not for --help

    boundary = ctx.ensure_object(ErrorBoundary)
    settings = gathered.settings
    log = logging_to(verbose=settings.verbose, log_file=settings.log_file, mask=boundary.masked)
    boundary.log.enter_context(log)
    boundary.keeps_log = settings.verbose or settings.log_file is not None


def admission(ctx: click.Context) -> "Callable[[Plan, Gathered], Access]":
    """The function that finds a journaled plan's key, starts the log and masks secrets."""
    from batchrun.plan import resolve  # noqa: PLC0415  not for --help

    def admit(plan: "Plan", gathered: "Gathered") -> "Access":
        prepare(ctx, gathered)
        access = resolve.access(plan, gathered)
        ctx.ensure_object(ErrorBoundary).mask = access.mask.text
        return access

    return admit


_PLAN_EXAMPLES = (
    "batchrun plan --input reviews.csv --prompt summarize                 sends nothing",
    "batchrun plan --input reviews.csv --prompt summarize --pilot 50      sends 50 rows and keeps their replies",
    "batchrun plan --input reviews.csv --prompt summarize --show 3        the first, the longest and the last request",
    "batchrun plan --input reviews.csv --prompt summarize --json | jq .cost",
)
_NOT_PLANNED = {"dry_run", "update", "json"}


@click.command(
    "plan",
    cls=HelpCommand,
    short_help="Estimate the requests, cost and time of a run.",
    params=[
        value(
            "This command", "--pilot pilot", "N", "Send N rows sampled from the input and predict from their replies."
        ),
        value("This command", "--show show", "N", "Print N requests: the first ones, the longest, the last."),
        flag("This command", "--json json", "One JSON object on standard output."),
        *(option for option in RUN if option.name not in _NOT_PLANNED),
    ],
    examples=_PLAN_EXAMPLES,
)
@click.pass_context
def plan(ctx: click.Context, pilot: str | None, show: str | None, **_: Any) -> int:
    """Estimate the requests, cost and time of a run.

    The options are those of run. Every row is read and rendered, and nothing is sent. With --pilot N, N rows are sent;
    their replies are kept, and the run that follows does not send them again.
    """
    from batchrun.plan.resolve import check_input, check_provider  # noqa: PLC0415  not for --help
    from batchrun.plan.sources import gather  # noqa: PLC0415  not for --help
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


_OF_POST = {
    *("post", "workers", "ray", "post_timeout", "post_concurrency"),
    *("json", "quiet", "no_progress", "verbose", "log_file", "runs_dir", "drain"),
}


@click.command(
    "post",
    cls=HelpCommand,
    short_help="Post-process the replies of a run again.",
    params=[
        run_argument(),
        flag("Post-processing", "--list list", "List the built-in functions."),
        *(option for option in RUN if option.name in _OF_POST),
    ],
    examples=(
        "batchrun post last --post check.py:numbers     check existing replies again; no request is sent",
        "batchrun post reviews.translate.csv --post strip --post json",
        "batchrun post --list",
    ),
)
@click.pass_context
def post(ctx: click.Context, ref: str, list: bool, **_: Any) -> int:
    """Pass the replies of a run through functions again, and write its output again. No request is sent.

    Without --post the functions of the run are used again. A function takes a reply and returns a value: a dict is merged
    into the output row, any other JSON value replaces the reply, None keeps it.
    """
    if list:
        from batchrun.post import described  # noqa: PLC0415  only for this list

        for name, what in described().items():
            click.echo(f"{name:<10}{what}")
        return ExitCode.OK
    from batchrun.report import headless  # noqa: PLC0415  the engine: not for --help

    flags = {name: value for name, value in typed(ctx).items() if name not in ("ref", "list")}

    def prepare_log(gathered: "Gathered") -> None:
        prepare(ctx, gathered)

    ctx.ensure_object(ErrorBoundary)
    return headless.post(ref, flags, prepare_log)


_NOT_IN_APP = {"input", "prompt", "json", "quiet", "no_progress", "yes", "dry_run", "verbose", "log_file"}
_APP_EXAMPLES = (
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
        *(option for option in RUN if option.name not in _NOT_IN_APP),
    ],
    examples=_APP_EXAMPLES,
)
@click.pass_context
def app(ctx: click.Context, **_: Any) -> int:
    """Set up a run, start it, control it, read its results.

    Options fill in the setup screen. The footer shows the keys of a screen; F1 lists them all.
    """
    return open_app(typed(ctx))


def open_app(flags: dict[str, Any], resume: Any = None) -> int:
    """Raises RefusedError without a terminal."""
    # textual-serve shows the app in a browser: it names its driver so, and has pipes for a terminal
    served = os.environ.get("TEXTUAL_DRIVER", "").startswith("textual.drivers.web_driver")
    if not (served or (sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty())):
        raise RefusedError("the app needs a terminal", "without one: batchrun --input FILE --prompt NAME")
    gc.set_threshold(20_000, 20, 100)  # screens are cycles
    from batchrun.plan.config import app_settings  # noqa: PLC0415  not for --help
    from batchrun.tui.app import open_app as opened  # noqa: PLC0415  Textual: not for --help

    return opened(flags, settings=app_settings(), resume=resume)
