"""An edit's file as far as a list needs it, read without torch: what it is about, and its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erase.files import HEADER

DTYPES = {"F64": "torch.float64", "F32": "torch.float32", "F16": "torch.float16", "BF16": "torch.bfloat16"}


@dataclass(frozen=True)
class Stored:
    """What an edit's file says of itself, and the hash of its deltas."""

    about: Mapping[str, Any]
    hash: str


def stored(path: Path) -> Stored | None:
    """An edit's file; None for one that is damaged, compressed or of another kind, which `Edit.load` explains."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, HEADER)))
            told = json.loads(header.pop("__metadata__")["edit"])
            if told["format"] != 1:
                return None
            digest = hashlib.sha256()
            for name, tensor in sorted(header.items()):
                first, last = tensor["data_offsets"]
                shape = tuple(tensor["shape"])
                file.seek(8 + length + first)
                digest.update(f"{name} {DTYPES[tensor['dtype']]} {shape}\n".encode())
                digest.update(file.read(last - first))
        return Stored(told["about"], digest.hexdigest())
    except (OSError, ValueError, KeyError, TypeError):
        return None
