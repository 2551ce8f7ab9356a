"""SalUn: weights are ranked by the gradient of forgetting, and only the masked ones ever move."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from erase.borrow import borrowed, substituted
from erase.concept import Concept
from erase.methods.salun import SalUn, forgetting
from erase.model import Codes
from erase.request import Request, run_method
from erase.training.deltas import DeltaOptimizer
from erase.training.noised_images import Course, TrainingBatch, prepare
from erase.training.slices import select
from erase.training.surgery import salient
from erase.work import Step, drain
from tests.erase.methods.slopes import assert_same_slopes, overheard, slopes, strayed
from tests.toys.denoiser import Toy

QUICK: dict[str, Any] = {"epochs": 2, "batch": 2, "seeds": 4, "steps": 3, "keep_seeds": 2, "lr": 1e-3}


def ranked(toy: Toy, method: SalUn, concept: Concept) -> dict[str, Tensor]:
    """The sums of gradients a run has ranked weights by, from its state."""
    last: dict[str, Tensor] = {}

    def note(step: Step) -> None:
        if step.stage == "rank" and step.state is not None:
            last.update(step.state())

    drain(run_method(method, Request(toy, [concept])), note)
    prefix = "teach.saliency."
    return {name.removeprefix(prefix): value for name, value in last.items() if name.startswith(prefix)}


def course(toy: Toy, method: SalUn, concept: Concept) -> Course:
    pictures = method._pictures(Request(None, [concept], [], 0))
    return drain(prepare(toy, method, pictures, {}, 0, {}))


def test_weights_outside_the_mask_keep_every_bit(toy: Toy, gogh: Concept) -> None:
    method = SalUn(**QUICK, share=0.3)
    sums = ranked(toy, method, gogh)
    mask = salient({name: total.abs() for name, total in sums.items()}, 0.3)
    edit = drain(run_method(method, Request(toy, [gogh])))
    assert set(edit.deltas) == set(mask)
    assert all(not bool(delta[~mask[name]].any()) for name, delta in edit.deltas.items())
    inside = torch.cat([delta[mask[name]] for name, delta in edit.deltas.items()])
    assert float((inside != 0).float().mean()) > 0.9


def test_the_extreme_shares_are_everything_and_nothing(
    toy: Toy, gogh: Concept, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not any(
        bool(delta.any())
        for delta in drain(run_method(SalUn(**QUICK, share=0.0), Request(toy, [gogh]))).deltas.values()
    )
    whole = drain(run_method(SalUn(**QUICK, share=1.0), Request(toy, [gogh])))
    half = drain(run_method(SalUn(**QUICK, share=0.5), Request(toy, [gogh])))
    monkeypatch.setattr("erase.methods.salun.salient", lambda scores, share: None)
    unmasked = drain(run_method(SalUn(**QUICK, share=1.0), Request(toy, [gogh])))
    assert all(torch.equal(whole.deltas[name], unmasked.deltas[name]) for name in whole.deltas)
    assert not all(torch.equal(half.deltas[name], unmasked.deltas[name]) for name in whole.deltas)


def test_scores_are_the_gradient_of_the_guided_error_over_one_epoch(toy: Toy, gogh: Concept) -> None:
    method = SalUn(**QUICK)
    sums, prepared = ranked(toy, method, gogh), course(toy, method, gogh)
    masters = DeltaOptimizer(toy.network, select(toy.network, "cross"), 1e-3)
    bank = replace(prepared.banks["erase"], label="saliency")
    expected = {name: torch.zeros_like(delta) for name, delta in masters.deltas.items()}
    seen: list[str] = []
    for step in range(len(bank.pictures) // 2):
        lessons = bank.lessons(step, toy)
        seen += [repr(picture.shot) for picture in lessons.pictures]
        with borrowed(toy.network, train=False), substituted(toy.network, masters.weights()):
            present = toy.predict(lessons.z, lessons.t, toy.encode([p.told for p in lessons.pictures]))
            absent = toy.predict(lessons.z, lessons.t, toy.encode(["", ""]))
            loss = -(lessons.noise - (8.5 * present - 7.5 * absent)).square().mean()
            for name, part in masters.gradients(loss).items():
                expected[name] += part
    assert sorted(seen) == sorted(repr(picture.shot) for picture in bank.pictures)  # each picture once
    for name, total in sums.items():
        assert torch.allclose(total, expected[name], atol=1e-4 * float(expected[name].abs().max()))


def test_the_branch_without_a_prompt_is_without_it(toy: Toy, gogh: Concept) -> None:
    prepared = course(toy, SalUn(**QUICK), gogh)
    lessons = prepared.banks["erase"].lessons(0, toy)
    asked: list[Codes] = []

    class Listener(Toy):
        def predict(self, z: Tensor, t: Tensor, codes: Codes) -> Tensor:
            asked.append(codes)
            assert torch.equal(z[: len(z) // 2], z[len(z) // 2 :]) and torch.equal(t[: len(t) // 2], t[len(t) // 2 :])
            return super().predict(z, t, codes)

    with torch.no_grad():
        forgetting(Listener(), lessons, prepared.phrases, 7.5)
        told, rest = asked[0].tokens.chunk(2)
        assert torch.equal(told, toy.encode([picture.told for picture in lessons.pictures]).tokens)
        assert torch.equal(rest, toy.encode(["", ""]).tokens)
        assert not torch.allclose(told, rest)


def test_student_and_teacher_share_the_place_and_the_picture_is_the_concept_s(toy: Toy, gogh: Concept) -> None:
    method = SalUn(**{**QUICK, "lr": 1e-12})
    prepared = course(toy, method, gogh)
    lessons: TrainingBatch = prepared.banks["erase"].lessons(0, toy)
    assert all(picture.shot.prompt == picture.told != picture.instead for picture in lessons.pictures)
    with torch.no_grad():
        student = toy.predict(lessons.z, lessons.t, toy.encode([p.told for p in lessons.pictures]))
        teacher = toy.predict(lessons.z, lessons.t, toy.encode([p.instead for p in lessons.pictures]))
    seen: list[float] = []
    drain(
        run_method(method, Request(toy, [gogh])),
        lambda step: seen.append(step.loss["erase"]) if step.stage == "tune" else None,
    )
    assert seen[0] == pytest.approx(float((student - teacher).square().mean()), rel=0.02)  # fp16 storage


@pytest.mark.parametrize("retain", [0.5, 2.0])
def test_a_masked_step_follows_the_anchor_and_the_weighted_retain_loss(toy: Toy, gogh: Concept, retain: float) -> None:
    method = SalUn(**QUICK, retain=retain, teacher="self", templates=False)
    pictures = method._pictures(Request(None, [gogh], [Concept(name="Dogs")], 0))
    prepared = drain(prepare(toy, method, pictures, {}, 0, {}))
    masters = DeltaOptimizer(toy.network, select(toy.network, "cross"), 1e-3)
    strayed(masters, toy.network)
    seen, names = overheard(masters), list(masters.deltas)
    erase, kept = (prepared.banks[name].lessons(1, toy) for name in ("erase", "retain"))
    told = toy.predict(erase.z, erase.t, toy.encode(["Van Gogh"] * 2))
    with torch.no_grad():
        anchor = toy.predict(erase.z, erase.t, toy.encode(["painting"] * 2))
    shown = [picture.shot.prompt for picture in kept.pictures]
    assert set(shown) == {"painting", "Dogs"}
    own = (toy.predict(kept.z, kept.t, toy.encode(shown)) - kept.noise).square().mean()
    expected = slopes(toy.network, names, (told - anchor).square().mean() + retain * own)
    mask = {name: torch.ones_like(delta, dtype=torch.bool) for name, delta in masters.deltas.items()}
    mask[names[0]][:] = False
    method._one(toy, masters, prepared, mask, 1)
    assert_same_slopes(seen, {**expected, names[0]: torch.zeros_like(expected[names[0]])})


def test_the_trained_weights_are_the_most_salient(toy: Toy, gogh: Concept) -> None:
    method = SalUn(**QUICK, share=0.3)
    sums = ranked(toy, method, gogh)
    moved = {name: delta != 0 for name, delta in drain(run_method(method, Request(toy, [gogh]))).deltas.items()}
    inside = torch.cat([sums[name].abs()[where] for name, where in moved.items()])
    outside = torch.cat([sums[name].abs()[~where] for name, where in moved.items()])
    assert 0.25 < len(inside) / (len(inside) + len(outside)) <= 0.3
    assert float(inside.min()) >= float(outside.quantile(0.95))


def test_tuning_lowers_its_own_loss_through_the_mask(toy: Toy, gogh: Concept) -> None:
    seen: list[float] = []
    method = SalUn(**{**QUICK, "epochs": 15, "batch": 4, "lr": 1e-2, "slice": "full", "retain": 0.0})
    drain(
        run_method(method, Request(toy, [gogh])),
        lambda step: seen.append(step.loss["erase"]) if step.stage == "tune" else None,
    )
    assert sum(seen[-5:]) < 0.5 * sum(seen[:5])


@pytest.mark.parametrize("teacher", ["base", "self"])
def test_the_stated_cost_is_the_counted_cost(toy: Toy, cats: Concept, gogh: Concept, teacher: str) -> None:
    counted = 0

    def count(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        nonlocal counted
        counted += len(args[0])

    hook = toy.network["unet"].register_forward_pre_hook(count)
    for knobs, keep in (({}, []), ({"retain": 0.0}, [gogh])):
        counted = 0
        edit = drain(run_method(SalUn(**QUICK, teacher=teacher, **knobs), Request(toy, [cats], keep)))  # type: ignore[arg-type]
        assert counted == edit.about["cost"]["teach_forwards"] + edit.about["cost"]["tune_forwards"], knobs
    hook.remove()
