"""The libraries of the extras, imported when used, and their values as JSON.

Dates and times are ISO 8601, durations seconds, bytes UTF-8 or base64, NaN and missing values of pandas null.
"""

import base64
import datetime
import importlib
import json
import math
import zipfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from batchrun.errors import InputError, RefusedError
from batchrun.models import Invalid
from batchrun.rows.check import Record, encodable, encode, invalid
from batchrun.rows.source import translated

_AS_IT_IS = frozenset({str, int, bool, type(None)})
_MISSING = frozenset({"NAType", "NaTType"})  # of pandas, beside NaN
_FOREIGN = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    SyntaxError,  # the base of ParseError of xml.etree, whose import takes 2 ms
)
_MODULES = {
    "parquet": ("pyarrow.parquet", "Parquet files", "data"),
    "arrow": ("pyarrow", "Arrow files", "data"),
    "ipc": ("pyarrow.ipc", "Arrow files", "data"),
    "excel": ("openpyxl", "Excel workbooks", "data"),
    "pdf": ("pypdf", "PDF files", "documents"),
}


def library(format: str) -> Any:
    """Raises RefusedError with the install command."""
    module, what, extra = _MODULES[format]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise RefusedError(
            f'{what} need {package} (the extra "{extra}"), which is not installed.',
            f"pip install {package}; with uv tool, install batchrun again with --with {package}",
        ) from error


def plain(value: object, encoded: Callable[[], None] | None = None) -> Any:
    """`encoded` is called for a value as base64."""
    if type(value) in _AS_IT_IS:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): plain(inner, encoded) for name, inner in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [plain(inner, encoded) for inner in cast("Sequence[object]", value)]
    if (listed := getattr(value, "tolist", None)) is not None:  # numbers and arrays of numpy
        return plain(listed(), encoded)
    return None if type(value).__name__ in _MISSING else _scalar(value, encoded)


def _scalar(value: object, encoded: Callable[[], None] | None) -> str | float:
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        if encoded is not None:
            encoded()
        return base64.b64encode(value).decode()


def record(number: int, values: Mapping[str, object], encoded: Callable[[], None] | None = None) -> Record | Invalid:
    """Invalid if JSON cannot hold a value."""
    try:
        fields = {name: plain(value, encoded) for name, value in values.items()}
        text = encode(fields)
    except (ValueError, RecursionError):
        return invalid(number, repr(dict(values)), "a value that JSON cannot hold")
    if encodable(text):
        return number, text, fields
    return invalid(number, json.dumps(fields), "a lone surrogate cannot be stored")


@contextmanager
def explained(name: str, what: str) -> Generator[None]:
    """Translates errors on a damaged file to InputError."""
    with translated(name):
        try:
            yield
        except _FOREIGN as error:
            raise InputError(f"{name} cannot be read as {what}: {error}.") from error
