"""Noised-image banks: equal pictures once, every picture in turn, and the teacher asked at the very place."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from erase.concept import Concept
from erase.errors import BadInput
from erase.prompts.templates import spoken
from erase.training import noised_images
from erase.training.noised_images import (
    Course,
    NoisedImageCache,
    Phrases,
    Picture,
    drawings,
    plainly,
    portray,
    prepare,
    spared,
)
from erase.work import drain
from tests.toys.denoiser import Toy


class Asked:
    batch, steps, guidance = 4, 3, 4.5


def texts() -> list[list[tuple[str, str]]]:
    return [spoken(Concept(name="Van Gogh", kind="style"), True), spoken(Concept(name="Cats"), ("a photo of {}",))]


def pictures() -> dict[str, list[Picture]]:
    anchors = portray(texts(), 4, 5, anchors=True)
    return {"erase": anchors, "retain": [*plainly(anchors), *spared([[("Dogs", "")]], 2, 5, 2)]}


@pytest.fixture
def course(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> Course:
    monkeypatch.setattr(noised_images, "STORED", torch.float32)
    return drain(prepare(toy, Asked(), pictures(), {"erase": 3}, 5, {}))


def test_what_is_stored_is_what_the_teacher_says_of_the_anchor_at_that_place(toy: Toy, course: Course) -> None:
    bank = course.banks["erase"]
    for step in range(3):
        lessons = bank.lessons(step, toy)
        assert lessons.said is not None
        for row, picture in enumerate(lessons.pictures):
            with torch.no_grad():
                instead = toy.predict(lessons.z[row][None], lessons.t[row], toy.encode([picture.instead]))
                told = toy.predict(lessons.z[row][None], lessons.t[row], toy.encode([picture.told]))
            assert torch.allclose(lessons.said[row], instead[0], atol=1e-5)
            assert not torch.allclose(lessons.said[row], told[0], atol=1e-5)


def test_z_is_the_picture_under_the_noise(toy: Toy, course: Course) -> None:
    lessons = course.banks["retain"].lessons(2, toy)
    for row, picture in enumerate(lessons.pictures):
        [z0] = drain(toy.latents([picture.shot], steps=3, guidance=4.5))
        signal = float(toy.path.signal[lessons.t[row]]) ** 2
        assert torch.allclose(lessons.z[row], signal**0.5 * z0 + (1 - signal) ** 0.5 * lessons.noise[row], atol=1e-4)
        assert picture.told == picture.instead == picture.shot.prompt
    again = course.banks["retain"].lessons(2, toy)
    assert torch.equal(again.z, lessons.z) and torch.equal(again.t, lessons.t)
    assert not torch.equal(course.banks["retain"].lessons(3, toy).noise, lessons.noise)


def test_an_epoch_shows_every_picture_once_and_concepts_take_turns() -> None:
    shown = portray(texts(), 6, 0, anchors=True)
    bank = NoisedImageCache("erase", shown, torch.zeros(len(shown), 1), 4, 0)
    counts = Counter(len(group) for group in bank.groups)
    assert counts == {6: 2}
    epochs = [[bank._row(lesson) for lesson in range(epoch * 12, epoch * 12 + 12)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert [shown[row].group for row in epochs[0]] == [0, 1] * 6


def test_times_are_uniform_and_spread_over_a_batch(toy: Toy) -> None:
    bank = NoisedImageCache("erase", portray(texts(), 4, 0, anchors=True), torch.zeros(8, *toy.latent_shape), 5, 0)
    fifths = Counter[int]()
    for step in range(400):
        t = bank.lessons(step, toy).t
        assert sorted((t // 200).tolist()) == [0, 1, 2, 3, 4]
        fifths.update((t % 200 // 40).tolist())
    assert sum((count - 400) ** 2 / 400 for count in fifths.values()) < 18.5  # 99.9 % of χ² with four degrees


def test_anchor_pictures_serve_both_banks_and_are_drawn_once() -> None:
    both = pictures()
    shots = drawings(both)
    assert len(shots) == len(both["erase"]) + 2 == len(both["retain"])
    assert [picture.shot for picture in both["erase"]] == [
        picture.shot for picture in both["retain"][: len(both["erase"])]
    ]
    assert len({shot.seed for shot in shots}) == len(shots)
    of_concepts = portray(texts(), 4, 5, anchors=False)
    assert all(picture.shot.prompt == picture.told for picture in of_concepts)
    assert all(picture.shot.prompt == picture.instead for picture in both["erase"])


def test_every_caption_names_the_concept_and_its_twin_the_anchor() -> None:
    for picture in portray(texts(), 12, 0, anchors=True):
        word, other = (("Van Gogh", "painting"), ("Cats", ""))[picture.group]
        assert word in picture.told and word not in picture.instead
        assert picture.told.replace(word, other).split() == picture.instead.split()


def test_an_interrupted_bank_goes_on_to_the_same_bits(toy: Toy) -> None:
    many = {"erase": portray(texts(), 10, 5, anchors=True)}  # drawn in two goes
    whole = drain(prepare(toy, Asked(), many, {"erase": 4}, 5, {}))
    for stop in range(1, 2 * 3 + 4):
        work = prepare(toy, Asked(), many, {"erase": 4}, 5, {})
        step = [next(work) for _ in range(stop)][-1]
        assert step.state is not None
        state = {name: value.clone() for name, value in step.state().items()}
        work.close()
        left: list[object] = []
        resumed = drain(prepare(toy, Asked(), many, {"erase": 4}, 5, state), left.append)
        assert all(torch.equal(resumed.state[name], value) for name, value in whole.state.items())
        assert len(left) == 10 - stop


def test_each_text_is_read_once(toy: Toy) -> None:
    phrases = Phrases(toy, ["Cats", "Dogs", "Cats"])
    assert len(phrases._codes) == 2
    with torch.no_grad():
        assert torch.equal(phrases(["Dogs", "Dogs", "Cats"]).tokens, toy.encode(["Cats", "Dogs"]).tokens[[1, 1, 0]])


def test_a_bank_that_would_not_fit_is_refused(toy: Toy) -> None:
    with pytest.raises(BadInput, match="GiB; use fewer seeds"):
        drain(prepare(toy, Asked(), pictures(), {"erase": 10**7}, 5, {}))
