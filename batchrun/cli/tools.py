"""`prompts`, `profiles`, `completion`, and `sim`, the simulated provider as a server."""

from typing import TYPE_CHECKING, Any

import click

from batchrun.cli import complete
from batchrun.cli.help_format import HelpCommand, HelpGroup, typed
from batchrun.cli.options import flag, value
from batchrun.errors import ExitCode, RefusedError

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
        from batchrun.plan.config import every_profile  # noqa: PLC0415  only for this command

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
    from batchrun.plan.config import one_profile  # noqa: PLC0415  only for this command
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


_LIMITS, _ANSWERS, _BATCHES, _SERVER = "Limits", "Answers", "Batches", "Server"
_TEXTS = frozenset({"cache", "dialect", "reply", "latency", "faults", "retry_after", "charge", "state"})

_OPTIONS = (
    value(
        _LIMITS,
        "--dialect dialect",
        "NAME",
        "The provider whose limits, headers and errors are imitated [default: openai].",
    ),
    value(_LIMITS, "--rpm rpm", "N", "Requests per minute [default: the dialect's; openai: no limit]."),
    value(_LIMITS, "--tpm tpm", "N", "Tokens per minute [default: as --rpm]."),
    value(_LIMITS, "--rpd rpd", "N", "Requests per day, if the dialect has such a limit."),
    value(_LIMITS, "--concurrency concurrency", "N", "Requests served at once [default: no limit]."),
    flag(_LIMITS, "--queue queue", "Let requests over --concurrency wait instead of refusing them."),
    value(_LIMITS, "--request-depth request_depth", "N", "Depth of the bucket of requests."),
    value(_LIMITS, "--token-depth token_depth", "N", "Depth of the bucket of tokens."),
    value(_LIMITS, "--charge charge", "usage|stated", "What a request takes from a token limit."),
    flag(_LIMITS, "--no-headers no_headers", "Send no headers about limits."),
    value(_LIMITS, "--retry-after retry_after", "HOW", "How a refusal states its wait; =VALUE: this header value."),
    value(_ANSWERS, "--latency latency", "TIME", "Seconds: 0.5, 0.3-0.8, lognormal:0.5:0.4, +0.02/token."),
    value(_ANSWERS, "--fault faults", "NAME=WHEN", "503=0.1, reset=first, hang=text:WORD, 500=10-20.", many=True),
    value(_ANSWERS, "--reply reply", "MODE", "The text of replies: auto, echo, translate, summarize or broken."),
    value(_ANSWERS, "--reply-tokens reply_tokens", "N", "Longest reply if a request states no limit."),
    value(_ANSWERS, "--reasoning reasoning", "N", "Reasoning tokens per reply."),
    value(_ANSWERS, "--cached cached", "SHARE", "Share of the input tokens that count as cached."),
    value(_ANSWERS, "--cache cache", "MODE", "Cache of prompt prefixes: none, automatic, explicit or implicit."),
    value(
        _ANSWERS, "--cache-minimum cache_minimum", "N", "Smallest number of tokens of a cached prefix [default: 1024]."
    ),
    value(_ANSWERS, "--drip drip", "SECONDS", "Time between the pieces of a slow body."),
    value(_ANSWERS, "--seed seed", "N", "Seed of the random numbers."),
    value(_BATCHES, "--time-scale time_scale", "N", "Divide all times of batches by N."),
    value(_BATCHES, "--batch-validation batch_validation", "SECONDS", "Time to validate a batch [default: 2]."),
    value(_BATCHES, "--batch-seconds batch_seconds", "SECONDS", "Time to process its rows [default: 10]."),
    value(_BATCHES, "--batch-expire batch_expire", "SHARE", "Share of its rows after which a batch expires."),
    value(_BATCHES, "--enqueued-tokens enqueued_tokens", "N", "Most tokens in open batches."),
    value(_BATCHES, "--state state", "DIR", "Keep files and batches in this directory, also after a restart."),
    value(_SERVER, "--port port", "N", "The port on loopback [default: a free one]."),
    flag(_SERVER, "--require-key require_key", "Refuse requests without a key."),
    flag(_SERVER, "--record record", "Keep a log of every call."),
    flag(_SERVER, "--json json", "Print a JSON object when ready."),
)


@click.command(
    "sim",
    cls=HelpCommand,
    params=list(_OPTIONS),
    short_help="Start the simulated provider as a server.",
    examples=(
        "batchrun sim --port 8080 --rpm 600 --latency 0.5",
        "batchrun sim --dialect groq --rpm 300",
        "batchrun sim --fault 503=0.1 --fault reset=first",
        "batchrun -i rows.csv -p summarize -m any --base-url http://127.0.0.1:8080/v1",
    ),
)
@click.pass_context
def sim(ctx: click.Context, **_: Any) -> int:
    """Start the simulated provider as a server on loopback, until Ctrl-C.

    It answers as OpenAI does, with limits, headers and errors. Each reply says that it is simulated. --profile sim starts
    its own server.
    """
    from batchrun import sim as simulator  # noqa: PLC0415  only for this command

    options = typed(ctx)
    as_json = bool(options.pop("json", False))
    if options.pop("no_headers", False):
        options["headers"] = False
    settings = simulator.from_json({name: _parsed(name, given) for name, given in options.items()})
    simulator.run(settings, as_json=as_json)
    return ExitCode.OK


def _parsed(name: str, given: Any) -> Any:
    if name in _TEXTS or not isinstance(given, str):
        return given
    import json  # noqa: PLC0415  only for this command

    try:
        return json.loads(given)
    except ValueError as error:
        raise RefusedError(f"--{name.replace('_', '-')} must be a number, not {given}") from error
