"""Surgery on gradients: what is left does not undo what is retained; masks rank the whole slice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from erase.training.surgery import project, salient, steer


def gradients(seed: int, tensors: int = 32, size: float = 1.0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    made = {f"layer{number}": torch.randn(5, 7, generator=draw, dtype=torch.float64) for number in range(tensors)}
    whole = torch.cat([part.flatten() for part in made.values()]).norm()
    return {name: part * size / whole for name, part in made.items()}


def inner(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, float]:
    return {name: float((part * other[name]).sum()) for name, part in one.items()}


def test_projection_leaves_no_conflict_in_any_tensor() -> None:
    g, r = gradients(0), gradients(1)
    before, left, half = inner(g, r), project(g, r, 1.0), project(g, r, 0.5)
    conflicts = [name for name, product in before.items() if product < 0]
    assert 0 < len(conflicts) < len(g)
    for name in g:
        if name in conflicts:
            scale = float(g[name].norm() * r[name].norm())
            assert abs(inner(left, r)[name]) <= 1e-10 * scale
            assert inner(half, r)[name] == pytest.approx(before[name] / 2, abs=1e-12 * scale)
            assert not torch.equal(left[name], g[name])
        else:
            assert left[name] is g[name]  # in bits: what does not conflict is not touched
    assert sum(before.values()) < sum(inner(left, r).values())
    assert sum(inner(left, r).values()) >= 0  # hence the whole vector does not conflict either


def test_projection_in_the_network_s_precision_and_beside_no_gradient() -> None:
    g, r = ({name: part.float() for name, part in gradients(seed, 4, 1e-6).items()} for seed in (0, 1))
    left = project(g, r, 1.0)
    for name, product in inner(g, r).items():
        rounding = 1e-6 * float(g[name].norm() * r[name].norm())
        assert inner(left, r)[name] >= -rounding
        assert product >= -rounding or inner(left, r)[name] <= rounding
    nothing = {name: torch.zeros_like(part) for name, part in g.items()}
    assert all(left[name].isfinite().all() for name in left)
    assert all(torch.equal(project(g, nothing, 1.0)[name], g[name]) for name in g)
    assert all(torch.equal(steer(g, nothing, 1.0)[name], g[name]) for name in g)


@pytest.mark.parametrize("size", [3.0, 0.5])
def test_the_later_release_pushes_towards_relearning(size: float) -> None:
    strength = 1.0
    g, r = gradients(0, size=size), gradients(1, size=0.4)
    steered = steer(g, r, strength)
    cut = {name: part / max(size, 1.0) for name, part in g.items()}  # the clip to norm 1; r is below it
    seen = 0
    for name, product in inner(cut, r).items():
        if product >= 0:
            assert torch.allclose(steered[name], cut[name], atol=1e-15)
            continue
        seen += 1
        own, kept = cut[name].norm(), r[name].norm()
        expected = -product / (own * kept) * kept * (strength - own)
        assert inner(steered, r)[name] == pytest.approx(float(expected), abs=1e-12)
        assert inner(steered, r)[name] > 1e-4 * float(kept)  # a push, where exact projection leaves nothing
    assert seen > 5


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999, 1.0])
def test_the_mask_ranks_the_whole_slice(share: float) -> None:
    draw = torch.Generator().manual_seed(3)
    # Of different scales, so that ranking each tensor by itself would choose others.
    scores = {name: torch.rand(shape, generator=draw) * scale for name, shape, scale in
              (("a", (4, 5), 1.0), ("b", (3, 3, 3), 10.0), ("c", (7,), 0.1))}  # fmt: skip
    mask = salient(scores, share)
    total = sum(score.numel() for score in scores.values())
    assert all(mask[name].shape == scores[name].shape and mask[name].dtype == torch.bool for name in scores)
    assert sum(int(part.sum()) for part in mask.values()) == int(share * total)
    chosen = torch.cat([scores[name][mask[name]] for name in scores])
    others = torch.cat([scores[name][~mask[name]] for name in scores])
    assert not len(chosen) or not len(others) or chosen.min() >= others.max()
    if share == 0.5:
        assert len({float(part.float().mean()) for part in mask.values()}) == 3
    scaled = salient({name: score * 1e-6 for name, score in scores.items()}, share)
    assert all(torch.equal(scaled[name], mask[name]) for name in mask)


def test_equal_scores_are_ranked_by_position() -> None:
    mask = salient({"a": torch.tensor([1.0, 2.0, 1.0]), "b": torch.tensor([1.0, 1.0, 0.0])}, 0.5)
    assert mask["a"].tolist() == [True, True, True] and not mask["b"].any()
