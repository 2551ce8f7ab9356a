"""The state of an unfinished erasure on disk: the two newest snapshots, each whole or recognised as damaged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from erase.edit import Edit
from erase.files import replace


@dataclass(frozen=True)
class Checkpoint:
    """What a method needs to go on: its tensors, the number of Steps behind it and the seconds they took."""

    tensors: Mapping[str, Tensor]
    steps: int
    seconds: float


def save(folder: Path, checkpoint: Checkpoint, job: str) -> Path:
    """Write one snapshot of the job with hash `job`, then drop all but the two newest; disk errors as DiskFull."""
    tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in checkpoint.tensors.items()}
    about = {"job": job, "steps": checkpoint.steps, "seconds": checkpoint.seconds, "hash": Edit(tensors, {}).hash}
    path = folder / f"{checkpoint.steps:08d}.safetensors"
    with replace(path) as part:
        save_file(tensors, part, metadata={"about": json.dumps(about)})
    for older in _snapshots(folder)[:-2]:
        older.unlink()
    return path


def newest(folder: Path, job: str) -> tuple[Checkpoint | None, list[str]]:
    """The newest undamaged snapshot of this job, and a sentence for every snapshot that had to be passed over."""
    passed: list[str] = []
    for path in reversed(_snapshots(folder)):
        try:
            return _read(path, job), passed
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            passed.append(f"The snapshot {path.name} is damaged ({error}); the one before it is used.")
    return None, passed


def _snapshots(folder: Path) -> list[Path]:
    """Oldest first; a file that was being written when the process died has a hidden name and is none."""
    return sorted(folder.glob("[0-9]*.safetensors"))


def _read(path: Path, job: str) -> Checkpoint:
    with safe_open(path, framework="pt") as file:
        about = json.loads((file.metadata() or {})["about"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if about["job"] != job:
        raise ValueError("it belongs to another job")
    if about["hash"] != Edit(tensors, {}).hash:
        raise ValueError("its bytes have changed")
    return Checkpoint(tensors, about["steps"], about["seconds"])
