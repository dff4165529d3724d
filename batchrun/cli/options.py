"""The options of `run` and `resume`, from the table in `plan.options`. Values stay text: `plan` checks them."""

from collections.abc import Callable

import click
from click.shell_completion import CompletionItem

from batchrun.cli import complete
from batchrun.cli.help_format import PATTERN, RunArgument, SectionOption
from batchrun.errors import RefusedError
from batchrun.plan.options import OPTIONS, Option

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def value(  # noqa: PLR0913  what a line of help has, by place
    section: str, names: str, metavar: str, text: str, *, many: bool = False, completer: Completer | None = None
) -> SectionOption:
    """`names` are its spellings and, last, the setting's name."""
    return SectionOption(
        names.split(), section=section, metavar=metavar, help=text, multiple=many, shell_complete=completer
    )


def flag(section: str, names: str, text: str) -> SectionOption:
    return SectionOption(names.split(), section=section, is_flag=True, help=text)


_COMPLETERS: dict[str, Completer] = {
    **dict.fromkeys(("input", "output", "ca_file", "post", "metrics_file", "log_file", "runs_dir"), complete.files),
    "prompt": complete.prompts,
    "set": complete.variables,
    "columns": complete.columns,
    "id_column": complete.columns,
    "model": complete.models,
    "profile": complete.profiles,
    "reuse": complete.runs,
}


def _only(_ctx: click.Context, _param: click.Parameter, names: tuple[str, ...]) -> str | None:
    if len(names) > 1:
        hint = f"several files are one input as a directory or a pattern in quotes, such as --input {PATTERN}"
        raise RefusedError(f"--input is given more than once: {', '.join(names)}", hint)
    return names[0] if names else None


def _made(option: Option) -> SectionOption:
    names = " ".join((*option.spellings, option.name))
    if not option.metavar:
        return flag(option.section, names, option.help)
    chosen = complete.one_of(*option.choices) if option.choices else _COMPLETERS.get(option.name)
    made = value(option.section, names, option.metavar, option.help, many=option.many, completer=chosen)
    if option.name == "input":
        made.multiple, made.callback = True, _only  # the last one would count, and the others be left out
    return made


RUN: tuple[SectionOption, ...] = tuple(map(_made, OPTIONS))

_NOT_RESUMED = {
    *("input", "prompt", "set", "columns", "id_column", "sheet", "encoding", "path", "blank", "skip_invalid", "output"),
    *(
        "format",
        "output_column",
        "lane_column",
        "update",
        "fresh",
        "model",
        "endpoint",
        "params",
        "dry_run",
        "existing",
    ),
    *("target_language", "split", "detail"),
}
RESUME = tuple(option for option in RUN if option.name not in _NOT_RESUMED)


RUNS_DIR = value(
    "Options",
    "--runs-dir runs_dir",
    "DIR",
    "The directory of journals [default: .batchrun here].",
    completer=complete.files,
)


def run_argument(*, required: bool = False) -> RunArgument:
    # For click 8.3 and later a default of None is a value, also where one is required.
    default = {} if required else {"default": "last"}
    metavar = "RUN" if required else "[RUN]"
    return RunArgument(["ref"], metavar=metavar, required=required, shell_complete=complete.runs, **default)


def action_argument(*actions: str, metavar: str = "[ACTION]") -> click.Argument:
    """Raises RefusedError when an unknown one is parsed."""

    def known(ctx: click.Context, param: click.Parameter, action: str | None) -> str | None:
        if action is not None and action not in actions:
            from batchrun.plan.names import unknown  # noqa: PLC0415  only on the way to an error

            raise unknown("action", action, actions)
        return action

    return click.Argument(
        ["action"], metavar=metavar, required=False, shell_complete=complete.one_of(*actions), callback=known
    )


def configured_runs_dir() -> str | None:
    from batchrun.plan.config import runs_directory  # noqa: PLC0415  not for --help

    return runs_directory()
