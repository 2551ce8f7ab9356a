"""FID and KID through torchmetrics on any probe's features, in float64."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from benchmarks.metrics.intervals import Interval, Z
from erase.errors import BadInput

FOLDS = 10


class Given(nn.Module):
    """The feature network torchmetrics asks for, when the features [n f] have been computed already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def fid(reference: Tensor, drawn: Tensor) -> Interval:
    """The Fréchet distance of two feature sets [n f] (arXiv 1706.08500), with a 10-fold jackknife over images.

    FID is biased in n, so sets of different size are refused (BadInput); fewer than two images give NaN.
    """
    reference, drawn = _paired(reference, drawn)
    n = len(drawn)
    if n < 2:
        return Interval(math.nan, math.nan, math.nan, n)
    value = _fid(reference, drawn)
    if n < 2 * FOLDS:
        return Interval(value, math.nan, math.nan, n)
    # Shuffled, because images come sorted: a fold must not be one object.
    fold = torch.randperm(n, generator=torch.Generator().manual_seed(0)) % FOLDS
    left = torch.tensor([_fid(reference[fold != k], drawn[fold != k]) for k in range(FOLDS)], dtype=torch.float64)
    error = math.sqrt((FOLDS - 1) / FOLDS * float((left - left.mean()).square().sum()))
    return Interval(value, max(0.0, value - Z * error), value + Z * error, n, "jackknife-over-images")


def kid(reference: Tensor, drawn: Tensor, *, subsets: int = 100, size: int = 100, seed: int = 0) -> Interval:
    """The unbiased squared MMD of two feature sets [n f], kernel (x·y/f + 1)³ (arXiv 1801.01401): mean ± sd of subsets.

    `size` is the images per subset, at most half of those there are, so that subsets differ.
    """
    reference, drawn = _paired(reference, drawn)
    n = len(drawn)
    if n < 4:
        return Interval(math.nan, math.nan, math.nan, n)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        # The warning says that all features are kept, which is what they are for here.
        warnings.simplefilter("ignore", UserWarning)
        metric = KernelInceptionDistance(
            Given(reference.shape[1]), subsets=subsets, subset_size=min(size, n // 2), sync_on_compute=False
        )
        # The metric draws its subsets from the CPU's own generator; torch.manual_seed would reseed CUDA as well.
        torch.default_generator.manual_seed(seed)
        metric.update(reference, real=True)
        metric.update(drawn, real=False)
        mean, sd = (float(part) for part in metric.compute())
    return Interval(mean, mean - sd, mean + sd, n, "subset-sd")


def _paired(reference: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    if len(reference) != len(drawn):
        raise BadInput(
            f"{len(reference)} reference images against {len(drawn)} drawn ones: these distances depend on n, "
            "so both sides need the same number; give as many on the other side."
        )
    return reference.double().cpu(), drawn.double().cpu()


def _fid(reference: Tensor, drawn: Tensor) -> float:
    # A common shift changes no distance between the sets, and without it the metric's running sums cancel badly.
    middle = reference.mean(0)
    # Of several processes each has all images; a metric that collects them from the others would count them twice.
    metric = FrechetInceptionDistance(Given(reference.shape[1]), sync_on_compute=False).set_dtype(torch.float64)
    metric.update(reference - middle, real=True)
    metric.update(drawn - middle, real=False)
    # Rounding can leave a distance of nothing a hair below zero.
    return max(0.0, float(metric.compute()))
