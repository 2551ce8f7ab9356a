"""The training data of the pocket models as plain arrays, rendered by a process pool and kept in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from erase.errors import match
from generators.pocket.canvas import draw as canvas
from generators.pocket.canvas.words import OBJECTS, THEMES
from generators.pocket.faces import draw as faces

CELLS = [(style, thing) for style in THEMES for thing in OBJECTS]


def label(text: str) -> str:
    """The theme or object that a text spells; BadInput where there is none."""
    return match(text, (*THEMES, *OBJECTS), "theme or object")


def cells_without(labels: Iterable[str]) -> list[bool]:
    """For each of the cells, whether it shows none of these themes and objects; BadInput for an unknown one."""
    unseen = {label(each) for each in labels}
    return [unseen.isdisjoint(cell) for cell in CELLS]


class Canvas(NamedTuple):
    """Images [n 64 64 3] uint8 with the index of each one's style in THEMES and object in OBJECTS."""

    images: NDArray[np.uint8]
    styles: NDArray[np.int64]
    objects: NDArray[np.int64]


def _cell(cell: int, count: int, held_out: bool) -> NDArray[np.uint8]:
    canvas.cv2.setNumThreads(1)
    style, thing = CELLS[cell]
    # Offset by the style: poses differ between styles, so that no picture tells another style's background.
    first = 1000 + 100_000 * THEMES.index(style)
    return np.stack([canvas.picture(style, thing, first + i, held_out=held_out) for i in range(count)])


def _face(index: int, held_out: bool) -> tuple[NDArray[np.uint8], list[bool]]:
    image, labels = faces.face(index, held_out=held_out)
    return image, [labels[name] for name in faces.ATTRIBUTES]


def _saved(path: Path, **arrays: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".part").open("wb") as file:
        np.savez(file, **arrays)
    path.with_suffix(".part").replace(path)


def canvas_data(folder: Path, per_cell: int, *, held_out: bool = False) -> Canvas:
    """`per_cell` renders of each of the 300 cells; made once, then read from `folder`."""
    path = folder / f"canvas-{'test' if held_out else 'train'}-{per_cell}.npz"
    if not path.exists():
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # the rasteriser releases the interpreter
            parts = list(pool.map(partial(_cell, count=per_cell, held_out=held_out), range(len(CELLS))))
        _saved(path, images=np.concatenate(parts))
    cells = np.repeat(np.arange(len(CELLS)), per_cell)
    return Canvas(np.load(path)["images"], cells // len(OBJECTS), cells % len(OBJECTS))


def face_data(folder: Path, count: int, *, held_out: bool = False) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Images [n 64 64 3] and attribute labels [n attribute] of Pocket Faces."""
    path = folder / f"faces-{'test' if held_out else 'train'}-{count}.npz"
    if not path.exists():
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            made = list(pool.map(partial(_face, held_out=held_out), range(count)))
        _saved(path, images=np.stack([m[0] for m in made]), labels=np.array([m[1] for m in made]))
    read = np.load(path)
    return read["images"], read["labels"]
