"""From what the user said to one frozen plan, resolved once; after that nobody reads the environment.

    settings.gather      flags, BATCHRUN_* variables, batchrun.toml, profile  →  Gathered (Settings, Profile, sources)
    keys.find_key        the API key: environment, file or command            →  Key, which never shows itself
    resolve.resolve      Gathered + the facts of input and prompt              →  Plan, kept in the journal
    resolve.override     a journaled Plan + the flags of `resume`              →  Plan

This door loads nothing beyond the standard library; `plan.settings` and `plan.resolve`, which need pydantic, are
imported by their own names.
"""

from batchrun.plan.durations import parse_duration
from batchrun.plan.record import Plan, drift, drift_text, plan_from_json, plan_to_json

__all__ = ["Plan", "drift", "drift_text", "parse_duration", "plan_from_json", "plan_to_json"]
