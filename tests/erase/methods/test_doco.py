"""DoCo: the discriminator's shape and separation, the order of one step, and what surgery leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from erase.borrow import borrowed
from erase.concept import Concept
from erase.errors import BadInput
from erase.methods.doco import DoCo
from erase.methods.registry import build
from erase.request import Request, run_method
from erase.rng import stream
from erase.training import patchgan
from erase.training.deltas import DeltaOptimizer
from erase.training.noised_images import Course, NoisedImageCache, prepare
from erase.training.patchgan import Critic
from erase.training.slices import select
from erase.work import Step, drain
from tests.erase.methods.costs import counted, strays
from tests.erase.methods.slopes import assert_same_slopes, overheard, slopes
from tests.toys.compare import same_bits, weights
from tests.toys.denoiser import Toy

QUICK: dict[str, Any] = {
    "iterations": 4, "warmup": 1, "batch": 2, "seeds": 4, "steps": 3, "keep_seeds": 2, "lr": 1e-3,
}  # fmt: skip
CONCEPTS = [Concept(name="Van Gogh", kind="style"), Concept(name="Cats")]


@pytest.mark.parametrize(("side", "halvings"), [(8, 1), (16, 2), (32, 3), (64, 4)])
def test_the_discriminator_answers_for_nine_patches(side: int, halvings: int) -> None:
    network = patchgan.patchgan(4, side, 3, stream(0, "critic"))
    assert network(torch.randn(2, 4, side, side)).shape == (2, 3, 3, 3)
    assert sum(getattr(layer, "stride", ()) == (2, 2) for layer in network) == halvings
    if side == 64:
        parameters = sum(leaf.numel() for leaf in patchgan.patchgan(4, 64, 1, stream(0, "critic")).parameters())
        assert parameters == 2_767_553


def test_latents_too_small_for_patches_are_refused() -> None:
    with pytest.raises(BadInput, match="at least 8 × 8"):
        patchgan.patchgan(4, 4, 1, stream(0, "critic"))


class Bench:
    """One step's surroundings: a toy, its masters, its critic and a prepared course."""

    def __init__(self, **knobs: Any) -> None:
        self.method = DoCo(**{**QUICK, **knobs})
        self.toy = Toy()
        self.masters = DeltaOptimizer(self.toy.network, select(self.toy.network, self.method.slice), self.method.lr)
        self.critic = Critic(self.toy.latent_shape, 2, self.method.critic_lr, stream(0, "critic"), self.toy.device)
        pictures = self.method._pictures(Request(None, CONCEPTS, [Concept(name="Dogs")], 0))
        taught = {"erase": self.method.iterations}
        self.course: Course = drain(prepare(self.toy, self.method, pictures, taught, 0, {}))

    def step(self, number: int) -> dict[str, float]:
        with borrowed(self.toy.network, train=False):
            return self.method._one(self.toy, self.masters, self.critic, self.course, number)


def test_the_student_s_step_leaves_the_discriminator_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    before = weights(bench.critic.network)
    seen: dict[str, Any] = {}

    def learn(teacher: Tensor, student: Tensor, concept: Tensor) -> float:
        seen["weights"] = weights(bench.critic.network)
        seen["gradients"] = [leaf.grad for leaf in bench.critic.named.values()]
        return 0.0

    monkeypatch.setattr(bench.critic, "learn", learn)
    bench.step(3)
    assert same_bits(seen["weights"], before)
    assert all(gradient is None for gradient in seen["gradients"])
    assert any(bool(delta.any()) for delta in bench.masters.deltas.values())


def test_the_discriminator_s_gradient_at_a_student_s_logit_is_the_chance_it_gave() -> None:
    critic = Critic((4, 8, 8), 1, 1.0, stream(0, "critic"), torch.device("cpu"))
    critic.optimiser = torch.optim.SGD(critic.named.values(), lr=1.0)
    fake, which = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(2, dtype=torch.long)
    with torch.no_grad():
        chance = torch.sigmoid(critic.logits(fake, which))
        offset = critic.named["2.bias"].clone()
    real = torch.full_like(fake, 0.0)
    with torch.no_grad():
        doubt = torch.sigmoid(critic.logits(real, which)) - 1
    critic.doubts(fake, which)  # the student's term, which must not add up to 2σ − 1
    critic.learn(real, fake, which)
    moved = offset - critic.named["2.bias"].detach()
    assert torch.allclose(moved, (chance.mean() + doubt.mean())[None], atol=1e-5)


