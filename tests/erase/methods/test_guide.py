"""GUIDE: where the identity goes, and that it goes there while others stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from erase.concept import Concept
from erase.errors import BadInput
from erase.gan.distillation import aside, drawn_codes, layered, multiscale_l1, students
from erase.methods import guide
from erase.methods.guide import Guide, _People, elsewhere, seeds_in
from erase.request import Request, run_method
from erase.rng import stream
from erase.training.deltas import DeltaOptimizer
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


def test_neighbours_move_as_the_identity_does_and_others_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    gan, told = ToyGan(), {}

    def learning(model: ToyGan, masters: DeltaOptimizer, work: Callable[[], Mapping[str, Tensor]]) -> dict[str, float]:
        with torch.no_grad():
            told.update(work())  # of a student that is still the teacher
        return {}

    def teaching(model: ToyGan, ws: Tensor) -> Tensor:
        told["target"] = ws[:, 0]
        with torch.no_grad():
            return gan.synthesis(ws) + 0.1  # so that others are not drawn exactly as they should be

    monkeypatch.setattr(guide, "learning", learning)
    monkeypatch.setattr(guide, "teaching", teaching)
    who, w = drawn_codes(gan, [17]), drawn_codes(gan, range(200))
    method = Guide(batch=16, beyond=0.6, near=0.4, hold=2.5)
    method._one(gan, students(gan, "synthesis", 1e-3), _People(who, w, w[:0], 1.3), 0, 2)

    rng = stream(0, "batch", 2)
    torch.randint(1, (8,), generator=rng)
    others = w[torch.randint(len(w), (8,), generator=rng)]
    step = 0.4 * 1.3 * torch.rand(8, 1, generator=rng) * F.normalize(others - who, dim=1)
    step[:2] = 0
    away = F.normalize(who - w.mean(0), dim=1)
    target = torch.cat([w.mean(0) - 0.6 * 1.3 * away + step, others])
    torch.testing.assert_close(told["target"], target)
    with torch.no_grad():
        drawn, wanted = (gan.synthesis(layered(gan, codes)) for codes in (torch.cat([who + step, others]), target))
    torch.testing.assert_close(told["erase"], multiscale_l1(drawn[:8], wanted[:8] + 0.1))
    torch.testing.assert_close(told["hold"], torch.tensor(2.5 * 0.1))


def test_an_identity_is_named_by_its_seeds() -> None:
    assert seeds_in("seed 17") == [17] and seeds_in("Seeds 3, 8") == [3, 8]
    with pytest.raises(BadInput, match="seed 17"):
        drain(run_method(Guide(), Request(ToyGan(), [Concept(name="eyeglasses", kind="attribute")])))


def test_what_is_left_beside_the_kept_directions() -> None:
    left = aside(torch.tensor([1.0, 2.0, 3.0]), [torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 0.0])])
    torch.testing.assert_close(left, torch.tensor([0.0, 0.0, 3.0]))
    with pytest.raises(BadInput, match="lies along"):
        aside(torch.tensor([1.0, 0.1]), [torch.tensor([2.0, 0.0])])
