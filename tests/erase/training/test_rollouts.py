"""Rollout banks: a lesson is what the teacher would have said there, and lessons are drawn evenly."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from erase.concept import Concept
from erase.errors import BadInput
from erase.model import Codes, Shot
from erase.prompts.templates import spoken
from erase.rng import number, stream
from erase.training.rollouts import RolloutCache, Sampling, plan, teach
from erase.work import drain
from tests.toys.denoiser import Toy

STEPS = 5


def taught(toy: Toy, **knobs: object) -> RolloutCache:
    texts = [spoken(Concept(name="Van Gogh", kind="style"), False), spoken(Concept(name="Cats"), ("a photo of {}",))]
    asked = {"seed": 7, "guidance": 4.5, "steps": STEPS, "batch": 2, "dtype": torch.float32, **knobs}
    state = asked.pop("state", None)
    heard = ("present", "absent", "instead")
    return drain(teach(toy, plan(texts, 3, every=True), "teach", heard, Sampling(**asked), state))  # type: ignore[arg-type]


def test_a_lesson_equals_a_rollout_of_its_own(toy: Toy) -> None:
    bank = taught(toy)
    assert [rollout.prompt for rollout in bank.rollouts] == ["Van Gogh"] * 3 + ["Cats", "a photo of Cats", "Cats"]
    for row in (0, 4):
        shot = Shot(number(7, "teach", row) % 2**31, bank.rollouts[row].prompt)
        alone = drain(toy.trajectory([shot], guidance=4.5, steps=STEPS))
        assert torch.allclose(bank.z[row], alone.z[0], atol=1e-5)
        assert torch.allclose(bank.said["present"][row], alone.present[0], atol=1e-5)
    assert not torch.allclose(bank.z[0], bank.z[1], atol=1e-2)  # seeds differ


def test_what_is_stored_is_what_the_teacher_says_at_that_place(toy: Toy) -> None:
    bank = taught(toy)
    for row, step in ((1, 0), (4, 3)):
        said = bank.rollouts[row]
        for name, prompt in (("present", said.prompt), ("absent", ""), ("instead", said.instead)):
            with torch.no_grad():
                fresh = toy.predict(bank.z[row, step][None], bank.t[step], toy.encode([prompt]))
            assert torch.allclose(bank.said[name][row, step], fresh[0], atol=1e-5), name
    # Rows 0 and 4 have different words and anchors, so a swapped half would have been seen.
    assert not torch.allclose(bank.said["present"], bank.said["instead"], atol=1e-4)


def test_draws_are_even_over_rollouts_and_steps_and_spread_within_a_batch(toy: Toy) -> None:
    bank = taught(toy)
    rows, steps = Counter[int](), Counter[int]()
    for turn in range(600):
        row, _ = bank.draw(stream(0, "test", turn), 4)
        assert Counter(bank.rollouts[at].group for at in row.tolist()) == {0: 2, 1: 2}
        rows.update(row.tolist())
        steps.update(bank.draw(stream(1, "test", turn), 1)[1].tolist())
        assert sorted(bank.draw(stream(2, "test", turn), STEPS)[1].tolist()) == list(range(STEPS))
    for counts, kinds in ((rows, 6), (steps, STEPS)):
        expected = counts.total() / kinds
        chi = sum((counts[kind] - expected) ** 2 / expected for kind in range(kinds))
        assert chi < 20  # the 99.9 % point of χ² with five degrees of freedom


def test_an_interrupted_bank_goes_on_to_the_same_bits(toy: Toy) -> None:
    whole = taught(toy)
    for stop in (1, STEPS + 1, 4 * STEPS):
        texts = [
            spoken(Concept(name="Van Gogh", kind="style"), False),
            spoken(Concept(name="Cats"), ("a photo of {}",)),
        ]
        asked = {"seed": 7, "guidance": 4.5, "steps": STEPS, "batch": 2, "dtype": torch.float32}
        heard = ("present", "absent", "instead")
        work = teach(toy, plan(texts, 3, every=True), "teach", heard, Sampling(**asked))  # type: ignore[arg-type]
        step = [next(work) for _ in range(stop)][-1]
        assert step.state is not None
        state = {name: value.clone() for name, value in step.state().items()}
        work.close()
        resumed = taught(toy, state=state)
        assert torch.equal(resumed.z, whole.z) and torch.equal(resumed.t, whole.t)
        assert all(torch.equal(resumed.said[name], whole.said[name]) for name in whole.said)


def test_texts_take_turns() -> None:
    texts = [[("a", ""), ("b", ""), ("c", "")], [("d", ""), ("e", "")]]
    assert [rollout.prompt for rollout in plan(texts, 1, every=True)] == ["a", "b", "c", "d", "e"]
    # One rollout for each of many kept concepts: not always the same wording.
    assert [rollout.prompt for rollout in plan(texts, 1, every=False)] == ["a", "e"]
    assert [rollout.group for rollout in plan(texts, 2, every=False)] == [0, 0, 1, 1]


def test_a_bank_that_would_not_fit_is_refused(toy: Toy) -> None:
    with pytest.raises(BadInput, match="GiB; use fewer seeds"):
        taught(toy, steps=10**8)


def test_codes_batch_and_repeat() -> None:
    codes = Codes(torch.arange(6.0).view(3, 2, 1), torch.arange(3.0)[:, None])
    assert len(codes[1]) == 1 and codes[-1].tokens.flatten().tolist() == [4.0, 5.0]
    assert codes[torch.tensor([2, 0])].pooled.flatten().tolist() == [2.0, 0.0]  # type: ignore[union-attr]
    assert codes.repeat(2).tokens[:, 0, 0].tolist() == [0.0, 0.0, 2.0, 2.0, 4.0, 4.0]
    with pytest.raises(ValueError, match="pooled"):
        Codes.cat([codes, Codes(codes.tokens)])
