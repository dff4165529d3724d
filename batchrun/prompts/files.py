"""Finds prompts in `./prompts`, the user's directory, and those that come with batchrun."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import platformdirs

from batchrun.errors import PromptError
from batchrun.prompts.definition import Prompt, did_you_mean
from batchrun.prompts.parse import MAX_SOURCE, SUFFIXES, parse, stem_of

INLINE = "prompt"
"""The name of a prompt written on the command line."""

_PACKAGE = Path(__file__).resolve().parent.parent


class Listing(NamedTuple):
    """A prompt in a list; `error` is set if it cannot be used."""

    name: str
    description: str
    variables: tuple[str, ...]
    path: Path
    error: str | None


def default_places() -> tuple[Path, ...]:
    """The directories that are searched, in order."""
    installed = _PACKAGE / "_prompts"
    shipped = installed if installed.is_dir() else _PACKAGE.parent / "prompts"
    return Path("prompts"), Path(platformdirs.user_config_dir("batchrun")) / "prompts", shipped


def load(name: str, *, places: Sequence[Path] | None = None) -> Prompt:
    """The prompt of this name, path or text. Raises PromptError with the nearest name."""
    if "{{" in name:
        return parse(name, path=INLINE)
    path = _find(name, default_places() if places is None else places)
    return parse(_read(path), path=str(path))


def available(places: Sequence[Path] | None = None) -> list[Listing]:
    """Every prompt that a bare name finds, by name, broken ones included."""
    found: dict[str, Path] = {}
    for path in _files(default_places() if places is None else places):
        found.setdefault(stem_of(path.name), path)
    return [_listing(name, path) for name, path in sorted(found.items())]


def _listing(name: str, path: Path) -> Listing:
    try:
        prompt = parse(_read(path), path=str(path))
    except PromptError as error:
        return Listing(name, "", (), path, error.message)
    return Listing(name, prompt.description, tuple(sorted(prompt.variables)), path, None)


def _find(name: str, places: Sequence[Path]) -> Path:
    given = Path(name)
    if len(given.parts) > 1 or (given.suffix and given.is_file()):
        return given
    files = list(_files(places))
    for path in files:
        if name in {stem_of(path.name), path.name}:
            return path
    if given.is_file():
        return given
    names = sorted({stem_of(path.name) for path in files})
    known = f"Known prompts: {', '.join(names)}. " if names else ""
    raise PromptError(
        f"there is no prompt `{name}`{did_you_mean(name, names)}",
        f"{known}For your own file, use its path; a text with `{{{{ variables }}}}` is itself a prompt.",
    )


def _files(places: Sequence[Path]) -> Iterator[Path]:
    for place in places:
        try:
            entries = sorted(place.iterdir())
        except OSError:
            continue
        for suffix in SUFFIXES:
            for path in entries:
                if path.name.lower().endswith(suffix) and not path.name.startswith(".") and path.is_file():
                    yield path


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(4 * MAX_SOURCE + 1)
    except FileNotFoundError:
        raise PromptError(f"there is no prompt file {path}", "See `batchrun prompts` for the names.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise PromptError(f"the prompt file {path} cannot be read: {reason}") from None
    if len(data) > 4 * MAX_SOURCE:
        raise PromptError(f"{path}: too large for a prompt")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptError(f"{path}: not UTF-8 (byte {error.start + 1})", "Save the file as UTF-8.") from None
