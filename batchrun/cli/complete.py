"""Shell completion of runs, prompts, profiles and columns. Nothing here raises; the worst case is no completion."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path

import click
from click.shell_completion import CompletionItem

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
    from batchrun.plan.catalogue import every_profile  # noqa: PLC0415  loaded only to complete

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
    """The variables of the chosen prompt for `--set`; nothing after `NAME=`."""
    from batchrun.errors import BatchrunError  # noqa: PLC0415  loaded only to complete
    from batchrun.prompts import load  # noqa: PLC0415  loaded only to complete

    with suppress(BatchrunError, OSError):
        if "=" not in incomplete:
            return _starting((f"{name}=" for name in load(str(ctx.params.get("prompt"))).variables), incomplete)
    return []


def models(ctx: click.Context, param: click.Parameter, incomplete: str) -> Completion:
    from batchrun.errors import BatchrunError  # noqa: PLC0415  loaded only to complete
    from batchrun.plan.catalogue import every_profile  # noqa: PLC0415  loaded only to complete

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
    """The columns of the input's first record; for `--column` after `NAME=`."""
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
