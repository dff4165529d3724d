"""The input that settings name, opened; and what its rows must have to do with the prompt."""

from pathlib import Path

from batchrun import documents, media, rows
from batchrun.errors import InputError, PromptError
from batchrun.plan.settings import Settings
from batchrun.prompts import Prompt
from batchrun.rows import Input, Reading, Refusal

_WHOLE = frozenset({"json"})
"""Document formats that may as well be rows."""


def open_rows(
    settings: Settings, source: str, *, has_prompt: bool, takes_files: bool = False, spool: Path | None = None
) -> Input:
    """The input `source`, read as the settings say. Of a prompt that `takes_files`, several files are rows without a text.

    Raises InputError, also for files whose lines are no rows.
    """
    takes = media.is_known if takes_files else None
    whole = settings.reduce is not None
    reading = Reading(settings.encoding, settings.sheet, settings.path, settings.yes, _structured, whole, takes)
    return rows.open_input(source, id_column=settings.id_column, has_prompt=has_prompt, spool=spool, reading=reading)


def _structured(name: str, head: bytes) -> Refusal | None:
    """Why the lines of a file are no rows: it is a document, of a format that is known or not."""
    if (refused := documents.refusal(name, head)) is not None:
        return Refusal(*refused)
    format = documents.detect(name, head)
    return None if format is None or format in _WHOLE else Refusal(f"a document ({format})", "")


def check_rows_used(settings: Settings, source: Input, prompt: Prompt) -> None:
    """Refuses a prompt that says the same for every one of several rows, unless the user wants just that.

    Raises InputError for a prompt whose text is in the list of rows that the input wraps.
    """
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
        return  # a column that is missing, which is said elsewhere
    if settings.yes or len(source.head(2)) < 2:
        return
    raise PromptError(
        f"the prompt `{prompt.name}` takes nothing from the rows: each would send, and pay for, the same request",
        "Write {{ text }} where the column `text` belongs; --yes sends it as it is.",
    )
