"""The closed form against its own objective, against the layer-by-layer formula, and against itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from erase.concept import Concept
from erase.edit import Edit
from erase.methods.uce import UCE, change, hold_weights
from erase.request import Request, run_method
from erase.work import drain
from tests.toys.denoiser import END, LENGTH, START, Toy, tokens


def problem(d: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return tuple(torch.randn(n, d, generator=draw, dtype=torch.float64) for n in (3, 3, 5))  # type: ignore[return-value]


def test_stationary_point_of_the_objective() -> None:
    C, A, R = problem()
    W = torch.randn(7, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    e, damping, h = 1.3, 0.4, torch.tensor([0.5, 2.0, 1.0, 0.1, 3.0], dtype=torch.float64)
    solved = (W @ (torch.eye(12, dtype=torch.float64) + change(C, A, R, e=e, h=h, damping=damping))).requires_grad_()

    def objective(V: Tensor) -> Tensor:
        moved = e * (V @ C.T - W @ A.T).square().sum()
        kept = (h * (V @ R.T - W @ R.T).square().sum(0)).sum()
        return moved + kept + damping * (V - W).square().sum()

    (gradient,) = torch.autograd.grad(objective(solved), solved)
    assert gradient.abs().max() < 1e-9
    (before,) = torch.autograd.grad(objective(start := W.clone().requires_grad_()), start)
    assert before.abs().max() > 1  # the unedited weights are no solution, so the check above can fail


def test_equals_the_layer_by_layer_formula() -> None:
    C, A, R = problem()
    W = torch.randn(7, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    h = hold_weights(0.7, 5)
    right = sum(torch.outer(c, c) for c in C) + 0.7 * sum(torch.outer(r, r) for r in R)
    right = right + 0.5 * torch.eye(12, dtype=torch.float64)
    left = sum(torch.outer(W @ a, c) for a, c in zip(A, C, strict=True))
    left = left + 0.7 * sum(torch.outer(W @ r, r) for r in R) + 0.5 * W
    ours = W + W @ change(C, A, R, e=1.0, h=h, damping=0.5)
    assert torch.allclose(ours, left @ torch.linalg.inv(right), atol=1e-9)


def test_only_ratios_matter_order_does_not_and_nothing_comes_of_nothing() -> None:
    C, A, R = problem()
    h = hold_weights(1.0, 5)
    one = change(C, A, R, e=1.0, h=h, damping=0.5)
    assert torch.allclose(one, change(C, A, R, e=7.0, h=7 * h, damping=3.5), atol=1e-12)
    assert not torch.allclose(one, change(C, A, R, e=7.0, h=h, damping=0.5), atol=1e-3)
    assert torch.allclose(one, change(C.flip(0), A.flip(0), R.flip(0), e=1.0, h=h, damping=0.5), atol=1e-12)
    assert change(C, C, R, e=1.0, h=h, damping=0.5).abs().max() == 0


def test_a_long_keep_list_holds_no_more_than_ten_rows() -> None:
    assert torch.equal(hold_weights(2.0, 10), torch.full((10,), 2.0, dtype=torch.float64))
    assert hold_weights(2.0, 1000).sum() == pytest.approx(20.0)


@pytest.mark.parametrize(("name", "pieces"), [("Cats", 1), ("Architecture", 3)])
def test_rows_of_words_of_one_and_three_tokens(toy: Toy, name: str, pieces: int) -> None:
    ids = tokens(name)
    assert ids[0] == START and ids[-1] == END and len(ids) == pieces + 2
    codes = toy.encode([name]).tokens[0]
    contrast = toy.contrast(Concept(name=name, anchor="a dog"))
    assert torch.equal(contrast.present, codes[pieces : pieces + 1])  # the last sub-token, just before the end
    tail = toy.contrast(Concept(name=name, anchor="a dog"), "tail")
    assert torch.equal(tail.present[0], codes[pieces])
    nothing = toy.contrast(Concept(name=name))
    assert torch.equal(nothing.absent, toy.encode([""]).tokens[0][1:2])  # an end row, not the start code


def test_start_code_and_empty_prompt_stay(toy: Toy, cats: Concept) -> None:
    resting = toy.resting_codes().detach().double()
    assert torch.equal(resting, toy.encode([""]).tokens[0].double()) and len(resting) == LENGTH
    name = next(iter(toy.readers()))

    def moved(rest: bool, codes: Tensor) -> float:
        edit = drain(run_method(UCE(rest=rest, hold=1e4), Request(toy, [cats])))
        return float((codes.double() @ edit.deltas[f"{name}.weight"].double().T).norm())

    with torch.no_grad():
        word = toy.contrast(cats).present
    assert moved(True, resting) < 0.05 * moved(False, resting)
    assert moved(True, word) > 10 * moved(True, resting)


def close(one: Edit, other: Edit, tolerance: float = 1e-6) -> bool:
    return all(torch.allclose(one.deltas[name], other.deltas[name], atol=tolerance) for name in one.deltas)


def test_a_joint_solve_knows_no_order_and_is_no_sum(toy: Toy, gogh: Concept, cats: Concept) -> None:
    # A word both share, so that the two erasures meet in code space.
    sketch = Concept(name="Van Dyck", kind="style", prompts=("Van Gogh portrait", "Van Dyck"))
    both = drain(run_method(UCE(), Request(toy, [gogh, sketch, cats])))
    assert close(both, drain(run_method(UCE(), Request(toy, [cats, sketch, gogh]))), 1e-7)
    alone = [drain(run_method(UCE(), Request(toy, [concept]))) for concept in (gogh, sketch, cats)]
    assert not close(both, alone[0] + alone[1] + alone[2], 1e-3)
    assert (
        drain(run_method(UCE(), Request(toy, [gogh]))).hash == alone[0].hash
    )  # undoing is solving again without it: the same bits


def test_a_kept_concept_moves_less(toy: Toy, cats: Concept) -> None:
    kept = Concept(name="Catfish")
    with torch.no_grad():
        codes = toy.contrast(kept).present.double()

    def moved(edit: Edit) -> float:
        return sum(float((codes @ delta.double().T).norm()) for delta in edit.deltas.values())

    free, held = (
        drain(run_method(UCE(), Request(toy, [cats]))),
        drain(run_method(UCE(hold=100), Request(toy, [cats], [kept]))),
    )
    assert moved(held) < 0.2 * moved(free)


def test_templates_push_more_rows(toy: Toy, gogh: Concept) -> None:
    bare = drain(run_method(UCE(rows="last", templates=False), Request(toy, [gogh])))
    inside = drain(run_method(UCE(rows="last", templates=("a {} image",)), Request(toy, [gogh])))
    assert (bare.about["rows"]["pushed"], inside.about["rows"]["pushed"]) == (1, 2)
    assert not close(bare, inside, 1e-4)


def test_the_preset_paper_is_the_published_edit(toy: Toy) -> None:
    """Equation 7 of arXiv 2308.14761 on single rows: one of each prompt, nothing else held than what is kept."""
    concept, kept = Concept(name="Architecture", anchor="a dog"), Concept(name="Cats")
    edit = drain(run_method(UCE(**UCE.presets["paper"]), Request(toy, [concept], [kept])))
    with torch.no_grad():
        c, a, k = (
            toy.encode([text]).tokens[0][len(tokens(text)) - 2].double() for text in ("Architecture", "a dog", "Cats")
        )
    eye = 0.5 * torch.eye(len(c), dtype=torch.float64)
    for name, layer in toy.readers().items():
        W = layer.weight.detach().double()
        left = torch.outer(W @ a, c) + torch.outer(W @ k, k) + W @ eye
        published = left @ torch.linalg.inv(torch.outer(c, c) + torch.outer(k, k) + eye) - W
        assert torch.allclose(edit.deltas[f"{name}.weight"].double(), published, atol=1e-6)
        assert published.abs().max() > 1e-3
    assert edit.about["rows"]["resting"] == 0
