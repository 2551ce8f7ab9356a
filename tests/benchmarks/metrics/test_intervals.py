"""The interval of a mean."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.metrics.intervals import normal


def test_the_interval_of_a_mean_is_196_standard_errors_to_either_side() -> None:
    found = normal(torch.tensor([1.0, 2.0, 4.0, 5.0]).double())
    error = math.sqrt((4 + 1 + 1 + 4) / 3 / 4)  # squares about the mean of 3, of four values one of which is bound
    assert (found.value, found.n) == (3.0, 4)
    assert (found.low, found.high) == pytest.approx((3 - 1.96 * error, 3 + 1.96 * error))


def test_one_value_has_no_interval() -> None:
    found = normal(torch.tensor([2.0]))
    assert found.value == 2.0 and math.isnan(found.low) and math.isnan(found.high)
