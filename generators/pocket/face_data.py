"""Pocket Faces in bulk: rendered once by every core, then read back from one file."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from generators.pocket import faces


def rendered(
    count: int, folder: Path, *, start: int = 0, held_out: bool = False, workers: int = 0
) -> tuple[Tensor, Tensor]:
    """Faces start … start + count: pictures uint8 [n 3 64 64] and labels bool [n attribute]; cached in `folder`."""
    recipe = hashlib.sha256(Path(faces.__file__).read_bytes()).hexdigest()[:10]
    cache = folder / f"faces-{'held-out' if held_out else 'train'}-{start}-{count}-{recipe}.npz"
    if not cache.exists():
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [(index, held_out) for index in range(start, start + count)]
        with multiprocessing.get_context("fork").Pool(workers or os.cpu_count()) as pool:
            drawn = pool.starmap(_one, jobs, chunksize=64)
        pictures = np.stack([picture for picture, _ in drawn]).transpose(0, 3, 1, 2)
        draft = cache.with_suffix(".draft.npz")
        np.savez(draft, pictures=pictures, labels=np.stack([labels for _, labels in drawn]))
        os.replace(draft, cache)
    with np.load(cache) as stored:
        return torch.from_numpy(stored["pictures"]), torch.from_numpy(stored["labels"])


def _one(index: int, held_out: bool) -> tuple[np.ndarray, np.ndarray]:
    picture, labels = faces.face(index, held_out=held_out)
    return picture, np.array([labels[attribute] for attribute in faces.ATTRIBUTES])
