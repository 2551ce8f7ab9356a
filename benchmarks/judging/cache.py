"""A user cache of tensors under content hashes: written whole or not at all, and never believed when damaged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from erase.errors import DiskFull
from erase.files import cache_folder as folder
from erase.files import replace


def key(**parts: Any) -> str:
    """A name that changes with any of its parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def load(name: str) -> tuple[dict[str, Tensor], Any] | None:
    """The tensors and the JSON value stored under a name; None when there is no such file, or it is cut or altered."""
    try:
        with safe_open(folder() / f"{name}.safetensors", framework="pt") as file:
            header = file.metadata() or {}
            tensors = {entry: file.get_tensor(entry) for entry in file.keys()}
        value = json.loads(header["value"])
    except (FileNotFoundError, SafetensorError, OSError, KeyError, ValueError):
        return None
    return (tensors, value) if header.get("sum") == _sum(tensors, header["value"]) else None


def store(name: str, tensors: Mapping[str, Tensor], value: Any) -> Path:
    """Stores tensors and a JSON value under a name, atomically; OSError when the folder cannot be written."""
    home = folder()
    home.mkdir(parents=True, exist_ok=True)
    tensors = {entry: tensor.detach().cpu().contiguous() for entry, tensor in tensors.items()}
    text = json.dumps(value)
    try:
        with replace(home / f"{name}.safetensors", durable=False) as part:
            save_file(tensors, part, metadata={"value": text, "sum": _sum(tensors, text)})
    except (SafetensorError, DiskFull) as error:
        raise OSError(str(error)) from error
    return home / f"{name}.safetensors"


def _sum(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for entry, tensor in sorted(tensors.items()):
        digest.update(entry.encode() + tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
