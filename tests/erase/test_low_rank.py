"""Weight changes as thin products: the smallest rank within an error, and errors that are what they say."""

from __future__ import annotations

import pytest
import torch

from erase.errors import BadInput
from erase.low_rank import expanded, factored, product


def some_delta(out: int, width: int, rank: int) -> torch.Tensor:
    randomness = torch.Generator().manual_seed(out + width)
    return torch.randn(out, rank, generator=randomness) @ torch.randn(rank, width, generator=randomness)


@pytest.mark.parametrize(("out", "width"), [(20, 50), (50, 20), (24, 24)])
def test_a_low_rank_change_is_found_exactly(out, width):
    delta = some_delta(out, width, 3)
    thin = factored(delta, error=1e-3)
    assert thin.rank == 3
    assert thin.up.shape == (out, 3)
    assert thin.down.shape == (3, width)
    assert torch.allclose(product(thin.up, thin.down), delta, atol=1e-5)


@pytest.mark.parametrize("flipped", [False, True])
def test_rank_and_errors_are_those_of_the_singular_values(flipped):
    delta = some_delta(30, 18, 18)
    delta = delta.T if flipped else delta
    values = torch.linalg.svdvals(delta.double())
    for error in (0.5, 0.1, 0.02):
        thin = factored(delta, error=error)
        missing = values[thin.rank :].norm() / values.norm()
        assert missing <= error
        assert values[thin.rank - 1 :].norm() / values.norm() > error - 1e-6
        assert thin.residual / thin.norm == pytest.approx(float(missing), rel=1e-4)
        assert thin.spectral == pytest.approx(float(values[thin.rank] / values[0]), rel=1e-4)


def test_errors_count_the_rounding_of_what_is_stored():
    delta = 1e-7 * some_delta(30, 18, 2)  # small enough to drown in fp16 if one factor carried all of it
    thin = factored(delta, error=0.01, dtype=torch.float16)
    found = (delta - product(thin.up, thin.down)).norm() / delta.norm()
    assert 1e-5 < found < 0.002
    assert thin.residual / thin.norm == pytest.approx(float(found), rel=1e-2)
    with pytest.raises(BadInput, match="finer than torch.float16"):
        factored(delta, error=1e-4, dtype=torch.float16)


def test_convolutions_zeros_and_padding():
    delta = some_delta(8, 6 * 9, 2).reshape(8, 6, 3, 3)
    thin = factored(delta, rank=2).padded(5)
    assert thin.down.shape == (5, 6, 3, 3)
    assert torch.allclose(product(thin.up, thin.down), delta, atol=1e-5)
    nothing = factored(torch.zeros(4, 7), error=0.1)
    assert nothing.rank == 1
    assert not product(nothing.up, nothing.down).any()
    assert nothing.spectral == 0


def test_files_may_mix_products_and_whole_tensors():
    thin, bias = factored(some_delta(5, 4, 1), rank=1), torch.ones(3)
    found = expanded({"a.up": thin.up, "a.down": thin.down, "b": bias})
    assert found.keys() == {"a", "b"}
    assert torch.allclose(found["a"], some_delta(5, 4, 1), atol=1e-6)
    with pytest.raises(KeyError):
        expanded({"a.up": thin.up})
