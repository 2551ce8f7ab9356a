"""safetensors files: what they hold without loading it, their contents, and modules filled with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from erase.errors import BadInput

Module = TypeVar("Module", bound=nn.Module)

# Headers are JSON of a few hundred bytes per tensor; anything larger is not one.
HEADER_LIMIT = 100 * 2**20
MOST_TENSORS = 100_000
PIECE = 2**22  # bytes hashed at once
# Dtypes as safetensors spells them.
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """One tensor in a file: dtype as the file spells it, shape, and where its bytes lie."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def header(path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """The tensors a safetensors file holds, by name, and its metadata; BadInput for a damaged or shortened file."""
    damaged = f"{path} is damaged, cut short or no safetensors file"
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(HEADER_LIMIT, size - 8):
                raise BadInput(f"{damaged}: its header does not fit into its {size} bytes; copy or download it again.")
            table = json.loads(file.read(length))
        metadata = table.pop("__metadata__", {}) or {}
        if len(table) > MOST_TENSORS:
            raise BadInput(f"{path} holds {len(table)} tensors; no model has more than {MOST_TENSORS}.")
        tensors = {name: _stored(entry, 8 + length) for name, entry in table.items()}
        if not all(isinstance(text, str) for text in metadata.values()):
            raise TypeError("its metadata should be texts")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise error if isinstance(error, BadInput) else BadInput(f"{damaged} ({error}).") from error
    wanted = max((tensor.end for tensor in tensors.values()), default=0)
    if size < wanted:
        raise BadInput(f"{damaged}: it has {size} of {wanted} bytes; copy or download it again.")
    return tensors, metadata


def _stored(entry: Any, data: int) -> Stored:
    """An entry of the header; `data` is where the bytes of the tensors begin."""
    shape, (start, end) = tuple(entry["shape"]), entry["data_offsets"]
    sizes = (*shape, start, end)
    if not isinstance(entry["dtype"], str) or not all(type(size) is int and size >= 0 for size in sizes) or end < start:
        raise ValueError("its header holds sizes that are not sizes")
    return Stored(entry["dtype"], shape, data + start, data + end)


def contents(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file, mapped rather than read: memory is taken only for what is used."""
    header(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise BadInput(f"{path} could not be read ({error}).") from error


def digest(files: Sequence[tuple[Path, Callable[[str], str | None]]]) -> str:
    """sha256 (hex) of the named tensors of some files, in the order of their names, each with dtype, shape and bytes.

    Each file comes with a function that gives a tensor's name in the model, or None where it does not count. The bytes
    are read in pieces, so that the memory of the process does not grow by the model.
    """
    named: dict[str, tuple[Path, Stored]] = {}
    for path, naming in files:
        for name, tensor in header(path)[0].items():
            if (known_as := naming(name)) is not None:
                named[known_as] = path, tensor
    total = hashlib.sha256()
    for name, (path, tensor) in sorted(named.items()):
        total.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
        for piece in _bytes(path, tensor):
            total.update(piece)
    return total.hexdigest()


def digest_of(named: Mapping[str, Tensor]) -> str:
    """What `digest` says of a file with these tensors under these names."""
    total = hashlib.sha256()
    for name, tensor in sorted(named.items()):
        total.update(f"{name} {DTYPES[tensor.dtype]} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            for piece in tensor.contiguous().reshape(-1).view(torch.uint8).split(PIECE):
                total.update(piece.numpy().tobytes())
    return total.hexdigest()


def _bytes(path: Path, tensor: Stored, piece: int = PIECE) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(tensor.start)
        for start in range(tensor.start, tensor.end, piece):
            yield file.read(min(piece, tensor.end - start))


def fill(build: Callable[[], Module], tensors: Mapping[str, Tensor], dtype: torch.dtype, where: str) -> Module:
    """A module with these weights, in evaluation mode and without gradients.

    The module is built without memory and takes the tensors as they are; only another `dtype` copies them. Raises
    BadInput, with `where` in it, for tensors that are missing, left over or of another shape.
    """
    with torch.device("meta"):
        module = build()
    wanted = module.state_dict()
    given = {name: tensor for name, tensor in tensors.items() if not name.endswith("position_ids")}
    missing, extra = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or extra:
        problem = (
            f"it lacks {_list(missing)}" if missing else f"it holds {_list(extra)}, which its config does not mention"
        )
        raise BadInput(f"{where} does not fit its config: {problem}.")
    for name, tensor in given.items():
        if tensor.is_floating_point() != wanted[name].is_floating_point() or tensor.is_complex():
            raise BadInput(f"{where}: {name} holds {tensor.dtype}. Get the file with fp16, bf16 or fp32 weights.")
        if tensor.shape != wanted[name].shape:
            found, due = _by(tensor.shape), _by(wanted[name].shape)
            raise BadInput(f"{where} does not fit its config: {name} is {found}, it should be {due}.")
    weights = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in given.items()}
    module.load_state_dict(weights, assign=True)
    for owner in module.modules():
        # The one thing CLIP keeps outside its files: row numbers, which were built without memory too.
        if isinstance(positions := getattr(owner, "position_ids", None), Tensor) and positions.is_meta:
            owner.position_ids = torch.arange(positions.shape[-1])[None]
    return module.eval().requires_grad_(False)


def _by(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "a single number"


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
