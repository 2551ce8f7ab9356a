"""Pocket Faces in bulk: rendered once by every core, then read back from one file."""

from __future__ import annotations

import multiprocessing
import os
from itertools import starmap
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from generators.pocket.faces import codes, draw
from generators.stylegan2.network import latents

# Part of the names of cached pictures: change it whenever `draw` or `codes` draws anything differently.
RECIPE = "3f5c7666b1"


def rendered(
    count: int, folder: Path, *, start: int = 0, held_out: bool = False, coded: bool = False, workers: int = 0
) -> tuple[Tensor, Tensor]:
    """Faces start … start + count: pictures uint8 [n 3 64 64] and labels bool [n attribute]; cached in `folder`.

    `coded` are the faces that pocket-gan's latents of these seeds stand for.
    """
    stream = "coded" if coded else "held-out" if held_out else "train"
    cache = folder / f"faces-{stream}-{start}-{count}-{RECIPE}.npz"
    if not cache.exists():
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [(index, stream) for index in range(start, start + count)]
        if workers == 1:
            drawn = list(starmap(_one, jobs))
        else:  # spawned: a fork of a process whose threads hold locks may never get on
            with multiprocessing.get_context("spawn").Pool(workers or os.cpu_count()) as pool:
                drawn = pool.starmap(_one, jobs, chunksize=64)
        pictures = np.stack([picture for picture, _ in drawn]).transpose(0, 3, 1, 2)
        draft = cache.with_suffix(".draft.npz")
        np.savez(draft, pictures=pictures, labels=np.stack([labels for _, labels in drawn]))
        os.replace(draft, cache)
    with np.load(cache) as stored:
        return torch.from_numpy(stored["pictures"]), torch.from_numpy(stored["labels"])


def _one(index: int, stream: str) -> tuple[np.ndarray, np.ndarray]:
    if stream == "coded":
        picture, labels = codes.face_of(latents([index], codes.Z_DIM)[0].numpy())
    else:
        picture, labels = draw.face(index, held_out=stream == "held-out")
    return picture, np.array([labels[attribute] for attribute in draw.ATTRIBUTES])
