"""`batches`: a run's batches at the provider; `import`: results of requests that were run by hand."""

from typing import TYPE_CHECKING, Any

import click

from batchrun.cli import complete
from batchrun.cli.help_format import HelpCommand, typed
from batchrun.cli.options import RUN, RUNS_DIR, action_argument, configured_runs_dir, flag, run_argument
from batchrun.cli.run import admission, prepare
from batchrun.errors import ExitCode, RefusedError

if TYPE_CHECKING:
    from batchrun.plan.sources import Gathered


@click.command(
    "batches",
    cls=HelpCommand,
    short_help="Show or end the batches of a run.",
    params=[
        run_argument(),
        action_argument("cancel", "adopt", "forget", "finish-live", metavar="[cancel|adopt ID|forget CHUNK|finish-live]"),
        click.Argument(["what"], metavar="", required=False),
        flag("Options", "--json json", "Print one JSON object per line."),
        RUNS_DIR,
    ],
    examples=(
        "batchrun batches                       lists the batches of the last run",
        "batchrun batches last cancel           ends them, keeps their results; the other rows stay pending",
        "batchrun batches last finish-live      ends them, then sends the rest live",
        "batchrun batches last adopt batch_abc  uses this batch for the submission without an answer",
        "batchrun batches last forget 3         sends the rows of chunk 3 again (they may have been billed)",
    ),
)  # fmt: skip
@click.pass_context
def batches(ctx: click.Context, ref: str, action: str | None, what: str | None, **options: Any) -> int:
    """Show the batches of a run; cancel, adopt, forget or finish them.

    cancel and finish-live wait about ten minutes at most until the provider has ended the batches, then read their results.
    """
    from batchrun import registry  # noqa: PLC0415  only for this command

    needs = {"adopt": "the id of a batch", "forget": "the number of a chunk"}
    if action in needs and what is None:
        raise RefusedError(f"{action} needs {needs[action]}", "`batchrun batches RUN` lists them")
    if action not in needs and what is not None:
        raise RefusedError(f"unexpected argument: {what!r}", "batchrun batches --help")
    runs_dir = options["runs_dir"] or configured_runs_dir()
    found = registry.find(ref, runs_dir)
    if action is None:
        from batchrun.report import batch_pages  # noqa: PLC0415  only for this table

        batch_pages.table(found, as_json=options["json"])
        return ExitCode.OK
    from batchrun.engine.batch_mode import BatchMode  # noqa: PLC0415  the engine: not for --help
    from batchrun.report import headless  # noqa: PLC0415  likewise

    if action == "forget":
        return headless.forget_chunk(found, str(what))
    flags: dict[str, Any] = {"runs_dir": runs_dir} if runs_dir else {}
    if action == "adopt":
        return headless.adopt_batch(ref, flags, str(what), admit=admission(ctx))
    batch_mode = BatchMode.CANCEL if action == "cancel" else BatchMode.FINISH_LIVE
    if options["json"]:
        flags["as_json"] = True
    return headless.resume(ref, flags, failed=False, admit=admission(ctx), batch_mode=batch_mode)


_OF_IMPORT = frozenset(
    {"json", "quiet", "no_progress", "verbose", "log_file", "runs_dir", "workers", "ray", "post_timeout"}
)


@click.command(
    "import",
    cls=HelpCommand,
    short_help="Import results of batches that were run by hand.",
    params=[
        run_argument(required=True),
        click.Argument(["files"], metavar="FILE…", nargs=-1, required=True, shell_complete=complete.files),
        *(option for option in RUN if option.name in _OF_IMPORT),
    ],
    examples=(
        "batchrun export last --batch-requests out        writes the requests of pending rows as files",
        "vllm run-batch -i out/RUN-001.jsonl -o 001.jsonl --model MODEL",
        "batchrun import last 001.jsonl                   imports its results and writes the output",
        "batchrun import last part2.jsonl errors.jsonl    more results, in any order",
    ),
)  # fmt: skip
@click.pass_context
def import_results(ctx: click.Context, ref: str, files: tuple[str, ...], **_: Any) -> int:
    """Import the results of requests that export --batch-requests wrote, and write the output. No request is sent.

    Each FILE has lines of OpenAI's results (custom_id, response, error) or of Anthropic's, in any order and in parts. They
    are validated and post-processed like live replies, and charged at batch prices. Lines that were imported before are
    ignored; if a row has two answers, the first is used; lines of other runs are ignored and counted.

    Exit codes: 0 every row done, 3 some failed, 7 some rows have no result yet.
    """
    from batchrun.report import headless  # noqa: PLC0415  the engine: not for --help

    def prepare_log(gathered: "Gathered") -> None:
        prepare(ctx, gathered)

    flags = {name: given for name, given in typed(ctx).items() if name not in ("ref", "files")}
    return headless.import_results(ref, flags, files, prepare_log)
