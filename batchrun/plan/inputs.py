"""Opens the input of the settings, and checks that the prompt uses its rows."""

from pathlib import Path

from batchrun import documents, media, rows
from batchrun.errors import InputError, PromptError
from batchrun.plan.settings import Settings
from batchrun.prompts import Prompt
from batchrun.rows import Input, Reading, Refusal

_WHOLE = frozenset({"json"})
"""Document formats whose content may also be rows."""


def open_rows(
    settings: Settings, source: str, *, has_prompt: bool, takes_files: bool = False, spool: Path | None = None
) -> Input:
    """The input `source`, whose files have no text if the prompt `takes_files`. Raises InputError."""
    takes = media.is_known if takes_files else None
    whole = settings.reduce is not None
    reading = Reading(settings.encoding, settings.sheet, settings.path, settings.yes, _structured, whole, takes)
    return rows.open_input(source, id_column=settings.id_column, has_prompt=has_prompt, spool=spool, reading=reading)


def _structured(name: str, head: bytes) -> Refusal | None:
    """Why a document is not read as lines."""
    if (refused := documents.refusal(name, head)) is not None:
        return Refusal(*refused)
    format = documents.detect(name, head)
    return None if format is None or format in _WHOLE else Refusal(f"a document ({format})", "")


def check_rows_used(settings: Settings, source: Input, prompt: Prompt) -> None:
    """Raises PromptError if the prompt uses no column, InputError if its columns are in a wrapped list."""
    taken = {settings.columns.get(name, name) for name in prompt.variables - settings.variables.keys()}
    roots = {column.partition(".")[0] for column in taken} | taken
    if source.wrapped is not None and not roots & set(source.columns):
        raise InputError(
            f"{source.name} is one object, and its columns are {', '.join(source.columns)}.",
            f"If its rows are the list {source.wrapped}: --path {source.wrapped}",
        )
    if prompt.variables and roots & set(source.columns):
        return
    if prompt.variables - settings.variables.keys() - prompt.defaults.keys() - prompt.optional:
        return  # a missing column is reported elsewhere
    if settings.yes or len(source.head(2)) < 2:
        return
    raise PromptError(
        f"the prompt `{prompt.name}` uses no column of the rows: every row would send, and pay for, the same request",
        "Write {{ text }} where the column `text` belongs; --yes sends it unchanged.",
    )
