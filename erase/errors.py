"""The one error a user can cause, and the sentence that helps them out of it."""

from __future__ import annotations

import contextlib
import difflib
import errno
from collections.abc import Iterable, Iterator


class BadInput(ValueError):
    """A mistake in what was asked; its text is one sentence for the user, and the command line exits with 2."""


def plain(name: str) -> str:
    """The form in which two spellings of a name are compared: case, spaces, dashes and underscores do not matter."""
    return " ".join(name.replace("_", " ").replace("-", " ").lower().split())


def nearest(given: str, possible: Iterable[str], what: str) -> BadInput:
    """The error for an unknown name: what was given, the nearest guess, and what is possible."""
    names = sorted(possible)
    spelled = {plain(name): name for name in names}
    close = difflib.get_close_matches(plain(given), list(spelled), n=1, cutoff=0.5)
    guess = f" Did you mean {spelled[close[0]]!r}?" if close else ""
    known = ", ".join(names) if len(names) <= 40 else f"{', '.join(names[:4])} … ({len(names)} in all)"
    return BadInput(f"Unknown {what} {given!r}.{guess} Possible: {known or 'none'}.")


def match(given: str, possible: Iterable[str], what: str) -> str:
    """The possible name that `given` spells, or BadInput with the nearest guess."""
    names = list(possible)
    for name in names:
        if plain(name) == plain(given):
            return name
    raise nearest(given, names, what)


@contextlib.contextmanager
def reading(what: object, kind: str) -> Iterator[None]:
    """BadInput, with the file's name, for whatever goes wrong inside while a file of somebody else is read.

    A full disk, too little memory and a failing device are not the file's fault and pass as they are.
    """
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        if disk_full(error) or out_of_memory(error) or "CUDA" in str(error):
            raise
        reason = (str(error).strip().split("\n")[0] or "no reason given")[:200].rstrip(".")
        raise BadInput(
            f"{what} cannot be read as {kind} ({type(error).__name__}: {reason}). Get it again, or give another."
        ) from error


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that there was not enough memory, on the CPU or on a device."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in said or "can't allocate memory" in said


def visible(text: str) -> str:
    """The text as a terminal may show it: control characters, which could move its cursor, are spelled out."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else repr(letter)[1:-1] for letter in text)


class DiskFull(RuntimeError):
    """The disk filled up while something was being written; what was whole before is still whole."""


def disk_full(error: BaseException) -> bool:
    """Whether an error means that the disk is full; safetensors reports it as text, not as an OSError."""
    if isinstance(error, DiskFull):
        return True
    number = error.errno if isinstance(error, OSError) else None
    return number in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in str(error)
