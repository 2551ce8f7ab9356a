"""Which directions of code space are free to change, and the map that changes nothing else. Rows are codes; float64."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Rule = Literal["energy", "speed"]

ROUNDING = 1e-10  # relative to the largest eigenvalue: below it a direction is not used at all
SPEED_THRESHOLD = 0.1  # the published code's: eigenvalues of the Gram matrix below it count as unused


def gram(rows: Tensor) -> Tensor:
    """S = RᵀR / m [code code] of rows R [m code]; zero of no rows."""
    return rows.T @ rows / max(len(rows), 1)


def unused(S: Tensor, hold: float, rule: Rule = "energy") -> Tensor:
    """Q [code q], orthonormal: the directions that rows with Gram matrix S hardly use.

    `energy`: the fewest strongest eigenvectors that carry the share `hold` of the trace are used, the rest is Q.
    `speed`: all whose eigenvalue is below a fixed 0.1 are Q, as in the published code of SPEED.
    """
    values, vectors = torch.linalg.eigh(S)  # ascending
    used = values > ROUNDING * values[-1].clamp_min(0)
    if rule == "speed":
        used &= values >= SPEED_THRESHOLD
    elif hold < 1:
        # Energy of this direction and all stronger ones; the one that completes the share still counts as used.
        stronger = values.flip(0).cumsum(0).flip(0) - values
        used &= stronger < hold * values.sum()
    return vectors[:, ~used]


def outside(V: Tensor) -> Tensor:
    """B [code rest], orthonormal: the directions at right angles to every row of V [v code]."""
    _, sizes, right = torch.linalg.svd(V)
    rank = int((sizes > ROUNDING**0.5 * sizes[:1]).sum())
    return right[rank:].T


def free_share(C: Tensor, Q: Tensor, B: Tensor) -> Tensor:
    """ρ [n] = ‖Qᵀc‖² / ‖Bᵀc‖² of rows C [n code]: of what each has in B, how much lies in Q, a part of it."""
    return (C @ Q).square().sum(1) / (C @ B).square().sum(1).clamp_min(torch.finfo(C.dtype).tiny)


def held_change(C: Tensor, A: Tensor, Q: Tensor, beta: float) -> Tensor:
    """Δ [code code] = (A − C)(CᵀPC + βI)⁻¹CᵀP with P = QQᵀ: the least of ‖(I + Δ)C − A‖² + β‖Δ‖² that stays in Q.

    Rows C and their goals A are [n code]. Solved in whichever of n and q dimensions is smaller.
    """
    X = C @ Q  # what of each row may be changed, [n q]
    n, q = X.shape
    if n <= q:
        inner = torch.linalg.solve(X @ X.T + beta * torch.eye(n, dtype=X.dtype), X)
    else:
        inner = torch.linalg.solve(X.T @ X + beta * torch.eye(q, dtype=X.dtype), X.T).T
    return (A - C).T @ inner @ Q.T


def centres(resting: Tensor, count: int = 3) -> Tensor:
    """The start code and `count` cluster centres of the other codes every image reads [row code]."""
    others = resting[1:]
    if not len(others):  # a pooled space has one code for the whole empty prompt
        return resting
    middles = others[:1]
    while len(middles) < min(count, len(others)):  # begin with rows far apart, so that nothing is drawn
        middles = torch.cat([middles, others[torch.cdist(others, middles).amin(1).argmax()][None]])
    for _ in range(20):
        nearest = torch.cdist(others, middles).argmin(1)
        middles = torch.stack([others[nearest == k].mean(0) for k in range(len(middles))])
    return torch.cat([resting[:1], middles])
