"""AdvUnlearn: the adversary's prompt, its steps, and the loop around it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks.speed.methods import counted
from erase.borrow import borrowed, substituted
from erase.concept import Concept
from erase.errors import BadInput
from erase.methods.advunlearn import CHOICE, PLACES, AdvUnlearn, _Loop, _Seen
from erase.prompts.everyday import everyday, without
from erase.request import Request, run_method
from erase.rng import stream
from erase.training.deltas import DeltaOptimizer
from erase.training.prompt_adversary import PromptOptimizer, place, random_words
from erase.training.rollouts import Sampling, teach
from erase.training.slices import select
from erase.work import drain
from tests.erase.methods.slopes import assert_same_slopes, overheard, slopes, strayed
from tests.toys.compare import same_bits, weights
from tests.toys.denoiser import END, LENGTH, START, Toy

QUICK: dict[str, Any] = {
    "iterations": 4, "warmup": 1, "attack_steps": 3, "steps": 3, "seeds": 2, "templates": False, "lr": 1e-3,
    "retain": ("a boat", "a chair", "a cup", "a fork", "a spoon", "a bowl"), "keep_batch": 3,
}  # fmt: skip


@pytest.mark.parametrize("where", ["prefix", "suffix", "insert", "replace", "add"])
def test_a_placed_prompt_keeps_every_sub_token_in_order(toy: Toy, where: Any) -> None:
    words = toy.tokens("Van Gogh painting")
    assert len(words) > len(["Van", "Gogh", "painting"])  # words that split, as the headline concepts do
    placed = place(toy, words, 2, where)
    row = placed.ids[0].tolist()
    assert len(row) == LENGTH and row[0] == START
    inside = row[1 : row.index(END)]
    assert row[row.index(END) :] == [END] * (LENGTH - 1 - len(inside))
    if where in ("replace", "add"):
        assert inside == words and placed.slots == tuple(range(1, 1 + len(words)))
        assert placed.adds == (where == "add")
        return
    own = [number for at, number in enumerate(inside, 1) if at not in placed.slots]
    assert own == words and len(inside) == len(words) + 2
    assert placed.slots == {"prefix": (1, 2), "suffix": (5, 6), "insert": (3, 4)}[where]


def test_a_long_prompt_loses_words_but_no_free_vector_and_not_the_end(toy: Toy) -> None:
    for where in ("prefix", "suffix", "insert"):
        placed = place(toy, toy.tokens("cat " * 40), 3, where)
        assert placed.ids[0, -1] == END and max(placed.slots) < LENGTH - 1
    with pytest.raises(BadInput, match="reads 14 tokens; give 1 to 13"):
        place(toy, [5], 14, "prefix")
    with pytest.raises(BadInput, match="empty prompt"):
        place(toy, [], 1, "replace")


def test_free_vectors_stand_in_their_slots_and_table_rows_elsewhere(toy: Toy) -> None:
    words = toy.tokens("a cat")
    free = torch.randn(2, 1, 32, generator=torch.Generator().manual_seed(0))
    placed = place(toy, words, 1, "prefix")
    vectors = placed.vectors(toy, free)
    assert torch.equal(vectors[:, 1], free[:, 0])
    assert torch.equal(vectors[0, 2:4], toy.vocabulary[torch.tensor(words)])
    added = place(toy, words[:1], 1, "add").vectors(toy, free)
    assert torch.allclose(added[:, 1], toy.vocabulary[words[0]] + free[:, 0])
    own = toy.vocabulary[torch.tensor(words)].expand(1, -1, -1)
    again = place(toy, words, 1, "replace").read(toy, own)  # a prompt's own vectors in its own slots
    assert torch.allclose(again.tokens, toy.encode(["a cat"]).tokens, atol=1e-6)


def test_two_adam_steps_are_adams_and_gradients_do_not_pile_up() -> None:
    start = torch.tensor([[[1.0, -2.0]]])
    pull = torch.tensor([3.0, 5.0])

    def loss(step: int, free: torch.Tensor) -> torch.Tensor:
        return ((free - pull) ** 2).sum(dim=(1, 2)) * (1.0 if step == 0 else -0.1)

    mean, square, value = torch.zeros(2), torch.zeros(2), start[0, 0].clone()
    for step, sign in ((1, 1.0), (2, -0.1)):
        gradient = 2 * sign * (value - pull)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        value = value - 0.1 * (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
    free, losses = PromptOptimizer(2, 0.1).run(start, loss)
    assert torch.allclose(free[0, 0], value, atol=1e-6) and len(losses) == 2
    piled, _ = PromptOptimizer(2, 0.1, accumulate=True).run(start, loss)
    assert not torch.allclose(piled, free, atol=1e-3)


def test_one_fast_step_is_the_sign_of_the_gradient_and_is_used() -> None:
    start = torch.tensor([[[1.0, -2.0, 0.5]]])
    slope = torch.tensor([2.0, -0.1, 7.0])
    free, losses = PromptOptimizer(30, 0.25, "fast").run(start, lambda _, free: (free * slope).sum(dim=(1, 2)))
    assert torch.allclose(free - start, -0.25 * slope.sign()) and len(losses) == 1
    dropped, _ = PromptOptimizer(30, 0.25, "fast", drop_last=True).run(
        start, lambda _, free: (free * slope).sum(dim=(1, 2))
    )
    assert torch.equal(dropped, start)


@pytest.mark.parametrize("update", ["pgd", "adam"])
def test_with_a_radius_no_coordinate_leaves_its_box(update: Any) -> None:
    start = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(1))
    free, _ = PromptOptimizer(20, 0.1, update, radius=0.3).run(start, lambda _, free: (free * 5).sum(dim=(1, 2)))
    assert torch.allclose(free, start - 0.3, atol=1e-5)
    outside, _ = PromptOptimizer(20, 0.1, update).run(start, lambda _, free: (free * 5).sum(dim=(1, 2)))
    assert (outside - start).abs().max() > 0.5


def test_restarts_do_not_see_each_other() -> None:
    start = torch.randn(3, 1, 4, generator=torch.Generator().manual_seed(1))
    goal = torch.tensor([1.0, 2.0, 3.0, 4.0])
    loss = lambda _, free: ((free - goal) ** 2).sum(dim=(1, 2))  # noqa: E731
    together, _ = PromptOptimizer(5, 0.1).run(start, loss)
    alone = torch.cat([PromptOptimizer(5, 0.1).run(row[None], loss)[0] for row in start])
    assert torch.allclose(together, alone, atol=1e-7)


def test_the_attack_lowers_its_loss_on_a_fixed_lesson_and_leaves_the_model_alone(toy: Toy) -> None:
    before = weights(toy.network)
    placed = place(toy, toy.tokens("a cat"), 2, "prefix")
    z, t = torch.randn(2, *toy.latent_shape, generator=torch.Generator().manual_seed(0)), torch.tensor([300, 700])
    with torch.no_grad():
        goal = toy.predict(z, t, toy.encode(["a dog", "a dog"]))

    def loss(_: int, free: torch.Tensor) -> torch.Tensor:
        codes = placed.read(toy, free).repeat(2)
        return (toy.predict(z, t, codes) - goal).square().mean()[None]

    with borrowed(toy.network, train=False):
        _, losses = PromptOptimizer(40, 1e-2).run(random_words(toy, torch.Generator().manual_seed(0), 1, 2), loss)
    assert losses[-1] < 0.9 * losses[0]
    assert same_bits(before, weights(toy.network))
    assert all(parameter.grad is None for parameter in toy.network.parameters())


def test_nothing_to_push_and_nothing_to_keep_moves_nothing(toy: Toy, cats: Concept) -> None:
    """At η = −1 and before any attack the student is asked to be the teacher, which it is."""
    seen: list[dict[str, float]] = []
    method = AdvUnlearn(**{**QUICK, "eta": -1.0, "warmup": 4, "lr": 1e-12})
    drain(
        run_method(method, Request(toy, [cats])),
        lambda step: seen.append(dict(step.loss)) if step.stage == "tune" else None,
    )
    assert len(seen) == 4
    assert max(losses["erase"] for losses in seen) < 1e-6 and max(losses["retain"] for losses in seen) < 1e-6
    assert "attack" not in seen[0]


@pytest.mark.parametrize(
    ("train", "named"),
    [("text[0]", "layers.0."), ("text[1]", "layers.1."), ("text", "text."), ("kv", "attn2")],
)
def test_only_the_named_slice_moves_and_no_table_does(toy: Toy, cats: Concept, train: str, named: str) -> None:
    edit = drain(run_method(AdvUnlearn(**QUICK, train=train), Request(toy, [cats])))
    assert edit.deltas and all(named in name for name in edit.deltas)
    assert not any("embedding" in name for name in edit.deltas)
    both = drain(run_method(AdvUnlearn(**QUICK, train="text[0]+kv"), Request(toy, [cats])))
    assert set(both.deltas) == {f"text.text_model.{n.removeprefix('text.').removeprefix('text_model.')}"
                                for n in select(toy.network, "text[0]")} | set(select(toy.network, "kv"))  # fmt: skip


def test_training_the_text_encoder_asks_for_no_gradient_of_the_unet(toy: Toy, cats: Concept) -> None:
    asked: set[str] = set()

    def look(step: Any) -> None:
        asked.update(name for name, parameter in toy.network.named_parameters() if parameter.requires_grad)

    drain(run_method(AdvUnlearn(**QUICK), Request(toy, [cats])), look)
    assert not asked


def test_forwards_are_what_the_cost_says(toy: Toy, cats: Concept, gogh: Concept) -> None:
    for more in ({}, {"restarts": 2, "draws": 3, "batch": 2}, {"update": "fast"}, {"faithful": True}, {"refresh": 2}):
        method = AdvUnlearn(**{**QUICK, **more})
        with counted(toy.network["unet"]) as forwards:
            edit = drain(run_method(method, Request(toy, [cats, gogh])))
        cost = edit.about["cost"]
        assert forwards() == cost["teach_forwards"] + cost["tune_forwards"], more
    plain = AdvUnlearn(**QUICK).cost(Request(None, [cats]))
    assert plain["attack_forwards"] == 3 * 3 and plain["tune_forwards"] == 3 * 3 + 4 * (1 + 3)


def test_the_attack_sees_the_student_not_the_teacher(toy: Toy, cats: Concept) -> None:
    """After training has moved the encoder, the adversary's first loss is that of the moved encoder."""
    method = AdvUnlearn(**{**QUICK, "iterations": 2, "warmup": 1, "lr": 0.1, "attack_steps": 1, "attack_lr": 1e-9})
    losses = [dict(step.loss) for step in _steps(method, toy, cats) if step.stage == "tune"]
    still = AdvUnlearn(**{**QUICK, "iterations": 2, "warmup": 1, "lr": 1e-12, "attack_steps": 1, "attack_lr": 1e-9})
    unmoved = [dict(step.loss) for step in _steps(still, toy, cats) if step.stage == "tune"]
    assert abs(losses[1]["attack"] - unmoved[1]["attack"]) > 0.05 * unmoved[1]["attack"]


