"""FID and KID against other formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from benchmarks.metrics.distribution import fid, kid
from erase.errors import BadInput


def features(n: int, d: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    mixed = torch.Generator().manual_seed(seed)
    return (
        torch.randn(n, d, generator=mixed, dtype=torch.float64) @ torch.diag(torch.linspace(0.5, scale, d).double())
        + shift
    )


def by_scipy(one: Tensor, other: Tensor) -> float:
    a, b = one.numpy(), other.numpy()
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s + t - 2 * np.real(sqrtm(s @ t))))


def exact(mean: Tensor, covariance: Tensor, n: int) -> Tensor:
    """n points whose sample mean and covariance are exactly these."""
    drawn = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    drawn = drawn - drawn.mean(0)
    white = drawn @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(drawn.T))).T
    return white @ torch.linalg.cholesky(covariance).T + mean


def test_fid_is_the_closed_form_of_two_gaussians() -> None:
    # Diagonal covariances commute: |μ|² + Σ (√a − √b)².
    a, b = torch.tensor([1.0, 4.0, 9.0]).double(), torch.tensor([4.0, 1.0, 16.0]).double()
    mean = torch.tensor([3.0, 0.0, -1.0]).double()
    found = fid(exact(torch.zeros(3).double(), a.diag(), 50), exact(mean, b.diag(), 50)).value
    assert found == pytest.approx(10.0 + float((a.sqrt() - b.sqrt()).square().sum()), rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(200, 16), (400, 64)])
def test_fid_agrees_with_scipy(n: int, d: int) -> None:
    one, other = features(n, d, 0), features(n, d, 1, shift=0.3, scale=2.0)
    assert fid(one, other).value == pytest.approx(by_scipy(one, other), rel=1e-6)


def test_fid_of_equal_sets_is_nothing_and_of_others_is_symmetric() -> None:
    one, other = features(120, 32, 0), features(120, 32, 1, scale=1.5)
    assert fid(one, one.clone()).value == pytest.approx(0.0, abs=1e-6)
    assert fid(one, other).value == pytest.approx(fid(other, one).value, rel=1e-9)
    assert fid(one, other).value > 0.1


@pytest.mark.parametrize("n", [60, 200])
def test_fid_of_equal_sets_is_nothing_with_fewer_images_than_features(n: int) -> None:
    one = torch.rand(n, 160, generator=torch.Generator().manual_seed(0)).double()
    assert fid(one, one.clone()).value == pytest.approx(0.0, abs=1e-6)


def test_a_constant_added_to_every_feature_adds_its_square() -> None:
    one = features(150, 24, 2)
    assert fid(one, one + 0.7).value == pytest.approx(24 * 0.7**2, abs=1e-6)


def test_fid_does_not_mind_features_far_from_zero() -> None:
    one, other = features(200, 16, 0), features(200, 16, 1, scale=2.0)
    assert fid(one + 1000, other + 1000).value == pytest.approx(fid(one, other).value, rel=1e-6)


def test_the_interval_holds_the_value_and_shrinks_with_n() -> None:
    few = fid(features(40, 8, 0), features(40, 8, 1, scale=2.0))
    many = fid(features(2000, 8, 0), features(2000, 8, 1, scale=2.0))
    assert few.low <= few.value <= few.high
    assert few.method == "jackknife-over-images"
    assert many.high - many.low < (few.high - few.low) / 2


def test_sets_of_different_size_are_refused() -> None:
    for distance in (fid, kid):
        with pytest.raises(BadInput, match="40 reference images against 39"):
            distance(features(40, 8, 0), features(39, 8, 1))


def test_kid_is_unbiased_and_sees_a_difference() -> None:
    halves = [kid(features(60, 8, seed), features(60, 8, seed + 1000), subsets=20).value for seed in range(40)]
    mean, error = np.mean(halves), np.std(halves) / np.sqrt(len(halves))
    assert abs(mean) < 3 * error
    apart = kid(features(60, 8, 0), features(60, 8, 1, shift=0.5))
    assert apart.value > 10 * error
    assert apart.low < apart.value < apart.high


def test_kid_is_the_formula_when_the_subset_is_everything_twice() -> None:
    one, other = features(6, 3, 0), features(6, 3, 1, shift=0.4)

    def kernel(x: Tensor, y: Tensor) -> float:
        return (float(x @ y) / 3 + 1) ** 3

    def unbiased(a: Tensor, b: Tensor) -> float:
        m = len(a)
        within = sum(kernel(s[i], s[j]) for s in (a, b) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
        return within - 2 * sum(kernel(x, y) for x in a for y in b) / m**2

    doubled = torch.cat([one, one]), torch.cat([other, other])
    # With every image twice and many subsets of 6 of 12, the mean over them approaches the mean over all.
    found = kid(*doubled, subsets=4000, size=6).value
    draw = torch.Generator().manual_seed(3)
    picks = [torch.randperm(12, generator=draw)[:6] for _ in range(8000)]
    expected = np.mean([unbiased(doubled[0][p], doubled[1][q]) for p, q in zip(picks[::8], picks[1::8], strict=True)])
    assert found == pytest.approx(expected, abs=0.15 * abs(expected))


def test_kid_repeats_and_leaves_the_global_generator_alone() -> None:
    one, other = features(60, 8, 0), features(60, 8, 1)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first = kid(one, other)
    assert torch.equal(torch.rand(1), expected)
    assert kid(one, other) == first
    assert kid(one, other, seed=1) != first


def test_too_few_images_are_unscored() -> None:
    assert np.isnan(fid(features(1, 4, 0), features(1, 4, 1)).value)
    assert np.isnan(kid(features(3, 4, 0), features(3, 4, 1)).value)
