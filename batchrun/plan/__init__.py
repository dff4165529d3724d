"""Resolves what the user chose into one frozen plan; after that the environment is not read.

    sources.gather       flags, BATCHRUN_* variables, batchrun.toml, profile  →  Gathered
    keys.find_key        environment, file or command                         →  Key
    resolve.resolve      Gathered, facts of the input, prompt                 →  Plan, journaled
    resolve.override     a journaled Plan, flags of `resume`                  →  Plan

Imports only the standard library: `--help` reads `plan.options`.
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