def _steps(method: AdvUnlearn, toy: Toy, concept: Concept) -> list[Any]:
    steps: list[Any] = []
    drain(run_method(method, Request(toy, [concept])), steps.append)
    return steps


def test_published_slips_are_off_by_default_and_change_the_edit(toy: Toy, gogh: Concept) -> None:
    right, slipped = (
        drain(run_method(AdvUnlearn(**QUICK, faithful=wrong), Request(toy, [gogh]))) for wrong in (False, True)
    )
    assert right.hash != slipped.hash


def test_everyday_prompts_leave_the_erased_out() -> None:
    words = everyday([Concept(name="Cats"), Concept(name="Van Gogh painting", kind="style")])
    assert "a photo of cat" not in words and "a photo of dog" in words
    assert "a painting" not in words and "an oil painting" not in words
    assert len(words) == len(set(words)) > 90
    assert without(["the cat", "a cathedral"], [Concept(name="cats")]) == ["a cathedral"]


def test_retained_prompts_are_distinct_and_name_nothing_erased(toy: Toy, cats: Concept) -> None:
    edit = drain(
        run_method(
            AdvUnlearn(**{**QUICK, "retain": ("two cats", "a boat", "a boat")}),
            Request(toy, [cats], [Concept(name="Dogs")]),
        )
    )
    assert edit.about["retained"] == ["Dogs", "a boat"]
    alone = drain(run_method(AdvUnlearn(**{**QUICK, "gamma": 0.0}), Request(toy, [cats])))
    assert alone.about["cost"]["kept_rollouts"] == 0


