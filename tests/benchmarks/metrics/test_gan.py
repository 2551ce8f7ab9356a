"""PUL, γ and drift against tables made by hand."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.metrics.gan import drift, gamma_normalised, pul, wasserstein


def labels(yes: int, of: int) -> torch.Tensor:
    return torch.arange(of) < yes


def test_pul_is_the_share_of_lost_images() -> None:
    found = pul(labels(200, 1000), labels(50, 1000))
    assert found.value == pytest.approx(0.75)
    assert found.low < 0.75 < found.high and found.high - found.low < 0.15
    assert pul(labels(200, 1000), labels(200, 1000)).value == 0
    assert pul(labels(200, 1000), labels(300, 1000)).value == pytest.approx(-0.5)
    assert math.isnan(pul(labels(49, 1000), labels(0, 1000)).value)


def test_wasserstein_of_a_shift_is_the_shift() -> None:
    torch.manual_seed(0)
    one = torch.rand(300)
    assert wasserstein(one, one) == 0
    assert wasserstein(one, one + 0.25) == pytest.approx(0.25, abs=1e-6)
    assert wasserstein(one, one.repeat(2)) == pytest.approx(0, abs=1e-9)
    # unequal sizes: the quantile functions of {0, 1} and {0, 0, 1} differ by one on [1/2, 2/3]
    assert wasserstein(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.0, 1.0])) == pytest.approx(1 / 6)


def test_gamma_counts_from_nothing_gone_to_all_gone() -> None:
    original, edited = torch.full((9,), 0.1), torch.full((9,), 0.9)
    assert gamma_normalised(edited, edited, original) == 0
    assert gamma_normalised(edited, original, original) == pytest.approx(1)
    assert gamma_normalised(edited, torch.full((9,), 0.3), original) == pytest.approx(0.75)
    assert math.isnan(gamma_normalised(original, original, original))


def test_churn_sees_what_net_change_hides() -> None:
    before = labels(300, 1000)
    swapped = before.roll(300)
    found = drift(before, swapped)
    assert found.net.value == 0 and found.churn == pytest.approx(0.6)
    gone = drift(before, labels(200, 1000))
    assert gone.net.value == pytest.approx(-0.1) and gone.net.low < -0.1 < gone.net.high
    assert (gone.before, gone.after) == (pytest.approx(0.3), pytest.approx(0.2))
