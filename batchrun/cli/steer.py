"""`steer`: control a run that another process sends."""

from typing import Any

import click

from batchrun.cli import complete
from batchrun.cli.help_format import HelpCommand, typed
from batchrun.cli.options import configured_runs_dir, flag, value
from batchrun.errors import ExitCode, RefusedError

_ACTIONS = ("status", "pause", "resume", "stop", "stop-now")
_AUTO = "auto"


@click.command(
    "steer",
    cls=HelpCommand,
    short_help="Pause, resume or stop a run in another terminal, or change its limits.",
    params=[
        click.Argument(["ref"], metavar="RUN", shell_complete=complete.runs),
        click.Argument(["action"], metavar="[ACTION]", required=False, shell_complete=complete.one_of(*_ACTIONS)),
        value("Options", "--concurrency concurrency", "N", "At most N requests in flight from now on."),
        value("Options", "--rpm rpm", "N|auto", "At most N requests per minute from now on; auto: from the provider."),
        value("Options", "--tpm tpm", "N|auto", "At most N tokens per minute from now on; auto: from the provider."),
        flag("Options", "--json json", "Print the status as a JSON object."),
        value("Options", "--runs-dir runs_dir", "DIR", "The directory of journals [default: .batchrun here].", completer=complete.files),
    ],
    examples=(
        "batchrun steer last                      prints the status",
        "batchrun steer last pause",
        "batchrun steer last resume --concurrency 8",
        "batchrun steer reviews.translate.jsonl --rpm 500 --tpm auto",
        "batchrun steer last stop                 as Ctrl-C there; stop-now: as a second Ctrl-C",
    ),
)  # fmt: skip
@click.pass_context
def steer(ctx: click.Context, ref: str, action: str | None, json: bool, runs_dir: str | None, **_: Any) -> int:
    """Pause, resume or stop a run in another terminal, or change its limits. Without ACTION, print its status.

    ACTION is status, pause, resume, stop (send nothing new and wait for requests in flight) or stop-now (do not wait,
    write no output). RUN is a run id, a unique beginning of one, an output file, or last. Only the user who started the
    run can steer it.
    """
    from batchrun import registry, steering  # noqa: PLC0415  only for this command
    from batchrun.report import pages  # noqa: PLC0415  only for this command

    if action is not None and action not in _ACTIONS:
        from batchrun.plan.names import unknown  # noqa: PLC0415  only on the way to an error

        raise unknown("action", action, _ACTIONS)
    limits = {name: _limit(name, text) for name, text in typed(ctx).items() if name in steering.LIMITS}
    journal = registry.find(ref, runs_dir or configured_runs_dir()).path
    requests: list[dict[str, Any]] = [{"command": "limits", **limits}] if limits else []
    if action is not None or not requests:
        requests.append({"command": action or "status"})
    for request in requests:
        status = steering.send(journal, request)
    pages.show_status(status, as_json=json)  # pyright: ignore[reportPossiblyUnboundVariable]  there is a request
    return ExitCode.OK


def _limit(name: str, text: str) -> float | None:
    if text == _AUTO and name != "concurrency":
        return None
    try:
        return int(text) if name == "concurrency" else float(text)
    except ValueError:
        raise RefusedError(f"--{name} must be a number, not {text!r}", "batchrun steer --help") from None
