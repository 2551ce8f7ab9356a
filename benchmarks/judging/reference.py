"""UnlearnCanvas' folders as the reference of FID: `{root}/{Style}/{Object}/{1..20}.jpg`, photos under Seed_Images.

A drawn cell is compared with the picture whose number is its seed's place in the suite: the first five are the
published reference. A picture that is missing takes its cell out of the comparison, and is counted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from benchmarks.judging import cache
from benchmarks.probes.base import BATCH, Probe
from benchmarks.suites.suite import Cell, Suite
from erase.errors import BadInput
from erase.work import Step, Work

ENDINGS = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Reference:
    """The features [n f] of the pictures that belong to n cells, and which cells have one [n]."""

    name: str
    features: Tensor
    have: Tensor

    def of(self, rows: Sequence[int]) -> Reference:
        """The same for some of the cells."""
        return Reference(self.name, self.features[list(rows)], self.have[list(rows)])


def reference(root: Path, suite: Suite, cells: Sequence[Cell], probe: Probe) -> Work[Reference]:
    """Reads the pictures of cells with a probe; BadInput when a theme's or object's folder is missing altogether."""
    whole(root, suite)
    paths = [_picture(root, suite, cell) for cell in cells]
    have = torch.tensor([path is not None for path in paths])
    wanted = [path for path in dict.fromkeys(paths) if path is not None]
    if not wanted:
        raise BadInput(f"{root} holds no picture that suite {suite.name} asks for; the layout is THEME/OBJECT/1.jpg.")
    listing = [[str(path.relative_to(root)), path.stat().st_size, path.stat().st_mtime_ns] for path in wanted]
    name = cache.key(kind="reference", probe=probe.sha256, listing=_digest(listing), root=str(root.resolve()))
    stored = cache.load(name)
    features = stored[0]["features"] if stored else (yield from _features(wanted, probe))
    if stored is None:
        # A full disk must not cost the pictures that were drawn before: they are read again another time.
        with contextlib.suppress(OSError):
            cache.store(name, {"features": features}, None)
    place = {path: row for row, path in enumerate(wanted)}
    rows = torch.tensor([place.get(path, 0) if path else 0 for path in paths])
    return Reference(root.name, features[rows], have)


def _features(paths: Sequence[Path], probe: Probe) -> Work[Tensor]:
    parts = []
    for start in range(0, len(paths), BATCH):
        # One by one: pictures may differ in size, and the probe brings each to its own.
        for path in paths[start : start + BATCH]:
            parts.append(probe(opened(path)).features)
        yield Step("read the reference", min(start + BATCH, len(paths)), len(paths))
    return torch.cat(parts)


def opened(path: Path) -> Tensor:
    """A picture [1 3 h w] in [0, 1]; BadInput for a file that is none."""
    try:
        return pil_to_tensor(Image.open(path).convert("RGB"))[None].float() / 255
    except (UnidentifiedImageError, OSError) as error:
        raise BadInput(f"The picture {path} cannot be read ({error}); fetch it again, or remove it.") from None


def _picture(root: Path, suite: Suite, cell: Cell) -> Path | None:
    """The picture of a cell, if there is one; seeds beyond the grid's have none."""
    if cell.seed not in suite.grid_seeds:
        return None
    number = suite.grid_seeds.index(cell.seed) + 1
    found = (root / cell.style / cell.object / f"{number}{ending}" for ending in ENDINGS)
    return next((path for path in found if path.is_file()), None)


def whole(root: Path, suite: Suite) -> None:
    """BadInput when the data set, or one of the suite's folders in it, is missing."""
    if not root.is_dir():
        raise BadInput(
            f"There is no data folder {root}; it should hold a folder per theme, with one per object inside."
        )
    missing = [f"{style}/{thing}" for style in suite.styles for thing in suite.objects
               if not (root / style / thing).is_dir()]  # fmt: skip
    if missing:
        total = len(suite.styles) * len(suite.objects)
        raise BadInput(
            f"{root} lacks {len(missing)} of the {total} folders of suite {suite.name}, the first being {missing[0]}; "
            "the layout is THEME/OBJECT/1.jpg."
        )


def _digest(listing: object) -> str:
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()
