"""From what the user said to one frozen plan, resolved once; after that the environment is not read any more.

    settings.gather      flags, BATCHRUN_* variables, batchrun.toml, profile  →  Gathered (Settings, Profile, sources)
    keys.find_key        the API key: environment, file or command            →  Key, which never shows itself
    resolve.resolve      Gathered + the facts of input and prompt              →  Plan, kept in the journal
    resolve.override     a journaled Plan + the flags of `resume`              →  Plan

This door loads nothing beyond the standard library; `plan.settings` and `plan.resolve`, which need pydantic, are
imported by their own names. The record is loaded where it is first asked for: `--help` reads `plan.options` alone.
"""

from typing import TYPE_CHECKING, Any

from batchrun.plan.durations import parse_duration

if TYPE_CHECKING:
    from batchrun.plan.record import Plan, drift, drift_text, plan_from_json, plan_to_json

__all__ = ["Plan", "drift", "drift_text", "parse_duration", "plan_from_json", "plan_to_json"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(name)
    from batchrun.plan import record  # noqa: PLC0415  not for --help

    return getattr(record, name)