def test_the_discriminator_learns_to_take_the_teacher_for_real_and_the_student_for_fake() -> None:
    critic = Critic((4, 8, 8), 2, 1e-3, stream(0, "critic"), torch.device("cpu"))
    teacher, student = (torch.randn(3, 4, 8, 8, generator=stream(0, side)) for side in ("teacher", "student"))
    which = torch.tensor([0, 1, 1])

    def chances() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return torch.sigmoid(critic.logits(teacher, which)), torch.sigmoid(critic.logits(student, which))

    real, fake = chances()
    told = critic.learn(teacher, student, which)
    assert told == pytest.approx(float(-real.log().mean() - (1 - fake).log().mean()), rel=1e-5)
    after = chances()
    assert after[0].mean() > real.mean() and after[1].mean() < fake.mean()


def test_the_discriminator_learns_from_what_was_said_before_the_student_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(lr=0.1)
    lessons = bench.course.banks["erase"].lessons(3, bench.toy)
    with torch.no_grad():
        before = bench.toy.predict(lessons.z, lessons.t, bench.course.phrases.told(lessons))
    seen: dict[str, Tensor] = {}

    def learn(teacher: Tensor, student: Tensor, concept: Tensor) -> float:
        seen.update(teacher=teacher, student=student, concept=concept)
        return 0.0

    monkeypatch.setattr(bench.critic, "learn", learn)
    bench.step(3)
    assert torch.allclose(seen["student"], before, atol=1e-5)
    assert lessons.said is not None and torch.equal(seen["teacher"], lessons.said)  # of the same z and t
    assert seen["concept"].tolist() == [picture.group for picture in lessons.pictures] == [0, 1]
    bench.step(3)
    assert not torch.allclose(seen["student"], before, atol=1e-4)


def test_warm_up_moves_no_weight_and_builds_no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    graphs: list[bool] = []
    learn = bench.critic.learn

    def note(teacher: Tensor, student: Tensor, concept: Tensor) -> float:
        graphs.append(student.requires_grad)
        return learn(teacher, student, concept)

    monkeypatch.setattr(bench.critic, "learn", note)
    before = weights(bench.critic.network)
    bench.step(0)
    assert not any(bool(delta.any()) for delta in bench.masters.deltas.values())
    assert not same_bits(before, weights(bench.critic.network))
    bench.step(1)
    assert graphs == [False, True]
    assert any(bool(delta.any()) for delta in bench.masters.deltas.values())


def test_the_discriminator_s_step_sends_nothing_to_the_student() -> None:
    critic = Critic((4, 8, 8), 1, 1e-3, stream(0, "critic"), torch.device("cpu"))
    said = torch.randn(2, 4, 8, 8, requires_grad=True)
    critic.learn(torch.zeros(2, 4, 8, 8), said, torch.zeros(2, dtype=torch.long))
    assert said.grad is None


def test_surgery_acts_on_the_two_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    applied: dict[str, dict[str, Tensor]] = {}
    for surgery in ("off", "project", "add", "repo-v2"):
        bench = Bench(surgery=surgery)
        descend = bench.masters.descend

        def note(gradient: Mapping[str, Tensor], surgery: str = surgery, descend: Any = descend) -> None:
            applied[surgery] = dict(gradient)
            descend(gradient)

        monkeypatch.setattr(bench.masters, "descend", note)
        if surgery != "off":
            with borrowed(bench.toy.network, train=False):
                retain, _ = bench.method._retain(bench.toy, bench.masters, bench.course, 2)
        losses = bench.step(2)
        assert ("retain" in losses) == (surgery != "off")
    conflicts = 0
    for name, g in applied["off"].items():
        inner = float((g * retain[name]).sum())
        left = float((applied["project"][name] * retain[name]).sum())
        scale = float(g.norm() * retain[name].norm())
        assert torch.allclose(applied["add"][name], g + retain[name], atol=1e-6)
        if inner < 0:
            conflicts += 1
            assert abs(left) < 1e-5 * scale < abs(inner)
        else:
            assert torch.allclose(applied["project"][name], g, atol=1e-7)
    assert conflicts > 0


@pytest.mark.parametrize("knobs", [{"match": 0.0}, {"match": 2.0}, {"match": 5.0}, {"sees": "latent"}])
def test_the_student_steps_down_the_doubts_and_the_match(knobs: dict[str, Any]) -> None:
    bench = Bench(surgery="off", **knobs)
    toy, seen = bench.toy, overheard(bench.masters)
    lessons = bench.course.banks["erase"].lessons(2, toy)
    told = [picture.told for picture in lessons.pictures]
    assert lessons.said is not None and lessons.groups.tolist() == [0, 1]
    said = toy.predict(lessons.z, lessons.t, toy.encode(told))
    signal = toy.alphas_cumprod[lessons.t].float().view(-1, 1, 1, 1)
    shown = said if bench.method.sees == "noise" else (lessons.z - (1 - signal).sqrt() * said) / signal.sqrt()
    maps = bench.critic.network(shown)  # a map for each concept
    logits = torch.stack([maps[0, 0], maps[1, 1]])
    loss = -torch.sigmoid(logits).log().mean() + knobs.get("match", 0.0) * (said - lessons.said).square().mean()
    expected = slopes(toy.network, list(bench.masters.deltas), loss)
    bench.step(2)
    assert_same_slopes(seen, expected)


