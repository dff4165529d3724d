"""Shell completion. Nothing here raises."""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import ClassVar

import click
from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, split_arg_string

Completion = list[CompletionItem]
_RUNS = ".batchrun"
_HEAD = 65_536


def _starting(names: Iterable[str], incomplete: str, prefix: str = "") -> Completion:
    return [CompletionItem(prefix + name) for name in sorted(names) if (prefix + name).startswith(incomplete)]


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> Completion:
    return [CompletionItem(incomplete, type="file")]


def one_of(*names: str) -> Callable[[click.Context, click.Parameter, str], Completion]:
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> Completion:
        before, comma, _ = incomplete.rpartition(",")
        return _starting(names, incomplete, before + comma)

    return complete


def profiles(ctx: click.Context, param: click.Parameter, incomplete: str) -> Completion:
    from batchrun.errors import BatchrunError  # noqa: PLC0415  loaded only to complete
    from batchrun.plan.config import every_profile  # noqa: PLC0415  loaded only to complete

    with suppress(BatchrunError):
        return _starting((profile.name for profile in every_profile()), incomplete)
    return []


def prompts(ctx: click.Context, param: click.Parameter, incomplete: str) -> Completion:
    from batchrun.errors import BatchrunError  # noqa: PLC0415  loaded only to complete
    from batchrun.prompts import available, default_places  # noqa: PLC0415  loaded only to complete

    with suppress(BatchrunError, OSError):
        names = _starting((listing.name for listing in available(default_places())), incomplete)
        return names or files(ctx, param, incomplete)
    return []


def variables(ctx: click.Context, param: click.Parameter, incomplete: str) -> Completion:
    """Nothing after `NAME=`."""
    from batchrun.errors import BatchrunError  # noqa: PLC0415  loaded only to complete
    from batchrun.prompts import load  # noqa: PLC0415  loaded only to complete

    with suppress(BatchrunError, OSError):
        if "=" not in incomplete:
            return _starting((f"{name}=" for name in load(str(ctx.params.get("prompt"))).variables), incomplete)
    return []


def models(ctx: click.Context, param: click.Parameter, incomplete: str) -> Completion:
    from batchrun.errors import BatchrunError  # noqa: PLC0415  loaded only to complete
    from batchrun.plan.config import every_profile  # noqa: PLC0415  loaded only to complete

    with suppress(BatchrunError):
        chosen = ctx.params.get("profile")
        found = [profile for profile in every_profile() if chosen in (None, profile.name)]
        return _starting({profile.model for profile in found if profile.model}, incomplete)
    return []


def runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> Completion:
    with suppress(OSError):
        found = {path.stem for path in Path(_RUNS).glob("*.db") if path.stem != "registry"}
        return _starting({*found, "last"}, incomplete) or files(ctx, param, incomplete)
    return files(ctx, param, incomplete)


def causes(ctx: click.Context, param: click.Parameter, incomplete: str) -> Completion:
    from batchrun.errors import BatchrunError  # noqa: PLC0415  loaded only to complete

    with suppress(BatchrunError, OSError):
        from batchrun import registry  # noqa: PLC0415  loaded only to complete
        from batchrun.journal import Reader  # noqa: PLC0415  loaded only to complete

        with Reader.open(registry.find(str(ctx.params.get("ref") or "last"), None).path) as reader:
            return _starting(reader.failures(), incomplete)
    return []


def columns(ctx: click.Context, param: click.Parameter, incomplete: str) -> Completion:
    """Columns of the input's first record; for `--column` after `NAME=`."""
    import csv  # noqa: PLC0415  loaded only to complete

    name, equals, _ = incomplete.rpartition("=")
    if param.name == "columns" and not equals:
        return []
    with suppress(OSError, ValueError, csv.Error, RecursionError):
        return _starting(_columns_of(Path(str(ctx.params.get("input")))), incomplete, name + equals)
    return []


def _columns_of(path: Path) -> list[str]:
    import csv  # noqa: PLC0415  loaded only to complete
    import json  # noqa: PLC0415  loaded only to complete

    if not path.is_file():
        return []
    with path.open(encoding="utf-8-sig", newline="") as stream:
        head = stream.read(_HEAD)
    first = next(islice(filter(str.strip, head.split("\n")), 1), "")
    if first.lstrip().startswith("{"):
        return list(json.loads(first))
    if path.suffix.lower() in (".csv", ".tsv"):
        return next(csv.reader([first], delimiter="\t" if path.suffix.lower() == ".tsv" else ","))
    return []


_POWERSHELL_SCRIPT = """Register-ArgumentCompleter -Native -CommandName %(prog_name)s -ScriptBlock {
    param($word, $ast, $position)
    $line = $ast.ToString().PadRight($position - $ast.Extent.StartOffset).Substring(0, $position - $ast.Extent.StartOffset)
    $env:COMP_WORDS = $line
    $env:COMP_CWORD = $word
    $env:%(complete_var)s = "powershell_complete"
    try {
        %(prog_name)s | ForEach-Object {
            $type, $value = $_ -split ",", 2
            if ($type -eq "file") {
                [System.Management.Automation.CompletionCompleters]::CompleteFilename($value)
            } else {
                [System.Management.Automation.CompletionResult]::new($value, $value, "ParameterValue", $value)
            }
        }
    } finally {
        Remove-Item Env:COMP_WORDS, Env:COMP_CWORD, Env:%(complete_var)s
    }
}
"""


@add_completion_class
class PowerShell(ShellComplete):
    """Completion for PowerShell, which click lacks."""

    name: ClassVar[str] = "powershell"
    source_template: ClassVar[str] = _POWERSHELL_SCRIPT

    def get_completion_args(self) -> tuple[list[str], str]:
        incomplete = os.environ["COMP_CWORD"]
        args = split_arg_string(os.environ["COMP_WORDS"])[1:]
        if incomplete and args and args[-1] == incomplete:
            args.pop()
        return args, incomplete

    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.type},{item.value}"
