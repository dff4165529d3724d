"""What every reliability test starts from."""

import sys
from pathlib import Path

import pytest
from program import Program

if sys.platform != "linux":  # signals, /proc, small disks and limits on memory are spelled otherwise elsewhere
    collect_ignore_glob = ["test_[KFSIX]_*.py"]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The real program in an empty directory."""
    return Program(tmp_path)
