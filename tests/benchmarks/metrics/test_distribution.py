"""FID and KID against other formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from benchmarks.metrics.distribution import fid, kid
from benchmarks.metrics.intervals import Interval
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


def trials(d: int, shift: float, count: int = 200, n: int = 60) -> list[Interval]:
    """KID of independent pairs of sets, whose rows are drawn from partly the same noise as before and after are."""
    found = []
    for seed in range(count):
        shared = features(n, d, 3 * seed)
        one, other = (shared + 0.3 * features(n, d, 3 * seed + side) for side in (1, 2))
        found.append(kid(one, other + shift))
    return found


def test_kid_is_unbiased_also_where_both_sides_share_their_noise() -> None:
    values = np.array([found.value for found in trials(8, 0.0)])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(len(values))


def test_kid_of_a_model_with_itself_is_nothing() -> None:
    one = features(60, 8, 0)
    same = kid(one, one.clone())
    assert (same.value, same.low, same.high) == pytest.approx((0, 0, 0), abs=1e-12)


def test_the_interval_of_kid_covers_the_true_distance() -> None:
    n, d, shift = 20_000, 8, 0.25
    one, other = (features(n, d, 10_000 + side) + 0.3 * features(n, d, 20_000 + side) for side in (0, 1))
    true = kid(one, other + shift)
    assert true.low > 0
    covering = [found.low <= true.value <= found.high for found in trials(d, shift)]
    assert np.mean(covering) >= 0.9


def test_kid_is_the_u_statistic_and_knows_no_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = features(6, 3, 0), features(6, 3, 1, shift=0.4)

    def kernel(x: Tensor, y: Tensor) -> float:
        return (float(x @ y) / 3 + 1) ** 3

    def statistic(a: Tensor, b: Tensor) -> float:
        pairs = [(i, j) for i in range(len(a)) for j in range(len(a)) if i != j]
        return float(np.mean([kernel(a[i], a[j]) + kernel(b[i], b[j]) - 2 * kernel(a[i], b[j]) for i, j in pairs]))

    left = [statistic(*(torch.cat([s[:i], s[i + 1 :]]) for s in (one, other))) for i in range(6)]
    error = np.sqrt(5 / 6 * np.sum(np.square(left - np.mean(left))))
    for block in (1024, 4):
        monkeypatch.setattr("benchmarks.metrics.distribution.ROWS", block)
        found = kid(one, other)
        assert found.value == pytest.approx(statistic(one, other), rel=1e-12)
        assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=1e-9)


def test_the_jackknife_of_fid_is_the_textbooks() -> None:
    """Delete-a-group: (k - 1) / k times the sum of squares (Shao and Tu 1995, equation 2.13)."""
    one, other = features(40, 3, 0), features(40, 3, 1, scale=2.0)
    fold = torch.randperm(40, generator=torch.Generator().manual_seed(0)) % 10
    left = [by_scipy(one[fold != k], other[fold != k]) for k in range(10)]
    error = np.sqrt(9 / 10 * np.sum(np.square(left - np.mean(left))))
    found = fid(one, other)
    assert found.high - found.value == pytest.approx(1.96 * error, rel=1e-6)


def test_too_few_images_are_unscored() -> None:
    assert np.isnan(fid(features(1, 4, 0), features(1, 4, 1)).value)
    assert np.isnan(kid(features(3, 4, 0), features(3, 4, 1)).value)
