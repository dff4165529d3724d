"""Finds and checks the API key."""

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from batchrun.errors import RefusedError
from batchrun.plan.profiles import DEFAULT, Profile

_LONGEST = 16_384
_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Key:
    value: str = field(repr=False)
    source: str


def find_key(profile: Profile, *, needed: bool) -> Key | None:
    """Raises RefusedError, which never contains part of the key."""
    key = _from_file(profile) or _from_command(profile)
    name = profile.api_key_env
    if key is None and name and os.environ.get(name, "").strip():
        key = _checked(os.environ[name], f"${name}")
    if key is None and needed:
        raise _missing(profile)
    return key


def _from_file(profile: Profile) -> Key | None:
    if profile.api_key_file is None:
        return None
    path = Path(profile.api_key_file).expanduser()
    try:
        with path.open("rb") as stream:
            text = stream.read(_LONGEST + 1)
    except OSError as error:
        raise RefusedError(f"cannot read the key file {path}: {error.strerror or error}") from error
    return _checked(text.decode(errors="replace"), f"the key file {path}")


def _from_command(profile: Profile) -> Key | None:
    if not profile.api_key_command:
        return None
    name = profile.api_key_command[0]
    try:
        done = subprocess.run(  # noqa: S603  the user's own command, from the user's own file, without a shell
            profile.api_key_command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=_SECONDS, check=True
        )
    except subprocess.TimeoutExpired as error:
        raise RefusedError(f"the key command {name} printed no key within {_SECONDS} s") from error
    except subprocess.CalledProcessError as error:
        raise RefusedError(f"the key command {name} failed with exit code {error.returncode}") from error
    except OSError as error:
        raise RefusedError(f"cannot run the key command {name}: {error.strerror or error}") from error
    return _checked(done.stdout.decode(errors="replace"), f"the output of {name}")


def _checked(text: str, source: str) -> Key:
    value = text.strip()
    if not value:
        raise RefusedError(f"{source} is empty", "it must contain the API key and nothing else")
    if len(value) > _LONGEST:
        raise RefusedError(f"{source} is too long to be an API key")
    if len(value.split()) > 1:
        raise RefusedError(f"the key in {source} has a blank or a line break inside", "it must be one word")
    if not (value.isascii() and value.isprintable()):
        raise RefusedError(
            f"the key in {source} has characters that cannot be sent", "copy it again: printable ASCII only"
        )
    if value[0] in "\"'" or value[-1] in "\"'":
        raise RefusedError(f"the key in {source} has quotes around it", "remove them")
    return Key(value, source)


def _missing(profile: Profile) -> RefusedError:
    name = profile.api_key_env
    if name is None:
        return RefusedError(f"profile {profile.name} has no API key", f"add api_key_env to [profiles.{profile.name}]")
    other = " or choose another --profile" if profile.name == DEFAULT else ""
    return RefusedError(
        f"no API key: {name} is not set (profile {profile.name})",
        f"set {name}{other}, or try it without a key and without cost: --profile sim",
    )
