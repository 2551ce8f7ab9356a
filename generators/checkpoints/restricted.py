"""PyTorch's pickles, read by its own restricted reader after everything has been refused that only a crafted file has.

The restricted reader runs nothing, but it hashes what a file nests, unpacks what it compresses, and trusts what it
declares; so a file of a few hundred bytes could keep it busy for ever or fill the memory.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import torch

from erase.errors import BadInput

MOST_BYTES = 4 * 2**30
MOST_OPCODES = 1_000_000
MOST_TEXT = 16 * 2**20
MOST_COST = 10_000_000  # values that walking through one value meets, shared ones counted again
LEGACY_PICKLES = 5  # before the bytes of the storages: magic number, protocol, system, content, keys


class Refused(Exception):
    """What a pickle asked for that a checkpoint has no need of."""


def read_pt(path: Path, allowed: Iterable[type] = ()) -> Any:
    """What a file of `torch.save` holds, of tensors, containers and `allowed` classes; BadInput for anything else."""
    data = file_bytes(path)
    try:
        return load(data, allowed)
    except Refused as error:
        raise BadInput(f"{path} was refused and nothing in it was run: {error}.") from None
    except pickle.UnpicklingError as error:
        raise BadInput(f"{path} was refused or is damaged, and nothing in it was run: {asked(error)}.") from error
    except MemoryError:
        raise BadInput(f"{path} was refused: reading it would take more memory than there is.") from None
    except Exception as error:  # a damaged pickle can fail in any way
        raise BadInput(f"{path} is damaged, cut short or no PyTorch pickle ({brief(error)}).") from error


def load(data: bytes, allowed: Iterable[type] = ()) -> Any:
    """What the bytes of `torch.save` hold; Refused, before anything is built, for what is made to harm."""
    if zipfile.is_zipfile(io.BytesIO(data)):
        _check_zip(data)
    elif tarfile.is_tarfile(io.BytesIO(data)):
        raise Refused("it is an archive of a PyTorch before 2017")
    else:
        file = io.BytesIO(data)
        for _ in range(LEGACY_PICKLES):
            scan(file)
    with torch.serialization.safe_globals(list(allowed)):
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def file_bytes(path: Path) -> bytes:
    """The bytes of a file that may be a checkpoint of a GAN or a classifier."""
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise BadInput(f"{path} has {size / 2**30:.1f} GiB; a checkpoint of this kind has less than 4.")
    return path.read_bytes()


def scan(file: IO[bytes], refused: frozenset[str] = frozenset()) -> None:
    """Refuses what only a crafted pickle has, before anything is built from it; leaves the file after the pickle."""
    walk = _Walk()
    for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if number > MOST_OPCODES:
            raise Refused(f"it has more than {MOST_OPCODES} instructions")
        if opcode.name in refused:
            raise Refused(f"it uses the instruction {opcode.name}")
        if isinstance(argument, str) and len(argument) > MOST_TEXT:
            raise Refused("it holds a text of more than 16 MiB")
        if "PUT" in opcode.name and isinstance(argument, int) and argument > MOST_OPCODES:
            raise Refused("it asks for a huge table")
        walk.follow(opcode, argument)


class _Walk:
    """The stack and the table of a pickle with, in place of each value, how many values walking through it meets."""

    def __init__(self) -> None:
        self.stack: list[int | None] = []  # None is a mark
        self.table: dict[Any, int] = {}

    def follow(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Does to the costs what the instruction does to the values."""
        name = opcode.name
        try:
            if name == "MARK":
                self.stack.append(None)
            elif name == "MEMOIZE" or name.endswith("PUT"):
                self.table[len(self.table) if name == "MEMOIZE" else argument] = self.stack[-1] or 0
            elif name.endswith("GET"):
                self.stack.append(self.table.get(argument, 1))
            elif name == "DUP":
                self.stack.append(self.stack[-1])
            elif name == "POP":
                self.stack.pop()
            else:
                taken = self._taken(opcode.stack_before)
                cost = 1 + sum(taken)
                if cost > MOST_COST:
                    raise Refused("it nests values so that walking through them would never end")
                self.stack += [cost] * len(opcode.stack_after)
        except IndexError:
            raise Refused("its instructions do not fit together: it is damaged or cut short") from None

    def _taken(self, before: list[pickletools.StackObject]) -> list[int]:
        """The costs of what an instruction takes from the stack."""
        found: list[int] = []
        if pickletools.stackslice in before:
            while (top := self.stack.pop()) is not None:
                found.append(top)
        below = [each for each in before if each not in (pickletools.markobject, pickletools.stackslice)]
        return found + [self.stack.pop() or 0 for _ in below]


def _check_zip(data: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise Refused("its parts are compressed, which PyTorch never does")
        if sum(entry.file_size for entry in entries) > len(data):
            raise Refused("it declares more bytes than it holds")
        for entry in entries:
            if entry.filename.endswith("data.pkl"):
                scan(io.BytesIO(archive.read(entry)))


def asked(error: pickle.UnpicklingError) -> str:
    """What PyTorch's own restricted reader would not look up."""
    named = re.search(r"GLOBAL (\S+)", str(error))
    return f"it asks for {named[1]}" if named else brief(error)


def brief(error: Exception) -> str:
    """The first line of an error, or its name."""
    return (str(error).strip().split("\n")[0] or type(error).__name__)[:200].rstrip(".")
