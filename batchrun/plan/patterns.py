"""Formats of documents, and outputs with `{path}`."""

from pathlib import Path

PATH = "{path}"
MANY = "documents"
"""The input format of several documents."""
DOCUMENT = "document"
"""The output format of documents."""


def input_format(format: str) -> str:
    """The input format of one document in a plan: `po document`."""
    return f"{format} document"


def is_document(format: str) -> bool:
    """Whether an input format is that of documents, whose rows are segments."""
    return format == MANY or format.endswith(" document")


def is_pattern(output: str | Path) -> bool:
    """Whether the output is one file for each input file."""
    return PATH in str(output)


def place(output: str | Path) -> Path:
    """One name for the output: `de/documents` for the pattern `de/{path}`."""
    return Path(str(output).replace(PATH, MANY))


def file_for(output: str | Path, path: str) -> Path:
    """The output file for the document at `path`."""
    return Path(str(output).replace(PATH, path))


def target_language(chosen: str | None, variables: dict[str, str]) -> str | None:
    """The chosen code, else that of the prompt's variables."""
    from batchrun.documents import code_of  # noqa: PLC0415  its table of languages: not to look at runs

    if chosen is not None:
        return code_of(chosen) or chosen
    named = (variables[name] for name in ("target_language", "language", "lang", "locale") if name in variables)
    return next((code for name in named if (code := code_of(name)) is not None), None)
