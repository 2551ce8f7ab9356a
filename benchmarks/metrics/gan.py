"""What is measured of an unlearnt GAN: rates on fixed codes, distances of scores, drift. Pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.metrics.intervals import Interval, normal

FEWEST = 50  # images with the concept below which a share of them says little
BOOTSTRAPS = 1000


def pul(before: Tensor, after: Tensor) -> Interval:
    """(N_before − N_after) / N_before of the same z [n]: bool whether each image shows the concept; NaN below FEWEST.

    The interval is a bootstrap over z. Negative where more images show it than before.
    """
    if int(before.sum()) < FEWEST:
        return Interval(math.nan, math.nan, math.nan, int(before.sum()))
    both = torch.stack([before, after]).double()

    def share(counts: Tensor) -> Tensor:
        return 1 - counts[1] / counts[0].clamp(min=1)

    rng = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(before), (BOOTSTRAPS, len(before)), generator=rng)
    spread = share(both[:, drawn].sum(2)).sort().values
    low, high = (float(spread[round(q * (BOOTSTRAPS - 1))]) for q in (0.025, 0.975))
    value = float(share(both.sum(1)))
    return Interval(value, min(low, value), max(high, value), int(before.sum()), "bootstrap-over-codes")


def wasserstein(one: Tensor, other: Tensor) -> float:
    """The Wasserstein-1 distance of two sets of numbers, of any sizes."""
    one, other = one.double().sort().values, other.double().sort().values
    edges = torch.cat([torch.arange(1, len(row) + 1).double() / len(row) for row in (one, other)]).sort().values
    widths = edges.diff(prepend=torch.zeros(1, dtype=torch.float64))
    middles = edges - widths / 2
    at = [row[(middles * len(row)).long().clamp(max=len(row) - 1)] for row in (one, other)]
    return float(((at[0] - at[1]).abs() * widths).sum())


def gamma_normalised(edited_before: Tensor, edited_after: Tensor, original: Tensor) -> float:
    """How much of what an edit adds to the score [n] is gone: 0 nothing, 1 back to the unedited images; NaN if nothing
    was added."""
    added = float(edited_before.double().mean() - original.double().mean())
    if added < 0.1:
        return math.nan
    return float(edited_before.double().mean() - edited_after.double().mean()) / added


@dataclass(frozen=True)
class Drift:
    """How a label changed on the same z: net change of its rate with an interval, and the share of z that flipped."""

    net: Interval
    churn: float
    before: float
    after: float


def drift(before: Tensor, after: Tensor) -> Drift:
    """Of labels [n], bool."""
    change = after.double() - before.double()
    return Drift(
        normal(change),
        float((before != after).double().mean()), float(before.double().mean()), float(after.double().mean()),
    )  # fmt: skip