@pytest.mark.parametrize(("knobs", "sentence"), [({"train": "text[9]"}, "no parameter"), ({"train": "unet"}, "slice")])
def test_a_wrong_slice_is_a_sentence(toy: Toy, cats: Concept, knobs: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        drain(run_method(AdvUnlearn(**QUICK, **knobs), Request(toy, [cats])))


def test_masters_of_text_and_unet_are_worn_together(toy: Toy) -> None:
    names = [*select(toy.network, "text[0]"), *select(toy.network, "kv")]
    masters = DeltaOptimizer(toy.network, names, 1e-3)
    with torch.no_grad():
        for delta in masters.deltas.values():
            delta.add_(0.1)
    plain = toy.encode(["a cat"]).tokens
    with substituted(toy.network, masters.weights()):
        assert not torch.allclose(toy.encode(["a cat"]).tokens, plain)


class Bench:
    """One iteration's surroundings: a toy, its rollouts of cats and of what is kept, and what the step descends."""

    def __init__(self, **knobs: Any) -> None:
        self.method = AdvUnlearn(**{**QUICK, "batch": 2, "tokens": 2, "draws": 2, "seeds": 3, **knobs})
        self.toy, cats = Toy(), [Concept(name="Cats")]
        how = Sampling(0, 3.0, 3, dtype=torch.float32)
        self.bank = drain(teach(self.toy, self.method._rollouts(cats), "teach", ("present", "absent"), how))
        self.kept = drain(teach(self.toy, self.method._kept_rollouts(cats, []), "teach kept", ("present",), how))
        self.names = select(self.toy.network, "text[0]")
        self.masters = DeltaOptimizer(self.toy.network, self.names, self.method.lr)
        self.placed = self.method._placed(self.toy, "Cats", "prefix")
        self.loop = _Loop(self.method, self.toy, self.masters, _Seen(), self.bank, self.kept, "absent", ["Cats"],
                          {(0, "prefix"): self.placed}, 0)  # fmt: skip

    def distance(self, free: torch.Tensor, *purpose: str | int, n: int) -> torch.Tensor:
        """How far the prompt with these vectors before it is from drawing cats, on n lessons of a stream."""
        lessons = self.bank.lessons(stream(0, *purpose), n, self.toy, 0)
        said = self.toy.predict(lessons.z, lessons.t, self.attacked(free).repeat(n))
        return (said - lessons.said["present"]).square().mean()

    def attacked(self, free: torch.Tensor) -> Any:
        """The codes of two free vectors and then the word, written out."""
        ids = self.toy.frame([[5, 5, *self.toy.tokens("Cats")]])
        own = self.toy.vocabulary[ids[0]]
        return self.toy.read(ids, torch.cat([own[:1], free, own[3:]])[None])


@pytest.mark.parametrize("gamma", [0.5, 3.0])
@pytest.mark.parametrize("attacked", [False, True])
def test_the_step_is_that_of_the_attacked_prompt_and_of_what_is_retained(attacked: bool, gamma: float) -> None:
    bench = Bench(gamma=gamma, eta=1.5)
    toy, seen = bench.toy, overheard(bench.masters)
    strayed(bench.masters, toy.network)  # so that there is something to retain
    free = 3 * torch.randn(2, 32, generator=stream(0, "free"))
    bench.loop.seen.free = free if attacked else None
    told = bench.loop._update(7)

    lessons = bench.bank.lessons(stream(0, "teach", 7), 2, toy, 0)
    codes = bench.attacked(free) if attacked else toy.encode(["Cats"])
    present, absent = lessons.said["present"], lessons.said["absent"]
    goal = absent - 1.5 * (present - absent)
    erase = (toy.predict(lessons.z, lessons.t, codes.repeat(2)) - goal).square().mean()
    kept = bench.kept.lessons(stream(0, "keep", 7), 3, toy)
    prompts = [bench.kept.rollouts[row].prompt for row in kept.rollout.tolist()]
    retain = (toy.predict(kept.z, kept.t, toy.encode(prompts)) - kept.said["present"]).square().mean()
    assert told == pytest.approx({"erase": float(erase.detach()), "retain": gamma * float(retain.detach())}, rel=1e-3)
    assert_same_slopes(seen, slopes(toy.network, bench.names, erase + gamma * retain))


def test_the_attacked_prompt_is_where_adam_ends_on_the_way_to_the_concept() -> None:
    bench = Bench(attack_steps=8, attack_lr=0.05)
    (start,) = random_words(bench.toy, stream(0, "adversary", 4), 1, 2)
    free = start.clone().requires_grad_(True)
    adam = torch.optim.Adam([free], lr=0.05)
    for step in range(8):
        adam.zero_grad()
        bench.distance(free, "attack", 4, step, n=2).backward()
        adam.step()
    bench.loop._attack(4)
    found = bench.loop.seen.free
    assert found is not None
    torch.testing.assert_close(found, free.detach(), rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        before, after = (float(bench.distance(each, "held out", n=32)) for each in (start, found))
    assert after < 0.9 * before


def test_the_latest_attack_is_gone_on_from_where_that_is_asked_for() -> None:
    for init in ("latest", "random"):
        bench = Bench(attack_steps=1, attack_lr=1e-9, init=init)
        found = []
        for turn in range(2):
            bench.loop._attack(turn)
            assert bench.loop.seen.free is not None
            found.append(bench.loop.seen.free)
        assert torch.allclose(found[0], found[1], atol=1e-6) == (init == "latest")


def test_every_text_has_its_turn_and_mixed_places_take_turns() -> None:
    bench = Bench(place="mixed", attack_steps=1)
    bench.loop.texts = ["Cats", "a cat", "two cats"]
    turns = [bench.loop._turn(i) for i in range(9)]
    assert [sorted(turns[lap : lap + 3]) for lap in (0, 3, 6)] == 3 * [[0, 1, 2]]
    assert turns[:3] != turns[3:6] or turns[3:6] != turns[6:]
    bench.loop.placed = {
        (turn, where): bench.method._placed(bench.toy, text, where)
        for turn, text in enumerate(bench.loop.texts)
        for where in PLACES
    }
    bench.loop.bank = replace(bench.bank, rollouts=[replace(r, group=n % 3) for n, r in enumerate(bench.bank.rollouts)])
    shown = []
    for i in range(5):
        bench.loop._attack(i)
        shown.append((bench.loop.seen.turn, bench.loop.seen.where))
    assert shown == [(turns[i], ("prefix", "suffix", "insert", "replace", "prefix")[i]) for i in range(5)]


def test_the_anchor_is_the_target_where_that_is_asked_for(toy: Toy) -> None:
    def first(target: str, anchor: str) -> float:
        method = AdvUnlearn(**{**QUICK, "eta": 0.0, "target": target, "iterations": 1, "warmup": 1})
        concept = Concept(name="Cats", anchor=anchor)
        return next(step.loss["erase"] for step in _steps(method, toy, concept) if step.stage == "tune")

    assert first("negative", "dogs") == first("negative", "")
    assert abs(first("anchor", "dogs") / first("anchor", "") - 1) > 0.05


def test_the_published_slip_labels_latents_noisier_and_asks_the_teacher_there() -> None:
    bench = Bench(faithful=True)
    lessons = bench.bank.lessons(stream(0, "test"), 6, bench.toy, 0)
    slipped = bench.loop._mislabelled(lessons, stream(0, "slip"))
    assert torch.equal(slipped.z, lessons.z)
    shift = (slipped.t - lessons.t)[lessons.t + 58 < 1000]
    assert len(shift) > 1 and all(39 <= by <= 58 for by in shift.tolist())
    with torch.no_grad():
        present, absent = (bench.toy.predict(lessons.z, slipped.t, bench.toy.encode([text] * 6))
                           for text in ("Cats", ""))  # fmt: skip
    torch.testing.assert_close(slipped.said["present"], present)
    torch.testing.assert_close(slipped.said["absent"], absent)


def test_of_several_restarts_the_strongest_is_shown() -> None:
    bench = Bench(attack_steps=1, attack_lr=1e-9, restarts=5)
    starts = random_words(bench.toy, stream(0, "adversary", 1), 5, 2)
    with torch.no_grad():
        far = torch.stack([bench.distance(start, "choice", 1, n=CHOICE) for start in starts])
    assert int(far.argmin()) != 0
    bench.loop._attack(1)
    assert bench.loop.seen.free is not None
    torch.testing.assert_close(bench.loop.seen.free, starts[far.argmin()], rtol=0, atol=1e-6)
