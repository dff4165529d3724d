"""Where the time of a row goes: a run under a sampling of its own stack. (To come.)"""

from measure import Bench


def run(bench: Bench) -> None:
    """Nothing yet."""
