"""`prompts`, `profiles`, `completion`."""

from typing import TYPE_CHECKING, Any

import click

from batchrun.cli import complete
from batchrun.cli.help_format import HelpCommand, HelpGroup
from batchrun.cli.options import flag
from batchrun.errors import ExitCode

if TYPE_CHECKING:
    from batchrun.plan.profiles import Profile

_JSON = flag("Options", "--json json", "Print one JSON object per line.")


@click.group(
    "prompts",
    cls=HelpGroup,
    invoke_without_command=True,
    params=[_JSON],
    short_help="List the installed prompts, or show one.",
    examples=("batchrun prompts", "batchrun prompts show translate"),
)
@click.pass_context
def prompts(ctx: click.Context, json: bool) -> int:
    """List the installed prompts, or show one."""
    if ctx.invoked_subcommand is None:
        from batchrun.prompts import available, default_places  # noqa: PLC0415  only for this command

        found = available(default_places())
        if json:
            _lines([listing._asdict() | {"path": str(listing.path)} for listing in found])
        else:
            _table(
                [
                    {
                        "name": listing.name,
                        "variables": ", ".join(listing.variables),
                        "description": f"cannot be used: {listing.error}" if listing.error else listing.description,
                    }
                    for listing in found
                ]
            )
    return ExitCode.OK


@prompts.command(
    "show",
    cls=HelpCommand,
    params=[click.Argument(["name"], shell_complete=complete.prompts)],
    examples=("batchrun prompts show translate > mine.prompty",),
)
def prompts_show(name: str) -> int:
    """Print the file of a prompt."""
    from batchrun.prompts import load  # noqa: PLC0415  only for this command

    click.echo(load(name).source.encode(), nl=False)
    return ExitCode.OK


@click.group(
    "profiles",
    cls=HelpGroup,
    invoke_without_command=True,
    params=[_JSON],
    short_help="List the providers, or show one.",
    examples=("batchrun profiles", "batchrun profiles show azure"),
)
@click.pass_context
def profiles(ctx: click.Context, json: bool) -> int:
    """List the profiles for --profile, or show one."""
    if ctx.invoked_subcommand is None:
        from batchrun.plan.catalogue import every_profile  # noqa: PLC0415  only for this command

        found = [_summary(profile) for profile in every_profile()]
        if json:
            _lines(found)
        else:
            _table([_in_words(**facts) for facts in found])
    return ExitCode.OK


@profiles.command(
    "show",
    cls=HelpCommand,
    params=[click.Argument(["name"], shell_complete=complete.profiles), _JSON],
    examples=("batchrun profiles show openai",),
)
def profiles_show(name: str, json: bool) -> int:
    """Print one profile: address, where its key comes from, defaults. The key is never printed."""
    from batchrun.plan.catalogue import one_profile  # noqa: PLC0415  only for this command
    from batchrun.plan.profiles import PRICES  # noqa: PLC0415  likewise

    profile = one_profile(name)
    facts: dict[str, Any] = {**_summary(profile), **profile.defaults, "params": dict(profile.params)}
    facts |= {name: getattr(profile, name) for name in (*PRICES, "tier_factors")}
    if json:
        _lines([facts])
    else:
        shown = facts | _in_words(**_summary(profile))
        _table([{"entry": name, "value": fact} for name, fact in shown.items() if fact not in (None, {}, "")])
    return ExitCode.OK


def _summary(profile: "Profile") -> dict[str, Any]:
    key = profile.api_key_file or " ".join(profile.api_key_command[:1]) or profile.api_key_env
    return {"name": profile.name, "base_url": profile.base_url, "key": key, "model": profile.model}


def _in_words(name: str, base_url: str | None, key: str | None, model: str | None) -> dict[str, str]:
    """A profile's summary for people; an empty address is the simulator's, which the run starts."""
    address = "started by the run" if base_url == "" else base_url or "(set it)"
    return {"name": name, "base_url": address, "key": key or "none", "model": model or ""}


@click.command(
    "completion",
    cls=HelpCommand,
    short_help="Print the completion script of a shell.",
    params=[click.Argument(["shell"], type=click.Choice(["bash", "zsh", "fish", "powershell"]))],
    examples=(
        "batchrun completion bash > ~/.local/share/bash-completion/completions/batchrun",
        "batchrun completion zsh > ~/.zfunc/_batchrun",
        "batchrun completion fish > ~/.config/fish/completions/batchrun.fish",
        "batchrun completion powershell | Out-String | Invoke-Expression",
    ),
)
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print the script that completes commands, options, runs, prompts, profiles and columns."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415  only for this command

    from batchrun.cli import powershell  # noqa: PLC0415  likewise

    powershell.register()
    script = get_completion_class(shell)
    if script is not None:
        click.echo(script(ctx.find_root().command, {}, "batchrun", "_BATCHRUN_COMPLETE").source())
    return ExitCode.OK


def _table(rows: list[dict[str, Any]]) -> None:
    from batchrun.display import printable  # noqa: PLC0415  only where names are shown

    cells = [[printable(str(cell), 120) for cell in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _lines(rows: list[dict[str, Any]]) -> None:
    import json  # noqa: PLC0415  only for --json

    for row in rows:
        click.echo(json.dumps(row))
