"""Files: atomic writers, checks of free space, digests, strict JSON and locks, each in one place."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from erase.errors import BadInput, DiskFull, disk_full, reading

SETTLED = 2 * 10**9  # nanoseconds after which a file that changes has another time
MARGIN = 16 * 2**20  # what a run writes beside its tensors: events, previews, pictures, reports
HEADER = 100 * 2**20  # the largest header that safetensors reads
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextlib.contextmanager
def replace(path: Path, durable: bool = True) -> Iterator[Path]:
    """Lend a temporary path beside `path`; it takes `path`'s name when the block ends well, and vanishes otherwise.

    What is not `durable` may be as it was before after a power cut, but never half-written.
    """
    make_folder(path.parent)
    part = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        part.touch()
        usual = part.stat().st_mode
        yield part
        part.chmod(usual)  # as readable as files usually are, which safetensors does not make them
        if durable:
            _flush(part)
        os.replace(part, path)
        if durable:
            _flush(path.parent)
    except Exception as error:
        if disk_full(error):
            raise DiskFull(
                f"The disk is full: {path} could not be written. Free some space, then try again."
            ) from error
        if isinstance(error, OSError) and error.errno in FORBIDDEN:
            raise _unwritable(path.parent, error) from error
        raise
    finally:
        part.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what a process that died in the middle of writing left in a folder and its subfolders."""
    for path in folder.rglob(".*"):
        if re.match(r"\.+\d+-", path.name) and path.is_file():
            path.unlink()


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; BadInput where that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if disk_full(error):
            raise DiskFull(f"The disk is full: {folder} could not be made. Free some space, then try again.") from error
        raise BadInput(f"The folder {folder} cannot be made ({error.strerror}). Choose another --out.") from error


def require_writable(folder: Path) -> None:
    """BadInput unless files can be written in a folder, or in the one above it that it would be made in."""
    place = _existing(folder)
    if not place.is_dir():
        raise BadInput(f"The folder {folder} cannot be made, because {place} is a file. Choose another --out.")
    try:
        tempfile.TemporaryFile(dir=place, prefix=".").close()
    except OSError as error:
        if not disk_full(error):
            raise _unwritable(place, error) from error


def _unwritable(folder: Path, error: OSError) -> BadInput:
    return BadInput(
        f"Nothing can be written in {folder} ({error.strerror}). Choose another place, or copy the run to one."
    )


def _existing(folder: Path) -> Path:
    """A folder, or the nearest one above it that exists."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return place


def lock(folder: Path, timeout: float = 0.0) -> Any:
    """Make a folder and hold its lock; the system lets go of it even after kill -9. BadInput when another holds it."""
    make_folder(folder)
    require_writable(folder)
    try:
        return FileLock(folder / ".lock", timeout=timeout).acquire()
    except Timeout as error:
        raise BadInput(f"{folder} is being worked on by another process. Wait for it, or stop it.") from error


def write_text(path: Path, text: str, durable: bool = True) -> None:
    """Replace `path` by `text` in one move."""
    with replace(path, durable) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, durable: bool = True) -> None:
    """Replace `path` by `value` as indented JSON in one move; NaN becomes null, which every JSON reader takes."""
    write_text(path, dumps(value) + "\n", durable)


def dumps(value: Any) -> str:
    """JSON that strict readers accept: numbers that are not finite become null, paths become text."""
    return json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, with or without a byte order mark; FileNotFoundError where there is none."""
    if not path.exists():
        raise FileNotFoundError(path)
    with reading(path, "TOML"):
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raise BadInput unless the disk that will hold `folder` has `needed` bytes and a margin free; `what` says why."""
    free = free_bytes(folder)
    if free < needed + MARGIN:
        raise BadInput(
            f"The disk of {folder} has {size(free)} free; {what} needs about {size(needed + MARGIN)}. "
            "Free some space or choose another --out."
        )


def free_bytes(folder: Path) -> int:
    """What is free on the disk that holds, or will hold, a folder."""
    return shutil.disk_usage(_existing(folder)).free


def file_name(text: str) -> str:
    """A text as one file's or folder's name: nothing in it leads elsewhere."""
    name = "".join(letter if letter.isalnum() or letter in "-_.=," else "_" for letter in text)
    return "_" * len(name) if not name.strip(".") else name


def size(count: float) -> str:
    """Bytes for people: 1.2 GB, 38 MB, 7 kB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{int(count)} bytes"


def metadata(path: Path, key: str) -> str | None:
    """A text in the header of a safetensors file, read without torch; None where there is none or no such file."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), HEADER)))
        return header["__metadata__"][key]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where what can be computed again lies: $STUDIO_CACHE, else the platform's cache folder."""
    if given := os.environ.get("STUDIO_CACHE"):
        return Path(given)
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "concept-erasure-studio"


def remembered(files: Sequence[Path], what: str, compute: Callable[[], str]) -> str:
    """A digest of files, computed anew only when path, size, times or inode of one of them have changed.

    `what` says what the digest is of. A file that was written a moment ago is not believed to stay as it is.
    """
    marks = [(str(file.resolve()), file.stat()) for file in files]
    seen = [[path, mark.st_size, mark.st_mtime_ns, mark.st_ctime_ns, mark.st_ino] for path, mark in marks]
    place = cache_folder() / "digests" / digest_of([what, seen])[:32]
    with contextlib.suppress(OSError, ValueError):
        known = place.read_text(encoding="ascii")
        if re.fullmatch("[0-9a-f]{64}", known):
            return known
    found = compute()
    newest = max(max(mark.st_mtime_ns, mark.st_ctime_ns) for _, mark in marks)
    if time.time_ns() - newest > SETTLED:
        with contextlib.suppress(OSError, BadInput, DiskFull):  # it is computed again next time
            write_text(place, found, durable=False)
    return found


def digest_of(value: Any) -> str:
    """The SHA-256 of a value as canonical JSON (sorted keys), in hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _flush(path: Path) -> None:
    """Ask the disk itself to hold a file or a folder's names; Windows has no handle for folders."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value not in (float("inf"), float("-inf")) and value == value:
        return value
    if isinstance(value, float):
        return None
    return str(value) if isinstance(value, Path) else value
