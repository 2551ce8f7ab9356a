"""Where the studio keeps what it was asked to do: STUDIO_HOME, or the user's data folder."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from erase.errors import BadInput

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")


def home() -> Path:
    """The studio's home; it need not exist yet."""
    if given := os.environ.get("STUDIO_HOME"):
        return Path(given).expanduser().resolve()
    if sys.platform == "win32":
        above = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        above = Path.home() / "Library" / "Application Support"
    else:
        above = Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share"))
    return above / "concept-erasure-studio"


def runs() -> Path:
    """The folder of the runs that were started from the page."""
    return home() / "runs"


def run_folder(name: str) -> Path:
    """The folder of a run of that name; BadInput for anything that is no plain name or leads elsewhere."""
    folder = runs() / name if NAME.fullmatch(name) else None
    if folder is None or folder.resolve().parent != runs():
        raise BadInput(
            f"{name!r} is not a valid name for a run: letters, digits, dots, dashes and underscores make one."
        )
    return folder


def slug(text: str) -> str:
    """The text as part of a file name: lower case, dashes between words, never empty."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "x"


def latent_picture(seed: int) -> str:
    """The file of what a GAN draws of a seed."""
    return f"{seed:08d}.png"
