"""`python -m tests.golden --renew` writes the expected values anew; without it they are compared."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.golden.golden import RENEW

if __name__ == "__main__":
    given = sys.argv[1:]
    if "--renew" in given:
        os.environ[RENEW] = "renew"
    raise SystemExit(pytest.main([str(Path(__file__).parent), *(word for word in given if word != "--renew")]))
