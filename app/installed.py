"""The package of an installed copy: its folder holds app, benchmarks, erase, generators and assets.

So nothing of ours lies at the top of site-packages, where other programs have folders of such names. In a checkout that
is installed as editable the folders stay where they are, and this file alone is copied.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

__version__ = metadata.version("concept-erasure-studio")
FOLDER = Path(__file__).resolve().parent


def main() -> int:
    """Runs the command line of this copy, whatever `app` lies in the current folder or beside this package."""
    if (FOLDER / "app").is_dir():
        sys.path.insert(0, str(FOLDER))
    from app.cli.main import main as studio

    return studio()
