"""Checkpoints that are pickles, read without running anything they carry: NVlabs' .pkl and rosinality's .pt.

A pickle may name any function and call it. Here the few names that such checkpoints need are answered with harmless
stand-ins, every other name is refused, modules' source code is dropped unread, and a tensor must lie in its own bytes.
"""

from __future__ import annotations

import argparse
import io
import pickle
import pickletools
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from erase.errors import BadInput

MOST_BYTES = 4 * 2**30
MOST_OPCODES = 1_000_000
MOST_TEXT = 16 * 2**20
MOST_ELEMENTS = 2**28
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
DEEPEST = 64
# What a pickle of plain values, modules and tensors is written with; none of the ways to name things elsewhere.
REFUSED_OPCODES = {"EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "INST", "OBJ"}
MAGIC = b"\x80"


class Record(NamedTuple):
    """A module of an NVlabs pickle: its class's name and what it holds; its source code has been dropped."""

    kind: str
    state: Mapping[str, Any]


class Held(NamedTuple):
    """A tensor in a pickle. A tuple, so that no pickle can call its methods."""

    value: Tensor


class Plain(dict):
    """A dictionary whose keys official loaders offer as attributes."""


class Refused(Exception):
    """What a pickle asked for that a checkpoint has no need of."""


def read_pkl(path: Path) -> Any:
    """What an NVlabs pickle holds, with Records for modules and Held for tensors; BadInput for anything unsafe."""
    data = _bytes(path)
    if not data.startswith(MAGIC):
        raise BadInput(f"{path} is not a pickle of NVlabs' networks: it does not begin like one.")
    try:
        _scan(data)
        return _Reader(data).load()
    except Refused as error:
        raise BadInput(f"{path} was refused and nothing in it was run: {error}.") from None
    except MemoryError:
        raise BadInput(f"{path} was refused: reading it would take more memory than there is.") from None
    except Exception as error:  # a damaged pickle can fail in any way
        raise BadInput(f"{path} is damaged, cut short or no NVlabs pickle ({_brief(error)}).") from error


def read_pt(path: Path) -> Any:
    """What a rosinality checkpoint holds: tensors, containers, and the Namespace of its options."""
    data = _bytes(path)
    try:
        if zipfile.is_zipfile(io.BytesIO(data)):
            _check_zip(data)
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Refused as error:
        raise BadInput(f"{path} was refused and nothing in it was run: {error}.") from None
    except pickle.UnpicklingError as error:
        raise BadInput(f"{path} was refused or is damaged, and nothing in it was run: {_asked(error)}.") from error
    except Exception as error:
        raise BadInput(f"{path} is damaged, cut short or no PyTorch pickle ({_brief(error)}).") from error


def network_tensors(found: Mapping[str, Any], whole: int) -> dict[str, Tensor]:
    """The floating point tensors of a flat mapping, checked before a byte is copied.

    `whole` is the size of the file: what is declared may be no larger than what is there.
    """
    out, total = {}, 0
    for name, value in found.items():
        tensor = value.value if isinstance(value, Held) else value
        if not isinstance(tensor, Tensor):
            raise BadInput(f"{name} is {type(tensor).__name__}; possible in a network: tensors.")
        if tensor.layout != torch.strided or tensor.dtype not in FLOATS:
            raise BadInput(f"{name} is {tensor.dtype}; possible in a network: float16, bfloat16, float32, float64.")
        try:
            _in_bounds(
                tensor.untyped_storage().nbytes() // tensor.itemsize,
                int(tensor.storage_offset()),
                tensor.shape,
                tensor.stride(),
            )
        except Refused as error:
            raise BadInput(f"{name} was refused: {error}.") from None
        total += tensor.numel() * tensor.itemsize
        if total > 2 * whole:
            raise BadInput("The tensors declare more bytes than the file holds; it is damaged or made to fill memory.")
        if not bool(tensor.isfinite().all()):
            raise BadInput(f"{name} holds values that are not numbers; the file is damaged, or its training diverged.")
        out[name] = tensor.detach().clone()
    return out


def flattened(record: Record, depth: int = 0) -> dict[str, Any]:
    """A module's parameters and buffers under dotted names."""
    if depth > DEEPEST:
        raise BadInput("Modules are nested too deeply for a network.")
    out: dict[str, Any] = {}
    for part in ("_parameters", "_buffers"):
        held = record.state.get(part) or {}
        out |= {str(name): value for name, value in held.items() if value is not None}
    for name, inner in (record.state.get("_modules") or {}).items():
        if isinstance(inner, Record):
            out |= {f"{name}.{key}": value for key, value in flattened(inner, depth + 1).items()}
        elif inner is not None:
            raise BadInput(f"{name} in the file is {type(inner).__name__}, not one of NVlabs' modules.")
    return out


def _bytes(path: Path) -> bytes:
    if path.stat().st_size > MOST_BYTES:
        raise BadInput(f"{path} has {path.stat().st_size / 2**30:.1f} GiB; a StyleGAN2 checkpoint has less than 4.")
    return path.read_bytes()


def _scan(data: bytes) -> None:
    """Refuses what only a crafted pickle has, before anything is built from it."""
    for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if number > MOST_OPCODES:
            raise Refused(f"it has more than {MOST_OPCODES} instructions")
        if opcode.name in REFUSED_OPCODES:
            raise Refused(f"it uses the instruction {opcode.name}")
        if isinstance(argument, str) and len(argument) > MOST_TEXT:
            raise Refused("it holds a text of more than 16 MiB")
        if "PUT" in opcode.name and isinstance(argument, int) and argument > MOST_OPCODES:
            raise Refused("it asks for a huge table")


class _Reader(pickle.Unpickler):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))

    def find_class(self, module: str, name: str) -> Any:
        found = ALLOWED.get(f"{module}.{name}")
        if found is None:
            raise Refused(f"it asks for {module}.{name}")
        return found

    def persistent_load(self, pid: Any) -> Any:
        raise Refused("it refers to something outside the file")


