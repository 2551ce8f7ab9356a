"""Weight changes as products of two thin matrices, with the error of leaving the rest out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from erase.errors import BadInput

UP, DOWN = ".up", ".down"
MOST_NUMBERS = 2**27  # of one layer; the largest of SDXL has 63 million
MOST_GROWTH = 2048  # of numbers by multiplying; factors of rank 1 of SDXL's widest layer grow 1137-fold


@dataclass(frozen=True)
class Factors:
    """delta ≈ up·down, up [out rank], down [rank …] with the delta's further axes.

    `residual` and `norm` are Frobenius norms, of what is missing from the stored, rounded product and of the delta;
    `spectral` is the missing part's largest singular value over the delta's.
    """

    up: Tensor
    down: Tensor
    residual: float
    norm: float
    spectral: float

    @property
    def rank(self) -> int:
        """The number of rows of `down`."""
        return len(self.down)

    @property
    def bytes(self) -> int:
        """What both matrices weigh."""
        return self.up.nbytes + self.down.nbytes

    def padded(self, rank: int) -> Factors:
        """The same product at a higher rank: zeros are added."""
        more = rank - self.rank
        up = torch.cat([self.up, self.up.new_zeros(len(self.up), more)], 1)
        return replace(self, up=up, down=torch.cat([self.down, self.down.new_zeros(more, *self.down.shape[1:])]))


def factored(
    delta: Tensor, *, error: float = 0.0, rank: int | None = None, dtype: torch.dtype | None = None
) -> Factors:
    """The best factors of a delta [out, …] of a rank, or of the smallest rank with a relative Frobenius error.

    Axes after the first count as one. Stored in `dtype` (None: the delta's); raises BadInput for an `error` that its
    rounding alone exceeds.
    """
    dtype = dtype or delta.dtype
    rounding = torch.finfo(dtype).eps
    if rank is None and 0 < error <= rounding:
        raise BadInput(f"An error of {error:g} is finer than {dtype} can hold; ask for more than {rounding:.1g}.")
    wide = delta.detach().to("cpu", torch.float64).flatten(1)
    flipped = wide.shape[0] < wide.shape[1]
    # Singular vectors of the thinner side from its Gram matrix; in float64 that loses nothing fp32 could hold.
    values, vectors = torch.linalg.eigh(wide @ wide.T if flipped else wide.T @ wide)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    kept = _rank(values, max(error - rounding, 0.0)) if rank is None else min(rank, len(values))
    basis = vectors[:, :kept]
    up, down = (basis, basis.T @ wide) if flipped else (wide @ basis, basis.T)
    # Both sides get the square root of the singular value, so that fp16 holds small changes too.
    top = float(values[0])
    balance = values[:kept].clamp(min=top * 1e-30).pow(0.25) if top else torch.ones(kept, dtype=torch.float64)
    up, down = (up * balance, down / balance[:, None]) if flipped else (up / balance, down * balance[:, None])
    up, down = up.to(dtype).contiguous(), down.to(dtype).contiguous()
    missing = wide - up.double() @ down.double()
    most = torch.linalg.eigvalsh(missing @ missing.T if flipped else missing.T @ missing)[-1].clamp(min=0)
    spectral = float(most / top) ** 0.5 if top else 0.0
    return Factors(up, down.reshape(kept, *delta.shape[1:]), float(missing.norm()), float(wide.norm()), spectral)


def expanded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Deltas by name, those given as NAME.up and NAME.down multiplied out; KeyError where one of the two is missing."""
    whole = {name: tensor for name, tensor in tensors.items() if not name.endswith((UP, DOWN))}
    products = {name.removesuffix(end) for name in tensors for end in (UP, DOWN) if name.endswith(end)}
    check_products([(tensors[name + UP], tensors[name + DOWN]) for name in products])
    return whole | {name: product(tensors[name + UP], tensors[name + DOWN]) for name in sorted(products)}


def check_products(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """BadInput, before anything is multiplied, for factors that do not fit or whose products no model has room for."""
    whole = stored = 0
    for up, down in pairs:
        if up.ndim < 2 or down.ndim < 2 or up.flatten(1).shape[1] != len(down):
            raise BadInput(f"Its factors {tuple(up.shape)} and {tuple(down.shape)} cannot be multiplied.")
        largest = len(up) * math.prod(down.shape[1:])
        if largest > MOST_NUMBERS or not len(down):
            raise BadInput(
                f"Its factors {tuple(up.shape)} and {tuple(down.shape)} make {largest} numbers, as no layer."
            )
        whole, stored = whole + largest, stored + up.numel() + down.numel()
    if whole > MOST_GROWTH * stored:
        raise BadInput(f"Its factors hold {stored} numbers and would make {whole}, more than those of any model.")


def product(up: Tensor, down: Tensor) -> Tensor:
    """up·down in fp32 [out …], with the further axes of `down` [rank …]."""
    return (up.float() @ down.float().flatten(1)).reshape(len(up), *down.shape[1:])


def _rank(values: Tensor, error: float) -> int:
    """The smallest rank whose dropped squared singular values are at most error² of all."""
    dropped = values.flip(0).cumsum(0).flip(0)  # of keeping none, one, two …
    enough = (dropped <= error**2 * dropped[0]).nonzero()
    return max(int(enough[0]) if len(enough) else len(values), 1)
