"""A number with its 95 % interval: one value type for every metric, and the ways to make an interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

Z = 1.96  # half of a normal 95 % interval, in standard errors


@dataclass(frozen=True)
class Interval:
    """A number, its 95 % interval, how many things were counted, and the name of the interval's method."""

    value: float
    low: float
    high: float
    n: int = 0
    method: str = ""


def normal(values: Tensor, method: str = "normal") -> Interval:
    """The mean of values [n] and its normal interval; both edges are NaN below two values."""
    mean, half = float(values.mean()), Z * float(values.std()) / math.sqrt(max(1, len(values)))
    return Interval(mean, mean - half, mean + half, len(values), method)
