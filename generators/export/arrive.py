"""Exports appear whole or not at all: written beside their place, flushed, and renamed at the end."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from erase.errors import BadInput

CARD = "README.md"
# One of these is in every folder that --force may replace: a pipeline's index, an export's proof.
OURS = ("model_index.json", "proof.json")


def is_file(target: Path) -> bool:
    """Whether an export to this path is one file with its card beside it, rather than a folder."""
    return target.suffix == ".safetensors"


def card_of(target: Path) -> Path:
    """Where the card of an exported file or folder is."""
    return target.with_suffix(".md") if is_file(target) else target / CARD


@contextmanager
def arriving(target: Path, *, force: bool, file: str | None = None) -> Iterator[Path]:
    """A temporary folder beside `target` that becomes it when the block ends well, and vanishes otherwise.

    For a target named *.safetensors, `file` of that folder becomes it, and the folder's card stands beside it. Raises
    BadInput for a target that holds something: without `force` anything, with it anything but an export. A full disk is
    BadInput too.
    """
    _refuse_to_overwrite(target, force, file)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{target.parent} cannot be made ({error.strerror}).") from error
    temporary = target.with_name(f".{target.name}.{os.getpid()}.writing")
    replaced = target.with_name(f".{target.name}.{os.getpid()}.replaced")
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of a killed process that had this number
        temporary.mkdir()
        yield temporary
        _flush(temporary)
        if is_file(target) and file:
            if (temporary / CARD).exists():
                os.replace(temporary / CARD, card_of(target))
            os.replace(temporary / file, target)
        else:
            if target.exists():
                os.replace(target, replaced)
            os.replace(temporary, target)
    except (OSError, SafetensorError) as error:
        if replaced.exists() and not target.exists():
            os.replace(replaced, target)
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            raise BadInput(f"No disk space left while writing {target}; nothing of it was kept.") from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def room(target: Path, needed: int) -> None:
    """Raises BadInput unless the disk that will hold `target` has `needed` bytes free."""
    home = target
    while not home.exists():
        home = home.parent
    free = shutil.disk_usage(home).free
    if free < needed:
        raise BadInput(f"No disk space: {target} needs {needed / 2**20:.1f} MiB, {free / 2**20:.1f} MiB are free.")


def _refuse_to_overwrite(target: Path, force: bool, file: str | None) -> None:
    if is_file(target):
        if file is None:
            raise BadInput(f"{target} names a file, and this export is a folder; leave .safetensors out.")
        if target.is_dir():
            raise BadInput(f"{target} is a folder; name the file to write, or give a folder without .safetensors.")
        there = [path for path in (target, card_of(target)) if path.exists()]
        if there and not force:
            raise BadInput(f"{there[0]} is already there; choose another name or replace it with --force.")
    elif target.exists():
        if not target.is_dir():
            raise BadInput(f"{target} is a file; give a folder to export into.")
        if any(target.iterdir()):
            if not force:
                raise BadInput(f"{target} already holds something; choose another folder or replace it with --force.")
            if not any((target / name).is_file() for name in OURS):
                raise BadInput(
                    f"{target} holds something that is no export, and --force replaces only exports; choose another."
                )


def _flush(folder: Path) -> None:
    """Asks the disk to hold every file, so that a power cut after the renaming finds them whole."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("r+b") as file:
                os.fsync(file.fileno())
