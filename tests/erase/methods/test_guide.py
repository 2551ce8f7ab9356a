"""GUIDE: where the identity goes, and that it goes there while others stay."""

from __future__ import annotations

import pytest
import torch

from erase.concept import Concept
from erase.errors import BadInput
from erase.gan.distillation import aside, drawn_codes, layered, multiscale_l1
from erase.methods.guide import Guide, elsewhere, seeds_in
from erase.request import Request, run_method
from erase.work import drain
from tests.toys.gan import ToyGan


def test_the_other_face_lies_beyond_the_average() -> None:
    w, average = torch.tensor([[3.0, 0.0], [0.0, -2.0]]), torch.tensor([1.0, 0.0])
    torch.testing.assert_close(elsewhere(w, average, 0.0), average.expand(2, -1))
    torch.testing.assert_close(elsewhere(w, average, 2.0)[0], torch.tensor([-1.0, 0.0]))


def test_the_identity_moves_to_its_target_and_others_stay() -> None:
    gan, method = ToyGan(), Guide(seeds=("17",), steps=80, batch=8, lr=0.01, hold=1.0)
    edit = drain(run_method(method, Request(gan, [Concept(name="somebody", kind="identity")])))
    pool = drawn_codes(gan, range(500))
    usual = float((pool - pool.mean(0)).norm(dim=1).mean())
    who, others = drawn_codes(gan, [17]), drawn_codes(gan, range(100, 140))

    def drawn(w: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return gan.synthesis(layered(gan, w))

    target, before, around = drawn(elsewhere(who, pool.mean(0), 0.7 * usual)), drawn(who), drawn(others)
    with edit.applied(gan.network):
        after, others_after = drawn(who), drawn(others)
    assert float(multiscale_l1(after, target)) < 0.6 * float(multiscale_l1(before, target))
    assert float(multiscale_l1(others_after, around)) < 0.6 * float(multiscale_l1(after, before))


def test_an_identity_is_named_by_its_seeds() -> None:
    assert seeds_in("seed 17") == [17] and seeds_in("Seeds 3, 8") == [3, 8]
    with pytest.raises(BadInput, match="seed 17"):
        drain(run_method(Guide(), Request(ToyGan(), [Concept(name="eyeglasses", kind="attribute")])))


def test_what_is_left_beside_the_kept_directions() -> None:
    left = aside(torch.tensor([1.0, 2.0, 3.0]), [torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 0.0])])
    torch.testing.assert_close(left, torch.tensor([0.0, 0.0, 3.0]))
    with pytest.raises(BadInput, match="lies along"):
        aside(torch.tensor([1.0, 0.1]), [torch.tensor([2.0, 0.0])])
