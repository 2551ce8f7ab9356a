"""What each attack asks of the model: whose picture, at which noise, told what, with the edit or without."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.attacks.diffusion import _likeness, ring_a_bell
from benchmarks.attacks.diffusion._likeness import Likeness
from benchmarks.attacks.diffusion.hard_prompt import HardPrompt, Search, Space
from benchmarks.attacks.diffusion.inversion import said
from benchmarks.attacks.diffusion.paraphrase import Paraphrase
from benchmarks.attacks.diffusion.ring_a_bell import RingABell
from benchmarks.attacks.engine import AttackTarget, chase
from benchmarks.attacks.registry import build
from benchmarks.attacks.run import attack
from benchmarks.attacks.settings import AttackSettings
from benchmarks.suites.prompts import suite_rows
from erase.rng import stream
from erase.work import Step, drain
from tests.benchmarks.attacks.attacking import GOGH, Asked, Listener, Says, aim_at, rows, shaken
from tests.benchmarks.doubles import TINY
from tests.toys.denoiser import Toy


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))


class Scene:
    """A listening toy that wears an edit when asked to, rows, and an attack on them."""

    def __init__(self, name: str, count: int = 3, **knobs: Any) -> None:
        self.toy, self.rows, self.how = Listener(), rows(count), build(name, None, knobs)
        self.aim = aim_at(self.toy, self.rows, shaken(self.toy, 0.3))
        self.searches = [self.how.begin(self.aim, row) for row in self.rows]
        self.toy.forget()

    @property
    def clean(self) -> Tensor:
        return torch.stack([self.aim.clean[row] for row in self.rows])

    def advance(self) -> list[float]:
        """One round; the losses of its steps."""
        losses: list[float] = []

        def note(step: Step) -> None:
            losses.extend(step.loss.values())

        drain(self.how.advance(self.aim, self.searches), note)
        return losses


def under(toy: Toy, z0: Tensor, noise: Tensor, times: Sequence[int]) -> Tensor:
    signal = toy.alphas_cumprod[torch.tensor(times)].float().view(-1, 1, 1, 1)
    return signal.sqrt() * z0 + (1 - signal).sqrt() * noise


def off(one: Tensor, other: Tensor) -> float:
    return float((one - other).square().mean())


def test_unlearndiffatk_asks_the_edited_model_about_each_row_s_own_picture_at_its_level() -> None:
    scene = Scene("unlearndiffatk", budget=4, iterations=2)
    assert scene.how.rounds == [(0.25, 2), (0.75, 2)]  # type: ignore[attr-defined]
    scene.searches[2].level = 1  # it is further than the others
    losses = scene.advance()
    assert len(losses) == len(scene.toy.asked) == len(scene.toy.noised) == 2
    for asked, (z0, noise, times), loss in zip(scene.toy.asked, scene.toy.noised, losses, strict=True):
        assert torch.equal(z0, scene.clean) and times == asked.times == [250, 250, 750]
        torch.testing.assert_close(asked.z, under(scene.toy, z0, noise, times))
        assert asked.edited
        assert loss == pytest.approx(off(asked.said, noise), rel=1e-5)
    assert not torch.equal(scene.toy.noised[0][1], scene.toy.noised[1][1])


def test_p4d_s_teacher_is_the_unedited_model_told_the_clean_prompt() -> None:
    scene = Scene("hard-prompt", budget=4, check=2, tokens=3)
    losses = scene.advance()
    toy, (teacher, student) = scene.toy, (scene.toy.asked[:2], scene.toy.asked[2:])
    assert len(student) == len(losses) == 2
    with torch.no_grad():
        prompts = toy.encode([row.prompt for row in scene.rows]).tokens
    for asked, (z0, noise, times) in zip(teacher, toy.noised, strict=True):
        assert torch.equal(z0, scene.clean) and times == asked.times and len(set(times)) > 1
        torch.testing.assert_close(asked.z, under(toy, z0, noise, times))
        assert not asked.edited
        torch.testing.assert_close(asked.codes, prompts)
    for asked, lesson, loss in zip(student, teacher, losses, strict=True):
        assert asked.edited and asked.times == lesson.times and torch.equal(asked.z, lesson.z)
        assert not torch.allclose(asked.codes, prompts)
        assert loss == pytest.approx(off(asked.said, lesson.said), rel=1e-5)


def test_free_vectors_of_hard_prompts_go_down_as_adamw_takes_them_and_are_read_as_the_nearest_words() -> None:
    how = HardPrompt(lr=0.2, weight_decay=0.3)
    start = torch.randn(3, 4, generator=stream(0, "free"))
    search = Search(rows(1)[0], [None] * 3, start.clone(), torch.zeros_like(start), torch.zeros_like(start))
    theirs = start.clone().requires_grad_(True)
    reference = torch.optim.AdamW([theirs], lr=0.2, weight_decay=0.3, betas=(0.9, 0.999), eps=1e-8)
    for step in range(4):
        gradient = torch.randn(3, 4, generator=stream(0, "gradient", step))
        theirs.grad = gradient.clone()
        reference.step()
        how._update(search, gradient)
        torch.testing.assert_close(search.free, theirs.detach())
    table = torch.randn(9, 4, generator=stream(0, "table"))
    space = Space.of(table, torch.tensor([2, 5, 7]))
    assert space.nearest(torch.stack([3 * table[7], 0.1 * table[2], table[5]])).tolist() == [2, 0, 1]


def test_inversion_learns_on_the_edited_model_from_pictures_that_no_row_asks_for() -> None:
    scene = Scene("inversion", budget=3, images=4, pictures_per_step=5, checks=1)
    losses = [loss for loss in scene.advance() if loss]
    toy, ((shots, edited, pictures),) = scene.toy, scene.toy.drawn
    assert not edited and len(shots) == 4
    offered = suite_rows(TINY, GOGH, 100)
    assert {shot.prompt for shot in shots} <= {row.prompt for row in offered}
    assert not {shot.seed for shot in shots} & {row.seed for row in [*offered, *scene.rows]}
    assert len({shot.seed for shot in shots}) == 4
    learning = [asked for asked in toy.asked if asked.codes.shape[0] == 5]
    assert len(learning) == len(losses) == 3
    for asked, (z0, noise, times), loss in zip(learning, toy.noised, losses, strict=True):
        assert asked.edited and asked.times == times
        torch.testing.assert_close(asked.z, under(toy, z0, noise, times))
        assert loss == pytest.approx(off(asked.said, noise), rel=1e-5)
    z0 = toy.noised[0][0]
    which = torch.cdist(z0.flatten(1), pictures.flatten(1)).argmin(1)
    assert torch.equal(z0, pictures[which]) and len(set(which.tolist())) > 1
    name = toy.vocabulary[toy.tokens("Van Gogh")].mean(0)  # where the word begins
    for row, place in enumerate(which.tolist()):
        tokens, (at,), _ = said(scene.aim, shots[place].prompt, 1)
        ids = toy.frame([tokens])
        vectors = toy.vocabulary[ids].clone()
        vectors[0, 1 + at] = name
        with torch.no_grad():
            torch.testing.assert_close(learning[0].codes[row], toy.read(ids, vectors).tokens[0])


def test_ring_a_bell_s_direction_leads_from_the_anchor_to_the_concept() -> None:
    scene = Scene("ring-a-bell")
    present = [row.prompt for row in suite_rows(TINY, GOGH, 20)]
    absent = [prompt.replace("Van Gogh", "painting") for prompt in present]
    assert present[0] != absent[0]
    with torch.no_grad():
        expected = (scene.toy.encode(present).tokens - scene.toy.encode(absent).tokens).mean(0)
    torch.testing.assert_close(ring_a_bell.direction(scene.aim), expected, atol=1e-5, rtol=1e-4)


def test_ring_a_bell_keeps_the_prompts_nearest_to_its_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, goals = Scene("ring-a-bell", count=1), []
    how, row, measured = RingABell(budget=12, population=12, length=5, eta=2.0, checks=2), scene.rows[0], {}
    distances = ring_a_bell.distances

    def noted(aim: AttackTarget, some: Tensor, goal: Tensor) -> Tensor:
        goals.append(goal)
        found = distances(aim, some, goal)
        measured.update(zip(map(tuple, some.tolist()), found.tolist(), strict=True))
        return found

    monkeypatch.setattr(ring_a_bell, "distances", noted)
    least: list[float] = []
    found = drain(how._searched(scene.aim, row), lambda step: least.append(step.loss["distance"]))
    with torch.no_grad():
        expected = scene.toy.encode([row.prompt]).tokens[0] + 2.0 * ring_a_bell.direction(scene.aim)
    torch.testing.assert_close(goals[0], expected, atol=1e-5, rtol=1e-4)
    assert least == sorted(least, reverse=True)
    assert [measured[tokens] for _, tokens in found] == [least[at - 1] for at, _ in found]
    assert least[-1] == min(measured.values()) < least[0]


def test_pez_compares_each_row_s_words_with_its_own_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene("unlearndiffatk")
    table = torch.randn(6, 3, generator=stream(0, "words"))

    class Side:
        def see(self, images: Tensor) -> Tensor:
            return F.normalize(images.mean((2, 3)), dim=1)

        def say(self, some: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
            vectors = table[torch.tensor(some)].requires_grad_(True)
            return F.normalize(vectors.mean(1), dim=1), vectors

    monkeypatch.setattr(_likeness, "text_side", lambda aim: Side())
    likeness = Likeness(scene.aim, scene.rows)
    drain(likeness.prepare())
    tokens = [[0, 1], [2, 3], [4, 5]]
    seen = F.normalize(scene.toy.decode(scene.clean).mean((2, 3)), dim=1)
    told = F.normalize(table[torch.tensor(tokens)].mean(1), dim=1)
    assert likeness.gradients(0, tokens)[1] == pytest.approx(float(1 - (told * seen).sum(1).mean()))


def stepped(toy: Toy, asked: Asked, guidance: float, to: int | None) -> Tensor:
    """Where deterministic DDIM goes from a guided call, whose second half is without the prompt."""
    present, absent = asked.said.chunk(2)
    noise = (1 - guidance) * absent + guidance * present
    here = float(toy.alphas_cumprod[asked.times[0]])
    there = 1.0 if to is None else float(toy.alphas_cumprod[to])
    return there**0.5 * (asked.z.chunk(2)[0] - (1 - here) ** 0.5 * noise) / here**0.5 + (1 - there) ** 0.5 * noise


def test_a_completion_is_begun_by_the_unedited_model_and_ended_by_the_edited_one() -> None:
    scene = Scene("completion", budget=2, steps=21)
    toy = scene.toy
    scene.advance()
    scene.advance()
    once, twice = toy.asked[:21], toy.asked[21:]
    assert [asked.edited for asked in once] == [False] + 20 * [True]
    assert [asked.edited for asked in twice] == 2 * [False] + 19 * [True]
    with torch.no_grad():
        prompts, empty = toy.encode([row.prompt for row in scene.rows]).tokens, toy.encode([""] * 3).tokens
    for walked in (once, twice):
        assert torch.equal(walked[0].z[:3], toy.noise([row.shot for row in scene.rows]))
        assert [asked.times[0] for asked in walked] == [round(1000 * (1 - k / 21)) - 1 for k in range(21)]
        for asked, then in pairwise(walked):
            torch.testing.assert_close(asked.codes, torch.cat([prompts, empty]))
            expected = stepped(toy, asked, toy.default_guidance, then.times[0])
            torch.testing.assert_close(then.z, torch.cat([expected, expected]), atol=1e-4, rtol=1e-4)


def test_inpainting_is_held_to_each_row_s_picture_around_the_hole_and_drawn_with_the_edit() -> None:
    scene = Scene("inpaint", budget=1, steps=4)
    toy = scene.toy
    scene.advance()
    hole = torch.zeros(8, 8, dtype=torch.bool)
    hole[2:6, 2:6] = True
    assert len(toy.asked) == len(toy.noised) == 4
    for asked, (z0, noise, times) in zip(toy.asked, toy.noised, strict=True):
        assert asked.edited and torch.equal(z0, scene.clean) and times == asked.times[:3]
        around = under(toy, scene.clean, noise, times)
        torch.testing.assert_close(asked.z[:3][..., ~hole], around[..., ~hole])
    for asked, then in pairwise(toy.asked):
        inside = stepped(toy, asked, toy.default_guidance, then.times[0])
        torch.testing.assert_close(then.z[:3][..., hole], inside[..., hole], atol=1e-4, rtol=1e-4)


def test_near_words_are_the_nearest_in_the_model_s_table() -> None:
    class Lettered(Toy):
        def spell(self, row: Sequence[int]) -> str:
            return "".join("abcdefghij"[int(digit)] for digit in f"{row[0]:04d}")

    toy = Lettered()
    aim = aim_at(toy, [])
    own = toy.vocabulary[toy.tokens("Van Gogh")].mean(0)
    likeness = F.cosine_similarity(own[None], toy.vocabulary)
    likeness[list(toy.specials)] = -2
    expected = [toy.spell([number]) for number in likeness.argsort(descending=True).tolist()[:4]]
    assert Paraphrase(near=4)._near(aim) == expected


def test_tries_are_drawn_with_the_edit_and_pictures_to_attack_without() -> None:
    scene = Scene("seed-search", budget=1)
    aim = scene.aim
    drain(chase(scene.how, aim, scene.rows, lambda *_: None, 8))
    assert [edited for _, edited, _ in scene.toy.drawn] == [True]
    scene.toy.forget()
    shows = Says(lambda number, image: number < 3)  # in the unedited pictures alone
    how = build("seed-search", None, {"budget": 1})
    settings = AttackSettings(suite=TINY, rows=scene.rows, probe=shows, confirm=shows, utility=False)
    drain(attack(scene.toy, aim.edit, "Van Gogh", how, settings))
    (_, first, _), (_, second, _), (shots, third, _) = scene.toy.drawn
    assert (first, second, third) == (False, True, True)
    assert [shot.prompt for shot in shots] == [row.prompt for row in scene.rows]
    assert not {shot.seed for shot in shots} & {row.seed for row in scene.rows}
