"""Whatever the file: its reader ends in success or in a sentence, and in bounded memory and time."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory and CPU time are set as Linux counts them")
def test_changed_files_are_read_or_refused() -> None:
    """In a process of its own, which the system ends if a file takes more than its limits."""
    child = subprocess.run([sys.executable, "-m", "tests.contract.hostile"], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr[-4000:]
