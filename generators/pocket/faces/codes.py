"""Which face a code z of pocket-gan stands for: its coordinates, part by part, are the dice.

    eyeglasses if Φ(z[0]) < .35 · which of four hats: two coordinates, halving twice · a hue: the angle of two

Of normal codes these are exactly the faces of the data.  `start_gan` teaches them to the generator, face by face.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from generators.pocket.faces import draw

Z_DIM = 128
ANGLES = ("hue", "slope")
SHARES = (
    "eyeglasses", "hat", "beard", "shaved", "smile", "blond", "hair length", "second hue", "spare",
)  # fmt: skip
NUMBERS = {
    "glasses": 7, "hats": 4, "beards": 6, "mouth": 2, "skin": 6, "blond shade": 3, "hair colour": 7,
    "hair under hat": 5, "short hair": 10, "long hair": 8, "hat colour": 7, "brows": 4, "eyes": 6, "nose": 3,
}  # fmt: skip
HALVINGS = {part: math.ceil(math.log2(of)) for part, of in NUMBERS.items()}
SIZES = {**dict.fromkeys(SHARES, 1), **dict.fromkeys(ANGLES, 2), **HALVINGS}
STARTS = dict(zip(SIZES, itertools.accumulate(SIZES.values(), initial=0), strict=False))
assert sum(SIZES.values()) <= Z_DIM


class Coded:
    """Dice that show what a code [z] says."""

    def __init__(self, z: NDArray[np.floating]) -> None:
        self.z = z

    def share(self, part: str) -> float:
        at = STARTS[part]
        if part in ANGLES:
            return math.atan2(self.z[at + 1], self.z[at]) / (2 * math.pi) % 1.0
        return (1 + math.erf(self.z[at] / math.sqrt(2))) / 2

    def number(self, part: str, of: int) -> int:
        at = STARTS[part]
        return int(halved(torch.from_numpy(self.z[None, at : at + SIZES[part]]), of)[0])


def halved(z: Tensor, of: int) -> Tensor:
    """Numbers below `of`, all equally likely, of coordinates [n k]: each coordinate halves what is left [n]."""
    low, high = torch.zeros(len(z), dtype=torch.long), torch.full((len(z),), of)
    for share in torch.special.ndtr(z).T:
        middle = (low + high) // 2
        left = (share < (middle - low) / (high - low)) & (high - low > 1)
        right = ~left & (high - low > 1)
        low, high = torch.where(right, middle, low), torch.where(left, middle, high)
    return low


def face_of(z: NDArray[np.floating]) -> tuple[NDArray[np.uint8], dict[str, bool]]:
    """The face a code [z] stands for: picture [64 64 3] and what is visible on it."""
    return draw.drawn(Coded(z))
