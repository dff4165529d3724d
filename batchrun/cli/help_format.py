"""The form of help: examples first, options in sections, the nearest name for an unknown one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from batchrun.errors import ExitCode, RefusedError

HELP_NAMES: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
_FIRST = frozenset({"-h", "--help", "--version"})
_EXIT_CODES = (
    (ExitCode.OK, "every row is done"),
    (ExitCode.UNEXPECTED, "internal error: a bug in batchrun"),
    (ExitCode.REFUSED, "refused before any request: usage, configuration, input, host"),
    (ExitCode.ROWS_FAILED, "some rows failed"),
    (ExitCode.STOPPED, "fatal provider error: key, quota, model, all rows failing, provider down"),
    (ExitCode.STORAGE, "disk or output error"),
    (ExitCode.BUDGET, "budget used up"),
    (ExitCode.WAITING, "waiting for batches; resume collects them"),
    (ExitCode.BUSY, "run locked by another process"),
    (ExitCode.HANGUP, "stopped by SIGHUP"),
    (ExitCode.INTERRUPTED, "stopped by Ctrl-C"),
    (ExitCode.BROKEN_PIPE, "the reader of standard output closed it"),
    (ExitCode.TERMINATED, "stopped by SIGTERM"),
)


PATTERN = "'data/*.jsonl'"


class SectionOption(click.Option):
    def __init__(self, *names: Any, section: str = "Options", **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.section = section

    def consume_value(self, ctx: click.Context, opts: Any) -> Any:
        """Refuses another option in place of the value: `--model --profile sim`."""
        value, source = super().consume_value(ctx, opts)
        known = {name for param in ctx.command.params for name in param.opts}
        for text in value if isinstance(value, list | tuple) else [value]:  # pyright: ignore[reportUnknownVariableType]  click's own value
            if not self.is_flag and text in known:
                raise RefusedError(
                    f"{self.opts[-1]} needs a value, not {text}", "options and values must be given in pairs"
                )
        return value, source


class RunArgument(click.Argument):
    """The help of its command says what it can be."""

    text = "RUN is a run id, a unique beginning of one, an output file, or last."


class HelpCommand(click.Command):
    def __init__(self, *args: Any, examples: Sequence[str] = (), **settings: Any) -> None:
        super().__init__(*args, context_settings={**HELP_NAMES, **settings.pop("context_settings", {})}, **settings)
        self.examples = examples

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help_text(ctx, formatter)
        if any(isinstance(param, RunArgument) for param in self.get_params(ctx)):
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write_text(RunArgument.text)
        write_examples(self.examples, formatter)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None  # usage has the arguments
            if record:
                sections.setdefault(getattr(param, "section", "Options"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records, col_max=34)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise no_such_option(error, self.get_params(ctx)) from error
        except click.UsageError as error:
            if "extra argument" in error.message and any("--input" in param.opts for param in self.get_params(ctx)):
                # The shell made several names of a pattern.
                hint = f"name the input by --input: a file, a directory, or a pattern in quotes, such as {PATTERN}"
                raise RefusedError(f"{error.message[:1].lower()}{error.message[1:].rstrip('.')}", hint) from error
            raise


class HelpGroup(HelpCommand, click.Group):
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        HelpCommand.format_options(self, ctx, formatter)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            raise no_such_command(args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)


class RootGroup(HelpGroup):
    """Options without a command belong to `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in _FIRST:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-"):
            run = self.commands["run"]
            found += run.shell_complete(click.Context(run, ctx, "run", resilient_parsing=True), incomplete)
        return list({item.value: item for item in found}.values())

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), meaning) for code, meaning in _EXIT_CODES])
        super().format_epilog(ctx, formatter)


def write_examples(examples: Sequence[str], formatter: click.HelpFormatter) -> None:
    if examples:
        with formatter.section("Examples"):
            for line in examples:
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def no_such_option(error: click.NoSuchOption, params: Sequence[click.Parameter]) -> RefusedError:
    from batchrun.plan.names import nearest, unknown  # noqa: PLC0415  only on the way to an error

    name = error.option_name
    if name.strip("-").replace("_", "-") in ("api-key", "apikey", "key", "token", "secret"):
        return RefusedError(
            f"{name} does not exist: other users can see command lines, and the shell saves them",
            "set OPENAI_API_KEY or the variable the profile names, or api_key_file or api_key_command in batchrun.toml",
        )
    root = error.ctx.find_root().command if error.ctx else None
    run = root.commands.get("run") if isinstance(root, click.Group) else None
    of_run = {} if run is None else {spelling: param for param in run.params for spelling in param.opts}
    # What concerns the command alone, such as --json, changes nothing about a run.
    if error.ctx is not None and name in of_run and getattr(of_run[name], "section", "") != "This command":
        command, usage = error.ctx.command, error.ctx.command.collect_usage_pieces(error.ctx)
        what = of_run[name].name
        if any(isinstance(param, click.Argument) and param.name == what for param in command.params):
            hint = f"{error.ctx.command_path} {' '.join(usage)}"
            return RefusedError(f"{command.name} takes the {what} as an argument, without {name}", hint)
        return RefusedError(
            f"{name} is an option of run, not of {command.name}",
            "repeat the command that started the run, with this option",
        )
    known = [option for param in params for option in param.opts if option.startswith("--")]
    if nearest(name, known) is None:
        return RefusedError(f"unknown option: {name}", f"{error.ctx.command_path} --help" if error.ctx else None)
    return unknown("option", name, known)


def no_such_command(name: str, commands: Sequence[str]) -> RefusedError:
    from batchrun.plan.names import unknown  # noqa: PLC0415  only on the way to an error

    if Path(name).exists():
        return RefusedError(f"unknown command: {name}", f"to run over that file: batchrun --input {name}")
    return unknown("command", name, commands)


def typed(ctx: click.Context) -> dict[str, Any]:
    """The parameters on the command line by name, without defaults."""
    return {
        name: value
        for name, value in ctx.params.items()
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
