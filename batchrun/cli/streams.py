"""The three standard streams, which a daemon or `>&-` may have closed."""

import os
import sys

_MODES = {"stdin": ("r", os.O_RDONLY), "stdout": ("w", os.O_RDONLY), "stderr": ("w", os.O_WRONLY)}
"""How each is opened, and what stands in its place: standard output is one that refuses to be written."""


def fill() -> None:
    """Put something in the place of streams that are closed, so that no file which is opened takes their number.

    What is said on standard error goes nowhere then; data for standard output is an error, as it must not be lost.
    """
    for number, (name, (mode, flags)) in enumerate(_MODES.items()):
        if getattr(sys, name) is not None:
            continue
        if os.open(os.devnull, flags) == number:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  for the whole process
