"""Output in an encoding that lacks a letter: ASCII stands in, and nothing ends in an error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_metrics_are_listed_in_any_encoding(encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-m", "app", "metrics"], cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert ("↑ higher" if encoding == "utf-8" else "^ higher") in done.stdout.decode(encoding)
