"""Where a user's configuration, cache and state are: as XDG's variables say, else where the system has them."""

import os
from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_path, user_config_path, user_state_path


def configuration() -> Path | None:
    """None for a user without a home directory."""
    return _directory("XDG_CONFIG_HOME", user_config_path)


def cache() -> Path | None:
    """None for a user without a home directory."""
    return _directory("XDG_CACHE_HOME", user_cache_path)


def state() -> Path | None:
    """None for a user without a home directory."""
    return _directory("XDG_STATE_HOME", user_state_path)


def _directory(variable: str, usual: Callable[..., Path]) -> Path | None:
    stated = os.environ.get(variable, "")
    if Path(stated).is_absolute():
        return Path(stated) / "batchrun"
    try:
        found = usual("batchrun", appauthor=False)
    except RuntimeError:  # platformdirs 4.14 without a home directory
        return None
    return found if found.is_absolute() else None  # "~/.config/batchrun" of earlier ones
