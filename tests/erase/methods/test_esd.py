"""ESD's target, its slices, its masters, and what it must leave alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from erase.borrow import borrowed, substituted
from erase.concept import Concept
from erase.methods.esd import ESD, SLICE, erased
from erase.request import Request, run_method
from erase.rng import stream
from erase.training.deltas import DeltaOptimizer, span
from erase.training.rollouts import Sampling, teach
from erase.training.slices import select
from erase.work import drain
from tests.erase.methods.costs import counted
from tests.erase.methods.slopes import assert_same_slopes, overheard, slopes, strayed
from tests.toys.denoiser import Toy

QUICK = {"iterations": 4, "steps": 3, "seeds": 2, "templates": False, "lr": 1e-3}


def test_target_algebra() -> None:
    draw = torch.Generator().manual_seed(0)
    present, absent, base = (torch.randn(2, 4, 8, 8, generator=draw, dtype=torch.float64) for _ in range(3))
    assert torch.allclose(erased(present, absent, absent, -1.0), present, atol=1e-12)
    for g in (1.0, 2.0, 3.5):
        plain = erased(present, absent, absent, g - 1)
        assert torch.allclose(plain, present - g * (present - absent), atol=1e-12)
        assert torch.allclose(plain, erased(present, absent, present, g), atol=1e-12)  # erasing c from c
        assert not torch.allclose(plain, erased(present, absent, base, g), atol=1e-3)


def test_no_push_no_gradient(toy: Toy) -> None:
    shots_z = torch.randn(2, *toy.latent_shape, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([400, 700])
    with torch.no_grad():
        codes, rest = toy.encode(["Van Gogh", "Cats"]), toy.encode(["", ""])
        present, absent = toy.predict(shots_z, t, codes), toy.predict(shots_z, t, rest)
    masters = DeltaOptimizer(toy.network, select(toy.network, "cross"), lr=1e-5)

    def gradient(eta: float) -> float:
        with borrowed(toy.network, train=False), substituted(toy.network, masters.weights()):
            loss = (toy.predict(shots_z, t, codes) - erased(present, absent, absent, eta)).square().mean()
        return max(float(part.abs().max()) for part in torch.autograd.grad(loss, list(masters.deltas.values())))

    assert gradient(-1.0) < 1e-9 < 1e-6 < gradient(1.0)


@pytest.mark.parametrize("variant", list(SLICE))
def test_each_variant_changes_its_slice_only(toy: Toy, cats: Concept, variant: str) -> None:
    edit = drain(run_method(ESD(variant=variant, confine="none", **QUICK), Request(toy, [cats])))  # type: ignore[arg-type]
    assert set(edit.deltas) == set(select(toy.network, SLICE[variant]))
    moved = [name for name, delta in edit.deltas.items() if bool(delta.any())]
    assert len(moved) > 0.9 * len(edit.deltas)
    crossing = ["attn2" in name.split(".") for name in edit.deltas]
    assert all(crossing) if variant.startswith("x") else not all(crossing)
    assert variant != "u" or not any(crossing)


def test_tuning_lowers_its_own_loss(toy: Toy, cats: Concept, gogh: Concept) -> None:
    losses: list[float] = []
    knobs = {**QUICK, "iterations": 50, "lr": 5e-3, "batch": 4}
    steps = run_method(ESD(variant="all", **knobs), Request(toy, [cats, gogh]))  # type: ignore[arg-type]
    drain(steps, lambda step: losses.append(step.loss["erase"]) if step.stage == "tune" else None)
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_lessons_are_told_their_own_words_and_differ_from_step_to_step(toy: Toy, cats: Concept, gogh: Concept) -> None:
    def losses(eta: float) -> dict[str, list[float]]:
        seen: dict[str, list[float]] = {"erase": [], "retain": []}
        # So small a rate that the student stays the teacher, which at η = −1 is what it is asked to be.
        method = ESD(eta=eta, lr=1e-12, iterations=8, steps=3, seeds=4, keep_seeds=4)
        work = run_method(method, Request(toy, [cats, gogh], [Concept(name="Dogs"), Concept(name="Sea")]))
        drain(work, lambda step: [seen[name].append(loss) for name, loss in step.loss.items()])
        return seen

    alike, pushed = losses(-1.0), losses(1.0)
    assert max(alike["erase"] + alike["retain"]) < 1e-6 < 2e-5 < min(pushed["erase"])  # what fp16 storage rounds away
    assert len(set(pushed["erase"])) == 8


def test_retaining_keeps_the_kept(toy: Toy, cats: Concept) -> None:
    kept = Concept(name="Dogs")

    def strayed(retain: float) -> float:
        knobs = {**QUICK, "iterations": 30, "batch": 2, "retain": retain, "keep_seeds": 4}
        edit = drain(run_method(ESD(**knobs), Request(toy, [cats], [kept])))  # type: ignore[arg-type]
        z, t = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(5)), torch.tensor(600)
        with torch.no_grad():
            codes = toy.encode(["Dogs"]).repeat(8)
            before = toy.predict(z, t, codes)
            with edit.applied(toy.network):
                return float((toy.predict(z, t, codes) - before).norm())

    assert strayed(20.0) < 0.7 * strayed(0.0)


@pytest.mark.parametrize("knobs", [{"retain": 0.5}, {"retain": 3.0}, {"eta": 2.5}, {"target": "anchor"}])
def test_a_step_follows_the_guided_target_and_the_weighted_retain_loss(
    toy: Toy, gogh: Concept, knobs: dict[str, Any]
) -> None:
    method = ESD(**{**QUICK, "eta": 1.5, "variant": "x", **knobs})  # type: ignore[arg-type]
    base, how = "instead" if method.target == "anchor" else "absent", Sampling(0, 3.0, 3, dtype=torch.float32)
    banks = {
        "teach": drain(teach(toy, method._rollouts([gogh]), "teach", ("present", base), how)),
        "teach kept": drain(teach(toy, method._kept_rollouts([Concept(name="Dogs")]), "kept", ("present",), how)),
    }
    with torch.no_grad():
        told = {name: toy.encode([rollout.prompt for rollout in bank.rollouts]) for name, bank in banks.items()}
    masters = DeltaOptimizer(toy.network, select(toy.network, "cross"), 1e-3)
    strayed(masters, toy.network)
    seen = overheard(masters)
    lesson, kept = (bank.lessons(stream(0, name, 4), 2, toy) for name, bank in banks.items())
    goal = lesson.said[base] - method.eta * (lesson.said["present"] - lesson.said[base])
    erase = (toy.predict(lesson.z, lesson.t, toy.encode(["Van Gogh"] * 2)) - goal).square().mean()
    own = (toy.predict(kept.z, kept.t, toy.encode(["Dogs"] * 2)) - kept.said["present"]).square().mean()
    expected = slopes(toy.network, list(masters.deltas), erase + method.retain * own)
    method._one(toy, masters, told, banks, base, 0, 4)
    assert_same_slopes(seen, expected)


def test_the_anchor_is_the_target_where_that_is_asked_for(toy: Toy) -> None:
    def first(target: str, anchor: str) -> float:
        seen: list[float] = []
        method = ESD(**{**QUICK, "iterations": 1, "eta": 0.0, "target": target})  # type: ignore[arg-type]
        work = run_method(method, Request(toy, [Concept(name="Cats", anchor=anchor)]))
        drain(work, lambda step: seen.extend(step.loss.values()))
        return seen[0]

    assert first("negative", "dogs") == first("negative", "")
    assert abs(first("anchor", "dogs") / first("anchor", "") - 1) > 0.05


def test_a_network_left_in_training_mode_is_tuned_in_evaluation_mode(toy: Toy, cats: Concept) -> None:
    seen: set[bool] = set()
    toy.network.train()
    hook = toy.network["unet"].register_forward_pre_hook(lambda module, args: seen.add(module.training))
    drain(run_method(ESD(**QUICK), Request(toy, [cats])))  # type: ignore[arg-type]
    hook.remove()
    assert seen == {False}
    assert all(module.training for module in toy.network.modules())


def test_bf16_networks_do_not_lose_small_updates() -> None:
    toy = Toy(dtype=torch.bfloat16)
    name = next(iter(toy.readers())) + ".weight"
    masters = DeltaOptimizer(toy.network, [name], lr=1e-6)
    for _ in range(100):
        masters.step((masters.deltas[name] * 1.0).sum())
    assert masters.deltas[name].dtype == torch.float32
    assert torch.allclose(masters.deltas[name], torch.full_like(masters.deltas[name], -1e-4), rtol=1e-3)
    assert masters.weights()[name].dtype == torch.bfloat16
    weight = dict(toy.network.named_parameters())[name].detach().clone()
    for _ in range(100):
        weight -= 1e-6  # what the masters avoid: most bf16 weights do not notice
    assert (weight == dict(toy.network.named_parameters())[name]).float().mean() > 0.9


@pytest.mark.parametrize("confine", ["start", "rest"])
def test_confined_readers_make_the_same_of_shared_codes(toy: Toy, cats: Concept, confine: str) -> None:
    shared = toy.resting_codes().detach()
    held = shared[:1] if confine == "start" else shared
    strays = {}
    for knob in ("none", confine):
        edit = drain(run_method(ESD(variant="x-strict", confine=knob, **QUICK), Request(toy, [cats])))  # type: ignore[arg-type]
        strays[knob] = max(float((held @ delta.T).abs().max()) for delta in edit.deltas.values())
        assert any(bool(delta.any()) for delta in edit.deltas.values())
    assert strays[confine] < 1e-6 < 1e-4 < strays["none"]


def test_span_is_an_orthonormal_basis() -> None:
    rows = torch.randn(3, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis = span(torch.cat([rows, rows[:1] + rows[1:2]]))
    assert basis.shape == (9, 3)
    assert torch.allclose(basis.T @ basis, torch.eye(3, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(rows @ basis @ basis.T, rows, atol=1e-10)


def test_a_loss_that_is_no_number_stops_the_run(toy: Toy) -> None:
    name = next(iter(toy.readers())) + ".weight"
    masters = DeltaOptimizer(toy.network, [name], lr=1e-3)
    with pytest.raises(FloatingPointError, match="smaller learning rate"):
        masters.step(masters.deltas[name].sum() * float("nan"))
    assert not masters.deltas[name].any()


@pytest.mark.parametrize("preset", [None, *ESD.presets])
def test_every_preset_costs_at_most_four_forwards_a_step(cats: Concept, preset: str | None) -> None:
    cost = ESD(**(ESD.presets[preset] if preset else {})).cost(Request(None, [cats]))
    assert cost["forwards_per_sample"] <= 4
    assert cost["forwards_per_step"] <= 4
    assert ESD(seeds=256).cost(Request(None, [cats]))["forwards_per_step"] > 4


def test_the_stated_cost_is_the_counted_cost(toy: Toy, cats: Concept, gogh: Concept) -> None:
    for knobs, keep in (({}, []), ({"target": "anchor"}, []), ({"keep_seeds": 2}, [gogh]), ({"retain": 0.0}, [gogh])):
        edit, forwards = counted(toy, ESD(**QUICK, **knobs), Request(toy, [cats], keep))  # type: ignore[arg-type]
        cost = edit.about["cost"]
        assert forwards == cost["teach_forwards"] + cost["tune_forwards"], knobs
        assert cost == ESD(**QUICK, **knobs).cost(Request(None, [cats], keep))  # type: ignore[arg-type]
