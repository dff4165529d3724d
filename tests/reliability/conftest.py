"""What every reliability test starts from."""

from pathlib import Path

import pytest
from program import Program


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The real program in an empty directory."""
    return Program(tmp_path)
