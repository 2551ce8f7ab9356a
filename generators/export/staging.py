"""Exports appear whole or not at all: written in a hidden folder beside their place, flushed, and moved at the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from erase.errors import BadInput, disk_full

CARD, PROOF = "README.md", "proof.json"


def is_file(target: Path) -> bool:
    """Whether an export to this path is one file with its card beside it, rather than a folder."""
    return target.suffix in (".safetensors", ".pt")


def card_of(target: Path) -> Path:
    """Where the card of an exported file or folder is."""
    return target.with_suffix(".md") if is_file(target) else target / CARD


@contextmanager
def arriving(target: Path, *, force: bool, file: str | None = None) -> Iterator[Path]:
    """A temporary folder that becomes `target` when the block ends well, and vanishes otherwise.

    For a target that names a file, `file` of that folder becomes it, and the folder's card stands beside it. Raises
    BadInput for a target that holds something: without `force` anything, with it anything but an export; for a place
    that cannot be written to, and for a full disk.
    """
    home = target.with_name(f".{target.name}.writing")
    try:
        if home.exists():  # of a killed process, or of one that is at work
            with _held(home, target):
                _put_back(home, target)
                shutil.rmtree(home, ignore_errors=True)
        _refuse_to_overwrite(target, force, file)
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{target} cannot be made ({error.strerror}); choose another place.") from error
    with _held(home, target):
        whole = home / "whole"
        try:
            whole.mkdir()
            yield whole
            _settle(whole)
            _move(home, target, file)
        except BaseException as error:
            _put_back(home, target)
            if disk_full(error):
                raise BadInput(f"No disk space left while writing {target}; nothing of it was kept.") from error
            raise
        finally:
            shutil.rmtree(home, ignore_errors=True)


def room(target: Path, needed: int) -> None:
    """Raises BadInput unless the disk that will hold `target` has `needed` bytes free."""
    home = target
    while not home.exists():
        home = home.parent
    free = shutil.disk_usage(home).free
    if free < needed:
        raise BadInput(f"No disk space: this needs {needed / 2**20:.1f} MiB, {free / 2**20:.1f} MiB are free.")


def _refuse_to_overwrite(target: Path, force: bool, file: str | None) -> None:
    if is_file(target):
        if file is None:
            raise BadInput(f"{target}: this format is not written as {target.suffix}; leave that out for a folder.")
        if target.is_dir():
            raise BadInput(f"{target} is a folder; name the file to write, or give a folder without {target.suffix}.")
        there = [path for path in (target, card_of(target)) if path.exists()]
        if there and not force:
            raise BadInput(f"{there[0]} is already there; choose another name or replace it with --force.")
        if target.exists() and not card_of(target).is_file():
            raise BadInput(f"{target} has no card beside it, and --force replaces only exports; choose another name.")
    elif target.exists():
        if not target.is_dir():
            raise BadInput(f"{target} is a file; give a folder to export into.")
        if any(target.iterdir()):
            if not force:
                raise BadInput(f"{target} already holds something; choose another folder or replace it with --force.")
            if not (target / PROOF).is_file():
                raise BadInput(f"{target} is not an export, and --force replaces only exports; choose another.")


@contextmanager
def _held(home: Path, target: Path) -> Iterator[None]:
    """Inside the block this process alone writes to `target`; the system lets go even after kill -9."""
    lock = FileLock(home / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise BadInput(f"{target} is being written by another process; wait for it, or choose another.") from error
    except OSError as error:
        raise BadInput(f"{target} cannot be written ({error.strerror}); choose another place.") from error
    try:
        yield
    finally:
        lock.release()


def _places(home: Path, target: Path) -> list[tuple[Path, Path]]:
    """What a replaced export consists of, and where each part is kept until the new one is there."""
    parts = (target, card_of(target)) if is_file(target) else (target,)
    return [(part, home / "replaced" / part.name) for part in parts]


def _move(home: Path, target: Path, file: str | None) -> None:
    """The old export aside, the new one into its place: a card without a file looks like nothing, so it comes first."""
    for part, kept in _places(home, target):
        if part.exists():
            kept.parent.mkdir(exist_ok=True)
            os.replace(part, kept)
    if is_file(target) and file:
        if (home / "whole" / CARD).exists():
            os.replace(home / "whole" / CARD, card_of(target))
        os.replace(home / "whole" / file, target)
    else:
        os.replace(home / "whole", target)


def _put_back(home: Path, target: Path) -> None:
    """The old export in its place again, where the new one did not arrive."""
    if target.exists():
        return
    for part, kept in _places(home, target):
        if kept.exists():
            os.replace(kept, part)
    if is_file(target) and not target.exists():
        card_of(target).unlink(missing_ok=True)  # of a file that never came


def _settle(folder: Path) -> None:
    """Asks the disk to hold every file, so that a power cut after the move finds them whole, and makes them as readable
    as files usually are, which safetensors does not."""
    usual = folder.parent / "usual"
    usual.touch()
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(usual.stat().st_mode)
            with path.open("r+b") as file:
                os.fsync(file.fileno())