@pytest.mark.parametrize("surgery", ["add", "project"])
def test_surgery_changes_the_gradient_in_proportion_to_its_strength(
    surgery: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, found = Bench(surgery=surgery), {}
    monkeypatch.setattr(bench.critic, "learn", lambda *_: 0.0)  # so that every step has the same doubts
    for strength in (0.0, 1.0, 3.0):
        bench.method = bench.method.model_copy(update={"strength": strength})
        found[strength] = overheard(bench.masters)
        bench.step(2)
    added = {strength: {name: part - found[0.0][name] for name, part in found[strength].items()} for strength in found}
    assert_same_slopes(added[3.0], {name: 3 * part for name, part in added[1.0].items()})


def test_the_clean_latent_is_what_was_noised(toy: Toy) -> None:
    z0, noise = (
        torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in (0, 1)
    )
    t = torch.tensor([10, 500, 990])
    assert torch.allclose(toy.path.to_clean(noise, toy.path.add_noise(z0, noise, t), t), z0, atol=1e-6)


def test_the_student_learns_to_be_taken_for_the_teacher() -> None:
    toy = Toy()
    with torch.no_grad():  # an untrained network hardly hears its prompt; louder codes make a concept of it
        for layer in toy.readers().values():
            layer.weight.mul_(6)
    told: list[float] = []

    def note(step: Step) -> None:
        if step.stage == "tune":
            told.append(step.loss["discriminator"])

    knobs = {**QUICK, "iterations": 160, "warmup": 60, "batch": 4, "critic_lr": 1e-3, "surgery": "off"}
    drain(run_method(DoCo(**knobs), Request(toy, CONCEPTS[1:])), note)
    fresh, warm, late = (sum(told[at : at + 20]) / 20 for at in (0, 40, 140))
    assert warm < 0.8 < 1.2 < fresh  # it learns to tell them apart, from the coin's 2 log 2 on
    assert late > 1.3  # and no longer can


def test_a_discriminator_that_diverges_is_a_sentence_and_the_last_state_is_good(toy: Toy, cats: Concept) -> None:
    states: list[dict[str, Tensor]] = []
    method = DoCo(**{**QUICK, "iterations": 30, "critic_lr": 0.1})

    def spoil(step: Step) -> None:
        if step.stage == "tune":
            assert step.state is not None
            states.append({name: value.clone() for name, value in step.state().items()})

    bad = Critic.learn

    def learn(self: Critic, teacher: Tensor, student: Tensor, concept: Tensor) -> float:
        if len(states) == 3:
            student = student * float("inf")
        return bad(self, teacher, student, concept)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Critic, "learn", learn)
        with pytest.raises(FloatingPointError, match="discriminator's loss became nan; a smaller learning rate"):
            drain(run_method(method, Request(toy, [cats])), spoil)
    assert len(states) == 3 and all(bool(value.isfinite().all()) for value in states[-1].values())
    assert (
        drain(run_method(method, Request(toy, [cats]), state=states[-1])).hash
        == drain(run_method(method, Request(toy, [cats]))).hash
    )


def test_a_warm_up_as_long_as_the_run_is_refused() -> None:
    for warmup in (100, 200):
        with pytest.raises(BadInput, match="leaves none for erasing"):
            build("doco", None, {"iterations": 100, "warmup": warmup})
    assert build("doco", None, {"iterations": 100, "warmup": 99})


def test_lessons_of_both_banks_come_from_the_anchor_s_pictures() -> None:
    bench = Bench()
    banks: Mapping[str, NoisedImageCache] = bench.course.banks
    shown = {picture.shot.prompt for picture in banks["erase"].pictures}
    assert shown == {picture.instead for picture in banks["erase"].pictures}
    assert shown < {picture.told for picture in banks["retain"].pictures}
    assert "retain" not in Bench(surgery="off").course.banks


def test_confined_readers_make_the_same_of_the_start_code(toy: Toy, cats: Concept) -> None:
    far = strays(toy, cats, lambda confine: DoCo(**QUICK, confine=confine))  # type: ignore[arg-type]
    assert far["start"] < 1e-6 < 1e-4 < far["none"]


def test_the_stated_cost_is_the_counted_cost(toy: Toy, cats: Concept, gogh: Concept) -> None:
    for knobs, keep in (({}, []), ({"surgery": "off"}, [gogh]), ({"warmup": 0}, [gogh])):
        edit, forwards = counted(toy, DoCo(**{**QUICK, **knobs}), Request(toy, [cats], keep))
        assert forwards == edit.about["cost"]["teach_forwards"] + edit.about["cost"]["tune_forwards"], knobs
