"""Concept Ablation: captions in pairs, a teacher that stands still, and anchors that need protection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from erase.borrow import borrowed, substituted
from erase.concept import Concept
from erase.methods.ablate import Ablation, needs_prior
from erase.model import Shot
from erase.request import Request, run_method
from erase.training.deltas import DeltaOptimizer, NoiseTarget, errors
from erase.training.noised_images import prepare
from erase.training.slices import select
from erase.work import Step, drain
from tests.erase.methods.costs import counted, strays
from tests.erase.methods.slopes import assert_same_slopes, overheard, slopes, strayed
from tests.toys.denoiser import Toy

QUICK: dict[str, Any] = {"iterations": 4, "batch": 2, "seeds": 4, "steps": 3, "keep_seeds": 2, "lr": 1e-3}


def test_the_anchor_s_own_words_give_no_gradient(toy: Toy) -> None:
    z, t = torch.randn(2, *toy.latent_shape, generator=torch.Generator().manual_seed(0)), torch.tensor([300, 800])
    with torch.no_grad():
        anchor, concept = toy.encode(["painting"] * 2), toy.encode(["Van Gogh"] * 2)
        said = toy.predict(z, t, anchor)
    masters = DeltaOptimizer(toy.network, select(toy.network, "kv"), lr=1e-3)

    def gradient(codes: Any) -> float:
        with borrowed(toy.network, train=False), substituted(toy.network, masters.weights()):
            loss = errors(toy, {"erase": NoiseTarget(z, t, codes, said)})["erase"]
            return max(float(part.abs().max()) for part in masters.gradients(loss).values())

    assert gradient(anchor) < 1e-9 < 1e-6 < gradient(concept)


def losses(toy: Toy, **knobs: Any) -> list[float]:
    seen: list[float] = []

    def note(step: Step) -> None:
        if step.stage == "tune":
            seen.append(step.loss["erase"])

    drain(run_method(Ablation(**{**QUICK, **knobs}), Request(toy, [Concept(name="Van Gogh", kind="style")])), note)
    return seen


def test_the_teacher_stands_still_unless_it_is_the_student(toy: Toy) -> None:
    # A rate at which the student does not move: then both teachers say the same, up to fp16 storage.
    still = [losses(toy, lr=1e-12, teacher=teacher) for teacher in ("base", "self")]
    assert still[0] == pytest.approx(still[1], rel=0.05)
    moved = [losses(toy, lr=3e-2, teacher=teacher, iterations=6) for teacher in ("base", "self")]
    assert moved[0][0] == pytest.approx(moved[1][0], rel=0.05)
    assert moved[0][-1] != pytest.approx(moved[1][-1], rel=0.2)


def test_tuning_lowers_its_own_loss(toy: Toy) -> None:
    seen = losses(toy, iterations=60, lr=1e-2, batch=4, slice="full")
    assert sum(seen[-10:]) < 0.5 * sum(seen[:10])


def test_noise_as_target_is_another_task(toy: Toy) -> None:
    assert min(losses(toy, target="noise", lr=1e-12)) > 0.3 > 0.1 > max(losses(toy, lr=1e-12))


@pytest.mark.parametrize(
    ("concept", "needed"),
    [
        (Concept(name="Van Gogh", kind="style"), False),
        (Concept(name="Grumpy cat", anchor="cat"), True),
        (Concept(name="a cat", anchor="a dog"), False),
        (Concept(name="R2D2", prompts=("a small robot",), anchor="robot"), True),
        (Concept(name="nudity", kind="nudity"), True),
    ],
)
def test_an_anchor_near_its_concept_is_retained(toy: Toy, concept: Concept, needed: bool) -> None:
    assert needs_prior(concept) is needed
    told: set[str] = set()
    drain(run_method(Ablation(**QUICK), Request(toy, [concept])), lambda step: told.update(step.loss))
    assert ("retain" in told) is needed


def test_retaining_keeps_the_kept(toy: Toy, cats: Concept) -> None:
    kept = Concept(name="Dogs")
    t = torch.tensor([100, 400, 600, 900] * 2)
    noise = torch.randn(8, *toy.latent_shape, generator=torch.Generator().manual_seed(6))
    shot = Shot(11, "Dogs")

    def error(retain: float) -> float:
        knobs = {**QUICK, "iterations": 60, "batch": 4, "lr": 1e-2, "retain": retain, "keep_seeds": 8, "slice": "full"}
        edit = drain(run_method(Ablation(**knobs), Request(toy, [cats], [kept])))
        [z0] = drain(toy.latents([shot], steps=3, guidance=6.0))
        with torch.no_grad(), edit.applied(toy.network):
            said = toy.predict(toy.path.add_noise(z0.repeat(8, 1, 1, 1), noise, t), t, toy.encode(["Dogs"]).repeat(8))
        return float((said - noise).square().mean())

    assert error(5.0) < 0.9 * error(0.0)


def test_the_pictures_drawn_are_the_anchor_s_and_of_what_is_kept(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    latents = toy.latents

    def noted(shots: Sequence[Shot], **how: Any) -> Any:
        drawn.extend(shot.prompt for shot in shots)
        return latents(shots, **how)

    monkeypatch.setattr(toy, "latents", noted)
    concept, kept = Concept(name="Van Gogh", kind="style", anchor="watercolour"), Concept(name="Dogs")
    drain(run_method(Ablation(**QUICK, templates=("{} of a sea",)), Request(toy, [concept], [kept])))
    assert set(drawn) == {"watercolour", "watercolour of a sea", "Dogs", "Dogs of a sea"}


@pytest.mark.parametrize("knobs", [{"retain": 0.5}, {"retain": 2.0}, {"target": "noise"}])
def test_a_step_follows_the_target_and_the_weighted_retain_loss(toy: Toy, knobs: dict[str, Any]) -> None:
    method = Ablation(**{**QUICK, **knobs})
    pictures = method._pictures(Request(None, [Concept(name="Van Gogh", kind="style")], [Concept(name="Dogs")], 0))
    course = drain(prepare(toy, method, pictures, {}, 0, {}))
    masters = DeltaOptimizer(toy.network, select(toy.network, "kv"), 1e-3)
    strayed(masters, toy.network)
    seen = overheard(masters)
    erase, kept = (course.banks[name].lessons(3, toy) for name in ("erase", "retain"))
    told = toy.predict(erase.z, erase.t, toy.encode([picture.told for picture in erase.pictures]))
    with torch.no_grad():
        anchor = toy.predict(erase.z, erase.t, toy.encode([picture.instead for picture in erase.pictures]))
    goal = erase.noise if method.target == "noise" else anchor
    shown = [picture.shot.prompt for picture in kept.pictures]
    assert all("Dogs" in prompt for prompt in shown)
    retain = (toy.predict(kept.z, kept.t, toy.encode(shown)) - kept.noise).square().mean()
    loss = (told - goal).square().mean() + method.retain * retain
    expected = slopes(toy.network, list(masters.deltas), loss)
    method._one(toy, masters, course, 3)
    assert_same_slopes(seen, expected)


@pytest.mark.parametrize("slice", ["kv", "cross", "attention", "full"])
def test_each_slice_is_what_is_trained(toy: Toy, cats: Concept, slice: str) -> None:
    edit = drain(run_method(Ablation(**QUICK, slice=slice), Request(toy, [cats])))  # type: ignore[arg-type]
    assert set(edit.deltas) == set(select(toy.network, slice))


def test_confined_readers_make_the_same_of_the_start_code(toy: Toy, cats: Concept) -> None:
    far = strays(toy, cats, lambda confine: Ablation(**QUICK, confine=confine))  # type: ignore[arg-type]
    assert far["start"] < 1e-6 < 1e-4 < far["none"]


def test_the_stated_cost_is_the_counted_cost(toy: Toy, cats: Concept, gogh: Concept) -> None:
    for knobs, keep in (({}, []), ({"teacher": "self"}, [gogh]), ({"target": "noise"}, []), ({"retain": 0.0}, [gogh])):
        edit, forwards = counted(toy, Ablation(**QUICK, **knobs), Request(toy, [cats], keep))  # type: ignore[arg-type]
        assert forwards == edit.about["cost"]["teach_forwards"] + edit.about["cost"]["tune_forwards"], knobs
