"""Adapt-then-Unlearn's sums: K models in the memory of one give the distance to all of them, and its slope."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from erase.concept import Concept
from erase.edit import Edit
from erase.gan.adversarial import folded_adam
from erase.gan.feedback import marked
from erase.methods import adapt_unlearn
from erase.methods.adapt_unlearn import AdaptUnlearn, Sums
from erase.request import Request, run_method
from erase.rng import stream
from erase.work import Step, Work, drain
from tests.toys.compare import same_bits, weights
from tests.toys.gan import ToyGan


@pytest.fixture
def gan() -> ToyGan:
    return ToyGan()


def models(gan: ToyGan, count: int) -> list[dict[str, Tensor]]:
    """Random differences from the original, small as fine-tuning leaves them."""
    torch.manual_seed(0)
    return [
        {name: 1e-3 * torch.randn_like(weight) for name, weight in gan.network.named_parameters()} for _ in range(count)
    ]


def unfolded(gan: ToyGan, vector: dict[str, Tensor]) -> Tensor:
    parts = [(vector[name].double() / gan.gains[name]).flatten() for name in vector if name.startswith("synthesis.")]
    return torch.cat(parts)


def test_the_distance_is_that_to_every_model(gan: ToyGan) -> None:
    adapted, sums = models(gan, 4), Sums(gan)
    for vector in adapted:
        sums.add(vector)
    u = {name: (0.4 * adapted[0][name] + 2e-4).requires_grad_(True) for name in adapted[0]}
    direct = sum((unfolded(gan, u) - unfolded(gan, v)).square().sum() for v in adapted) / sum(
        unfolded(gan, v).square().sum() for v in adapted
    )
    found = sums.distance(u)
    assert float(found.detach()) == pytest.approx(float(direct.detach()), rel=1e-6)
    drawing = [name for name in u if name.startswith("synthesis.")]
    ours = torch.autograd.grad(found, [u[name] for name in drawing])
    theirs = torch.autograd.grad(direct, [u[name] for name in drawing])
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other.float(), rtol=1e-4, atol=1e-7)


def test_it_is_one_at_the_start_and_grows_away_from_the_mean(gan: ToyGan) -> None:
    sums = Sums(gan)
    for vector in models(gan, 3):
        sums.add(vector)
    nowhere = {name: torch.zeros_like(weight, requires_grad=True) for name, weight in gan.network.named_parameters()}
    rho = sums.distance(nowhere)
    assert float(rho) == pytest.approx(1.0, abs=1e-6)
    drawing = [name for name in nowhere if name.startswith("synthesis.")]
    slopes = torch.autograd.grad(rho, [nowhere[name] for name in drawing])
    uphill = torch.cat([(slope * gan.gains[name]).flatten() for name, slope in zip(drawing, slopes, strict=True)])
    away = -torch.cat([(sums.mean()[name] / gan.gains[name]).flatten() for name in drawing])
    assert float(torch.cosine_similarity(uphill, away, dim=0)) > 0.999
    assert float(sums.distance({name: -mean for name, mean in sums.mean().items()})) > 1
    assert float(sums.distance(sums.mean())) < 1


def test_memory_does_not_grow_with_the_models(gan: ToyGan) -> None:
    sums = Sums(gan)

    def held() -> int:
        return sum(value.numel() for value in sums.state().values())

    before = held()
    for vector in models(gan, 7):
        sums.add(vector)
    assert held() == before and sums.count == 7


def test_the_sums_come_back_from_a_state(gan: ToyGan) -> None:
    one, other = Sums(gan), Sums(gan)
    one.add(models(gan, 1)[0])
    other.load(one.state())
    u = {name: 2 * v for name, v in models(gan, 1)[0].items()}
    assert float(one.distance(u)) == float(other.distance(u)) and other.count == 1


@pytest.mark.parametrize("form", ["EL2", "NL2", "IL2"])
def test_every_form_falls_with_distance(form: str) -> None:
    method = AdaptUnlearn(form=form)  # type: ignore[arg-type]
    values = method._shape(torch.tensor([0.5, 1.0, 2.0]))
    assert values[0] > values[1] > values[2]
    assert torch.equal(method._shape(torch.tensor(5.0)), method._shape(torch.tensor(6.0))) == (form == "NL2")


@pytest.mark.parametrize("form", ["EL2", "NL2", "IL2"])
def test_the_repulsion_is_the_equation_and_a_step_down_it_leads_away(gan: ToyGan, form: str) -> None:
    adapted, sums = models(gan, 3), Sums(gan)
    for vector in adapted:
        sums.add(vector)

    def distance(u: dict[str, Tensor]) -> float:
        far = sum(float((unfolded(gan, u) - unfolded(gan, v)).square().sum()) for v in adapted)
        return far / sum(float(unfolded(gan, v).square().sum()) for v in adapted)

    u = {name: (0.5 * adapted[0][name]).requires_grad_(True) for name in adapted[0] if name.startswith("synthesis.")}
    method = AdaptUnlearn(form=form, alpha=1.5)  # type: ignore[arg-type]
    loss = method._repelled(sums, torch.tensor(0.7), u)["repel"]
    rho = distance({name: value.detach() for name, value in u.items()})
    expected = {"EL2": math.exp(-1.5 * rho), "NL2": -rho, "IL2": 1 / rho}[form]
    assert float(loss.detach()) == pytest.approx(0.7 * expected, rel=1e-4)
    slopes = torch.autograd.grad(loss, list(u.values()))
    length = math.sqrt(sum(float(slope.square().sum()) for slope in slopes))
    moved = {name: (w - 1e-3 / length * slope).detach() for (name, w), slope in zip(u.items(), slopes, strict=True)}
    assert distance(moved) > rho


def test_stage_one_is_shown_the_marked_images_and_stage_two_the_others(
    gan: ToyGan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clicked = {"yes": list(range(8)), "no": list(range(100, 109))}
    (tmp_path / "marks.json").write_text(json.dumps(clicked), encoding="utf-8")
    shown: list[set[int]] = []

    def pictures(model: ToyGan, seeds: Tensor) -> Callable[[Tensor], Tensor]:
        def real(chosen: Tensor) -> Tensor:
            shown.append(set(seeds.tolist()))
            return torch.zeros(len(chosen), 3, 8, 8)

        return real

    monkeypatch.setattr(adapt_unlearn, "pictures", pictures)
    stages: dict[str, list[set[int]]] = {}
    quick = AdaptUnlearn(marks=str(tmp_path / "marks.json"), models=2, adapt_steps=1, steps=2, batch=4, fisher=8)
    work = run_method(quick, Request(gan, [Concept(name="eyeglasses", kind="attribute")]))
    for step in work:
        stages.setdefault(step.stage, []).extend(shown)
        shown.clear()
    assert stages["adapt 1 of 2"] == stages["adapt 2 of 2"] == [set(clicked["yes"])]
    assert stages["unlearn"] == [set(clicked["no"])] * 2


def test_the_push_is_the_asked_share_of_the_adversarial_slope(gan: ToyGan) -> None:
    sums = Sums(gan)
    for vector in models(gan, 2):
        sums.add(vector)
    method = AdaptUnlearn(push=0.25, batch=4)
    duel = method._duel(gan, lambda chosen: chosen, 10, ("test",), 0)
    scale = float(method._scale(duel, sums))
    named, gains = duel.generator.deltas, gan.gains
    assert gan.critic is not None
    network = dict(gan.network.requires_grad_(True).named_parameters())
    images = duel.fakes(stream(0, "scale"), 4)[0]
    adversarial = torch.nn.functional.softplus(-gan.critic(images)).mean()
    theirs = torch.autograd.grad(adversarial, list(network.values()), allow_unused=True)
    ours = torch.autograd.grad((-2.0 * sums.distance(named)).exp(), list(named.values()), allow_unused=True)

    def length(slopes: tuple[Tensor | None, ...]) -> float:
        return math.sqrt(sum(float((g * gains[name]).square().sum())
                             for name, g in zip(named, slopes, strict=True) if g is not None))  # fmt: skip

    assert scale * length(ours) == pytest.approx(0.25 * length(theirs), rel=1e-3)


def test_a_part_of_the_way_is_worn(gan: ToyGan) -> None:
    quick = AdaptUnlearn(marked=8, positives=8, models=1, adapt_steps=1, steps=2, batch=4, fisher=8, worn=1.0)
    whole, part = (
        drain(run_method(method, Request(gan, [Concept(name="eyeglasses", kind="attribute")]))).deltas
        for method in (quick, quick.model_copy(update={"worn": 0.25}))
    )
    assert any(bool(delta.any()) for delta in whole.values())
    for name, delta in whole.items():
        torch.testing.assert_close(part[name], 0.25 * delta, rtol=1e-6, atol=0.0)


def test_the_least_part_after_which_the_scorer_finds_no_more_is_worn(
    gan: ToyGan, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = AdaptUnlearn(marked=8, positives=8, models=1, adapt_steps=1, steps=2, batch=4, fisher=8)
    asked: list[float] = []

    def showing(model: ToyGan, concepts: object, seeds: Tensor, edit: Edit, share: float) -> float:
        assert len(seeds) == 8
        asked.append(share)
        return 1 - share

    monkeypatch.setattr(adapt_unlearn, "_showing", showing)
    for enough, share in ((0.35, 0.7), (0.5, 0.5), (0.0, 1.0)):
        monkeypatch.setattr(adapt_unlearn, "LEFT", enough)
        edit = drain(run_method(quick, Request(gan, [Concept(name="eyeglasses", kind="attribute")])))
        assert edit.about["worn"] == share
        assert asked == [each for each in adapt_unlearn.SHARES if each <= share]
        asked.clear()


def test_what_still_shows_is_counted_with_the_edit_on(gan: ToyGan) -> None:
    concepts, before = [Concept(name="bright", kind="attribute")], weights(gan.network)
    seeds = drain(marked(gan, concepts, "", yes=16, no=1, seed=0, state={})).yes
    nothing = {name: torch.zeros_like(weight) for name, weight in gan.network.named_parameters()}
    assert adapt_unlearn._showing(gan, concepts, seeds, Edit(nothing, {}), 1.0) == 1.0
    dark = {name: torch.full_like(weight, -9.0) for name, weight in nothing.items() if name.endswith("torgb.bias")}
    assert adapt_unlearn._showing(gan, concepts, seeds, Edit(dark, {}), 1.0) == 0.0
    assert same_bits(weights(gan.network), before)


def test_fisher_is_the_mean_square_of_single_slopes(gan: ToyGan) -> None:
    method = AdaptUnlearn(fisher=8, batch=4)
    found = drain(method._fisher(gan, 3, {}))
    name = "synthesis.b8.conv0.bias"
    assert set(found) == {f"fisher.{n}" for n, _ in gan.network.named_parameters() if n.startswith("synthesis.b8.conv")}
    assert all(bool((value >= 0).all()) for value in found.values())
    bias, expected = gan.network.get_parameter(name), 0.0
    duel = method._duel(gan, lambda chosen: chosen, 1, ("fisher",), 3)
    for which in range(8):  # one picture's logit at a time, by finite differences of one weight
        logits = []
        for move in (1e-3, -1e-3):
            with torch.no_grad():
                bias[1] += move
                assert gan.critic is not None
                logits.append(gan.critic(duel.fakes(stream(3, "fisher", 0), 8)[0])[which].double())
                bias[1] -= move
        expected += float((logits[0] - logits[1]) / 2e-3) ** 2 / 8
    assert float(found[f"fisher.{name}"][1]) == pytest.approx(expected, rel=0.02)


def test_the_hold_does_not_depend_on_folding(gan: ToyGan) -> None:
    fisher = {"fisher.a": torch.tensor([4.0])}
    method = AdaptUnlearn(ewc=2.0)
    unfolded_penalty = method._held(fisher, {"a": torch.tensor([3.0])})["ewc"]
    gain = 0.1  # the folded weight is a tenth, its slope ten times as large
    folded_penalty = method._held({"fisher.a": fisher["fisher.a"] / gain**2}, {"a": torch.tensor([3.0 * gain])})["ewc"]
    assert float(unfolded_penalty) == pytest.approx(36.0) == pytest.approx(float(folded_penalty))


def test_extrapolation_wears_the_mean_adaptation_backwards(gan: ToyGan, monkeypatch: pytest.MonkeyPatch) -> None:
    adapted = models(gan, 2)

    def adapt(self: AdaptUnlearn, model: ToyGan, marks: object, seed: int, state: object, sums: Sums) -> Work[None]:
        yield Step("adapt", 1, 1)
        for vector in adapted:
            sums.add(vector)

    monkeypatch.setattr(AdaptUnlearn, "_adapt", adapt)
    quick = AdaptUnlearn(form="extrapolate", marked=8, positives=8, models=2, backwards=1.5)
    edit = drain(run_method(quick, Request(gan, [Concept(name="eyeglasses", kind="attribute")])))
    for name, delta in edit.deltas.items():
        torch.testing.assert_close(delta, -1.5 * (adapted[0][name] + adapted[1][name]) / 2)


class Duel:
    """A pair in training whose average is told apart from its last weights."""

    def __init__(self, gan: ToyGan, value: float) -> None:
        self.average = {name: torch.full_like(w, value) for name, w in gan.network.named_parameters()}
        self.generator = SimpleNamespace(deltas={name: 100 + average for name, average in self.average.items()})

    def step(self, number: int, more: object) -> dict[str, float]:
        return {}

    def state(self) -> dict[str, Tensor]:
        return {}


def test_each_adapted_model_is_its_own_and_averages_are_what_counts(
    gan: ToyGan, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str | int, ...]] = []
    sums: list[dict[str, Tensor]] = []

    def duel(self: AdaptUnlearn, model: ToyGan, real: object, half_life: float, purpose: Any, seed: int) -> Duel:
        asked.append(tuple(purpose))
        return Duel(model, float(len(asked)))

    def scale(self: AdaptUnlearn, duel: Duel, known: Sums) -> Tensor:
        sums.append(known.mean())
        return torch.ones([])

    monkeypatch.setattr(AdaptUnlearn, "_duel", duel)
    monkeypatch.setattr(AdaptUnlearn, "_scale", scale)
    monkeypatch.setattr(AdaptUnlearn, "_fisher", lambda *_: adapt_unlearn._nothing())
    quick = AdaptUnlearn(marked=8, positives=8, models=2, adapt_steps=1, steps=1, worn=1.0)
    edit = drain(run_method(quick, Request(gan, [Concept(name="eyeglasses", kind="attribute")])))
    assert asked == [("adapt", 0), ("adapt", 1), ("unlearn",)]
    assert {float(value.mean()) for value in sums[0].values()} == {1.5}
    assert {float(value.mean()) for value in edit.deltas.values()} == {3.0}


def test_adam_steps_by_the_gain() -> None:
    named = {"a": torch.zeros(1, requires_grad=True), "b": torch.zeros(1, requires_grad=True)}
    adam = folded_adam(named, {"a": 1.0, "b": 0.01}, 0.1)
    for leaf in named.values():
        leaf.grad = torch.ones(1)
    adam.step()
    assert float(named["a"]) == pytest.approx(-0.1) and float(named["b"]) == pytest.approx(-0.001)
