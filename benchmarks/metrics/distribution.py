"""FID (through torchmetrics) and KID on any probe's features, in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from benchmarks.metrics.intervals import Interval, Z
from erase.errors import BadInput

FOLDS = 10
ROWS = 1024  # images whose kernels are held at once
BIAS = "biased upwards for few images, so compare it at the same n only; the interval is for this n"


class Given(nn.Module):
    """The feature network torchmetrics asks for, when the features [n f] have been computed already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def fid(reference: Tensor, drawn: Tensor) -> Interval:
    """The Fréchet distance of two feature sets [n f] (arXiv 1706.08500), with a 10-fold jackknife over images.

    FID is biased upwards in 1/n, so sets of different size are refused (BadInput), and the interval is that of the
    distance at this n, not of the one that infinitely many images have. Fewer than two images give NaN.
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


def kid(reference: Tensor, drawn: Tensor) -> Interval:
    """The squared MMD of two feature sets [n f] with the kernel (x·y/f + 1)³ (arXiv 1801.01401), with a jackknife.

    The one-sample U-statistic for m = n (Gretton et al. 2012, lemma 6, equation 4): row i of one set and row i of the
    other are never compared. It is unbiased also where the rows of both are drawn from the same noise, and nothing for
    equal sets; the two-sample form, which compares them, is below zero there. Fewer than four images give NaN.
    """
    reference, drawn = _paired(reference, drawn)
    n, f = drawn.shape
    if n < 4:
        return Interval(math.nan, math.nan, math.nan, n)
    rows = []  # what each image adds to the sum of h over all pairs, its own left out
    for start in range(0, n, ROWS):
        x, y = reference[start : start + ROWS], drawn[start : start + ROWS]
        h = _kernel(x, reference, f) + _kernel(y, drawn, f) - _kernel(x, drawn, f) - _kernel(y, reference, f)
        own = torch.arange(len(x))
        h[own, start + own] = 0
        rows.append(h.sum(1))
    each = torch.cat(rows)
    value = float(each.sum()) / (n * (n - 1))
    left = (each.sum() - 2 * each) / ((n - 1) * (n - 2))
    error = math.sqrt((n - 1) / n * float((left - left.mean()).square().sum()))
    return Interval(value, value - Z * error, value + Z * error, n, "jackknife-over-images")


def _kernel(x: Tensor, y: Tensor, f: int) -> Tensor:
    return (x @ y.T / f + 1) ** 3


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