def _record(meta: Mapping[str, Any], *_: Any) -> Record:
    if not isinstance(meta, dict) or meta.get("type") != "class" or not isinstance(meta.get("class_name"), str):
        raise Refused("it holds a module that is not a class of NVlabs' networks")
    state = meta.get("state")
    return Record(meta["class_name"], state if isinstance(state, dict) else {})


def _storage(data: bytes) -> Any:
    """A storage inside a pickle is itself a pickle: the stock reader would run whatever that one asks for."""
    if not isinstance(data, bytes):
        raise Refused("it holds a storage that is not bytes")
    try:
        if zipfile.is_zipfile(io.BytesIO(data)):
            _check_zip(data)
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise Refused(f"of a storage in it, {_asked(error)}") from None


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Held:
    if not isinstance(storage, torch.storage.TypedStorage):
        raise Refused("it makes a tensor of something else than a storage")
    numbers = [offset, *size, *stride]
    if len(size) != len(stride) or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise Refused("it holds a tensor of no shape")
    bytes_, empty = storage._untyped_storage, torch.empty(0, dtype=storage.dtype)
    _in_bounds(bytes_.nbytes() // empty.itemsize, offset, size, stride)
    return Held(empty.set_(bytes_, offset, size, stride).clone())


def _in_bounds(available: int, offset: int, size: Any, stride: Any) -> None:
    count = 1
    for length in size:
        count *= length
    if count > MOST_ELEMENTS:
        raise Refused(f"it declares a tensor of {count} numbers")
    if any(length > 1 and step == 0 for length, step in zip(size, stride, strict=True)):
        raise Refused("it declares a tensor larger than its bytes")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True)) if count else offset - 1
    if last >= available:
        raise Refused("it declares a tensor that reaches beyond its bytes")


def _parameter(held: Any, *_: Any) -> Held:
    if not isinstance(held, Held):
        raise Refused("it makes a parameter of something else than a tensor")
    return held


def _dtype(code: Any, *_: Any) -> np.dtype:
    if not isinstance(code, str) or len(code) > 4 or code.lstrip("<>|=")[:1] not in ("b", "i", "u", "f"):
        raise Refused("it asks for a NumPy type other than numbers")
    return np.dtype(code)


def _scalar(kind: Any, data: Any = b"") -> float | int | bool:
    if not isinstance(kind, np.dtype) or not isinstance(data, bytes) or len(data) != kind.itemsize:
        raise Refused("it holds a NumPy number of no size")
    return np.frombuffer(data, kind)[0].item()


def _check_zip(data: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise Refused("its parts are compressed, which PyTorch never does")
        if sum(entry.file_size for entry in entries) > len(data):
            raise Refused("it declares more bytes than it holds")


def _asked(error: pickle.UnpicklingError) -> str:
    """What PyTorch's own restricted reader would not look up."""
    named = re.search(r"GLOBAL (\S+)", str(error))
    return f"it asks for {named[1]}" if named else _brief(error)


def _brief(error: Exception) -> str:
    return (str(error).strip().split("\n")[0] or type(error).__name__)[:200].rstrip(".")


ALLOWED: dict[str, Callable[..., Any]] = {
    "torch_utils.persistence._reconstruct_persistent_obj": _record,
    "dnnlib.util.EasyDict": Plain,
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.storage._load_from_bytes": _storage,
    "numpy.dtype": _dtype,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
}
