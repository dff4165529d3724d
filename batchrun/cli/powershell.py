"""Completion for PowerShell, which click lacks."""

import os
from typing import ClassVar

from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, split_arg_string

NAME = "powershell"
_SCRIPT = """Register-ArgumentCompleter -Native -CommandName %(prog_name)s -ScriptBlock {
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


class PowerShell(ShellComplete):
    """Gets the line up to the cursor and the current word, as in fish."""

    name: ClassVar[str] = NAME
    source_template: ClassVar[str] = _SCRIPT

    def get_completion_args(self) -> tuple[list[str], str]:
        incomplete = os.environ["COMP_CWORD"]
        args = split_arg_string(os.environ["COMP_WORDS"])[1:]
        if incomplete and args and args[-1] == incomplete:
            args.pop()
        return args, incomplete

    def format_completion(self, item: CompletionItem) -> str:
        """`file` or `plain`, a comma, and the value."""
        return f"{item.type},{item.value}"


def register() -> None:
    add_completion_class(PowerShell)
