"""Checkpoints that are pickles, read without running anything they carry: NVlabs' .pkl and rosinality's .pt.

A pickle may name any function and call it. Here the few names that such checkpoints need are answered with harmless
stand-ins, every other name is refused, modules' source code is dropped unread, and a tensor must lie in its own bytes.
"""

from __future__ import annotations

import argparse
import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from erase.errors import BadInput
from generators.checkpoints import restricted
from generators.checkpoints.restricted import Refused, brief, file_bytes, scan

MOST_ELEMENTS = 2**28
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
DEEPEST = 64
MOST_MODULES = 10_000
# What a pickle of plain values, modules and tensors is written with; none of the ways to name things elsewhere.
REFUSED_OPCODES = frozenset({"EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "INST", "OBJ"})
MAGIC = b"\x80"


class Record(NamedTuple):
    """A module of an NVlabs pickle: its class's name and what it holds; its source code has been dropped."""

    kind: str
    state: Mapping[str, Any]


class Held(NamedTuple):
    """A tensor in a pickle. A tuple, so that no pickle can call its methods."""

    value: Tensor


class _Closed(type):
    """The class of a class that a pickle may make instances of and not change."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise Refused(f"it sets {name} of a class")


class Plain(dict, metaclass=_Closed):
    """A dictionary whose keys official loaders offer as attributes."""


def read_pkl(path: Path) -> Any:
    """What an NVlabs pickle holds, with Records for modules and Held for tensors; BadInput for anything unsafe."""
    data = file_bytes(path)
    if not data.startswith(MAGIC):
        raise BadInput(f"{path} is not a pickle of NVlabs' networks: it does not begin like one.")
    try:
        scan(io.BytesIO(data), REFUSED_OPCODES)
        return _Reader(data).load()
    except Refused as error:
        raise BadInput(f"{path} was refused and nothing in it was run: {error}.") from None
    except MemoryError:
        raise BadInput(f"{path} was refused: reading it would take more memory than there is.") from None
    except Exception as error:  # a damaged pickle can fail in any way
        raise BadInput(f"{path} is damaged, cut short or no NVlabs pickle ({brief(error)}).") from error


def read_pt(path: Path) -> Any:
    """What a rosinality checkpoint holds: tensors, containers, and the Namespace of its options."""
    return restricted.read_pt(path, [argparse.Namespace])


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


def flattened(record: Record) -> dict[str, Any]:
    """A module's parameters and buffers under dotted names."""
    out: dict[str, Any] = {}
    waiting, met = [("", record, 0)], 0
    while waiting:
        prefix, module, depth = waiting.pop()
        met += 1
        if depth > DEEPEST or met > MOST_MODULES:
            raise BadInput("Modules are nested too deeply for a network.")
        for part in ("_parameters", "_buffers"):
            out |= {f"{prefix}{name}": value for name, value in _table(module, part).items() if value is not None}
        for name, inner in _table(module, "_modules").items():
            if isinstance(inner, Record):
                waiting.append((f"{prefix}{name}.", inner, depth + 1))
            elif inner is not None:
                raise BadInput(f"{name} in the file is {type(inner).__name__}, not one of NVlabs' modules.")
    return out


def _table(record: Record, part: str) -> Mapping[Any, Any]:
    held = record.state.get(part) or {}
    if not isinstance(held, Mapping):
        raise BadInput(f"{part} of a {record.kind} in the file is {type(held).__name__}, not a table of names.")
    return held


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
        return restricted.load(data)
    except pickle.UnpicklingError as error:
        raise Refused(f"of a storage in it, {restricted.asked(error)}") from None


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


class Sealed:
    """A function that a pickle may call and do nothing else with: not even set its attributes."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise Refused(f"it sets {name} of a function")


ALLOWED: dict[str, Callable[..., Any]] = {
    "torch_utils.persistence._reconstruct_persistent_obj": Sealed(_record),
    "dnnlib.util.EasyDict": Plain,
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor_v2": Sealed(_tensor),
    "torch._utils._rebuild_parameter": Sealed(_parameter),
    "torch.storage._load_from_bytes": Sealed(_storage),
    "numpy.dtype": Sealed(_dtype),
    "numpy.core.multiarray.scalar": Sealed(_scalar),
    "numpy._core.multiarray.scalar": Sealed(_scalar),
}
