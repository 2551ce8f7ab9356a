"""Text-to-Unlearn's parts: clauses, the valley between two groups, the direction, and codes taken back along it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from erase.borrow import substituted
from erase.concept import Concept
from erase.errors import BadInput
from erase.gan.distillation import drawn_codes, layered, multiscale_l1, students
from erase.gan.mapper import Lesson
from erase.methods import text_unlearn
from erase.methods.feature_unlearn import without
from erase.methods.text_unlearn import Direction, Pool, TextUnlearn, Together, clauses, ridge, taken_back, valley
from erase.rng import stream
from erase.training.deltas import DeltaOptimizer
from erase.work import drain
from tests.toys.gan import Pixels, ToyGan


def test_a_prompt_falls_into_clauses() -> None:
    assert clauses(Concept(name="eyeglasses and beard", kind="attribute")) == ["eyeglasses", "beard"]
    assert clauses(Concept(name="grey hair", kind="attribute")) == ["grey hair"]
    assert clauses(Concept(name="x", prompts=("hat, beard", "hat"))) == ["hat", "beard"]


def test_the_valley_lies_between_two_groups_of_any_size() -> None:
    torch.manual_seed(0)
    scores = torch.cat([torch.randn(900) * 0.1, 1 + torch.randn(100) * 0.1])
    assert 0.3 < float(valley(scores)) < 0.8
    assert int((scores > valley(scores)).sum()) == 100


def test_ridge_finds_the_slope_and_shrinks_it() -> None:
    torch.manual_seed(0)
    x, true = torch.randn(500, 4), torch.tensor([1.0, -2.0, 0.0, 0.5])
    torch.testing.assert_close(ridge(x, x @ true, 1e-6), true, atol=1e-3, rtol=1e-3)
    assert ridge(x, x @ true, 1.0).norm() < 0.6 * true.norm()


@pytest.fixture
def found() -> tuple[ToyGan, torch.Tensor, torch.Tensor, Direction]:
    gan, eye = ToyGan(), Pixels()
    w = drawn_codes(gan, range(128))
    words = torch.randn(12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        scores = eye.images(gan.synthesis(layered(gan, w)) / 2 + 0.5) @ words
    return gan, w, scores, Direction.found(Pool(gan, eye, w), scores, words, "bright", -1.0)


def test_the_step_adds_what_the_words_score(found: tuple[ToyGan, torch.Tensor, torch.Tensor, Direction]) -> None:
    gan, w, _, edit = found
    with torch.no_grad():
        seen = [
            Pixels().images(gan.synthesis(layered(gan, part)) / 2 + 0.5) @ edit.words for part in (w, w + edit.step)
        ]
    assert float((seen[1] - seen[0]).mean()) > 0
    assert float(edit.towards.norm()) == pytest.approx(1.0) and edit.blur > 0


def test_codes_are_taken_back_to_the_usual_and_no_further(
    found: tuple[ToyGan, torch.Tensor, torch.Tensor, Direction],
) -> None:
    _, w, scores, edit = found

    def read(codes: torch.Tensor) -> torch.Tensor:
        return (codes - edit.centre) @ edit.slope + scores.mean()

    back = taken_back(w, [edit])
    high = read(w) > float(edit.bare) + 1e-4
    assert 2 < int(high.sum()) < len(w)
    torch.testing.assert_close(read(back)[high], edit.bare.expand(int(high.sum())), atol=1e-3, rtol=1e-3)
    assert torch.equal(back[~high], w[~high]) or float((back[~high] - w[~high]).abs().max()) < 1e-4
    twice = taken_back(w, [edit], 2.0)
    assert bool((read(twice)[high] < read(back)[high]).all())


def test_pairs_that_agree_on_nothing_are_refused(found: tuple[ToyGan, torch.Tensor, torch.Tensor, Direction]) -> None:
    gan, w, scores, edit = found
    with pytest.raises(BadInput, match="not one direction"):
        Direction.found(Pool(gan, Pixels(), w), scores, edit.words, "bright", 0.9999)
    with pytest.raises(BadInput, match="too few"):
        Direction.found(Pool(gan, Pixels(), w[:3]), torch.tensor([0.0, 0.0, 1.0]), edit.words, "bright", -1.0)


def test_features_are_taken_out_only_where_there_is_an_excess() -> None:
    torch.manual_seed(0)
    absent, present = torch.randn(200, 3), torch.randn(200, 3) + torch.tensor([4.0, 0, 0])
    w = torch.tensor([[6.0, 1.0, 2.0], [-3.0, 1.0, 2.0]])
    e = F.normalize(present.mean(0) - absent.mean(0), dim=0)
    out = without(w, absent, e)
    assert abs(float(out[0, 0])) < 0.6 and torch.allclose(out[0, 1:], w[0, 1:], atol=0.5)
    assert torch.equal(out[1], w[1])
    assert float(without(w, absent, e, further=1.0)[0, 0]) < float(out[0, 0]) - 0.5


def test_unlikeness_is_a_distance() -> None:
    one, other = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
    assert float(multiscale_l1(one, one)) == 0 and float(multiscale_l1(one, other)) == pytest.approx(1)


def test_images_without_the_clause_show_no_excess(found: tuple[ToyGan, torch.Tensor, torch.Tensor, Direction]) -> None:
    gan, w, _, edit = found
    with torch.no_grad():
        seen = Pixels().images(gan.synthesis(layered(gan, w)) / 2 + 0.5)
    excess = edit.excess(seen)
    assert float(excess.min()) == 0.0
    assert float(excess[edit.having].mean()) > 3 * float(excess[~edit.having].mean())
    at_full = edit.words * (edit.full / edit.words.square().sum())
    torch.testing.assert_close(edit.excess(at_full[None]), torch.ones(1), atol=1e-3, rtol=0)


def test_several_encoders_look_together() -> None:
    both = Together([Pixels(), Pixels()])
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        both.images(images) @ both.texts(["a", "bb"]).T, Pixels().images(images) @ Pixels().texts(["a", "bb"]).T
    )


def test_what_is_kept_is_spared_by_the_direction(
    found: tuple[ToyGan, torch.Tensor, torch.Tensor, Direction],
) -> None:
    gan, w, scores, edit = found
    kept = ridge(w - w.mean(0), torch.randn(len(w), generator=torch.Generator().manual_seed(2)))
    spared = Direction.found(Pool(gan, Pixels(), w), scores, edit.words, "bright", -1.0, [kept])
    assert abs(float(spared.step @ kept)) < 1e-4 * float(spared.step.norm() * kept.norm())
    assert float((spared.step @ edit.slope) / (edit.step @ edit.slope)) == pytest.approx(1.0, abs=1e-3)


def test_a_mapper_learns_where_the_words_are_and_length_scales_its_step(
    found: tuple[ToyGan, torch.Tensor, torch.Tensor, Direction],
) -> None:
    gan, w, scores, edit = found
    lesson = Lesson(gan, Pixels(), w[~edit.having], edit.words, 0)
    for step in range(60):
        lesson.one(step)
    lesson.load(lesson.learnt())
    told = Direction.found(Pool(gan, Pixels(), w), scores, edit.words, "bright", -1.0, (), lesson.mapper)
    some = w[~edit.having][:16]
    with torch.no_grad():
        seen = [Pixels().images(gan.synthesis(told.moved(gan, some, n)) / 2 + 0.5) @ edit.words for n in (0.0, 1.0)]
        assert torch.equal(told.moved(gan, some, 0.0), layered(gan, some))
        one, two = (told.moved(gan, some, n) - layered(gan, some) for n in (1.0, 2.0))
    torch.testing.assert_close(2 * one, two, atol=1e-5, rtol=1e-4)
    gained = float((seen[1] - seen[0]).mean())
    assert gained > 0.3 * float(edit.full - edit.bare) and told.reach > 0


def of_one_step(
    found: tuple[ToyGan, Tensor, Tensor, Direction], cleared: Tensor, monkeypatch: pytest.MonkeyPatch, **knobs: Any
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The losses of a strayed student, and the images they should be made of."""
    gan, w, _, edit = found
    masters = students(gan, "synthesis", 1e-3)
    with torch.no_grad():
        for name, delta in masters.deltas.items():
            delta.add_(0.15 * torch.randn(delta.shape, generator=stream(0, name)))
    told: dict[str, Tensor] = {}

    def learning(model: ToyGan, masters: DeltaOptimizer, work: Callable[[], Mapping[str, Tensor]]) -> dict[str, float]:
        with torch.no_grad(), substituted(model.network, masters.weights()):
            told.update(work())
        return {}

    monkeypatch.setattr(text_unlearn, "learning", learning)
    method = TextUnlearn(batch=24, **knobs)
    method._one(Pool(gan, Pixels(), w), masters, cleared, [edit], 0, 5)

    rng = stream(0, "batch", 5)
    torch.randint(1, (), generator=rng)
    rows = [where.nonzero()[:, 0] for where in (edit.having, ~edit.having, ~edit.having)]
    carrier, clean, bare = (row[torch.randint(len(row), (8,), generator=rng)] for row in rows)
    length = 0.5 + 2.5 * torch.rand(8, 1, generator=rng)
    codes = {"carrier": w[carrier], "cleared": cleared[carrier], "clean": w[clean], "bare": w[bare]}
    codes["edited"] = w[bare] + length * edit.step
    drawn: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, code in codes.items():
            drawn[f"teacher {name}"] = gan.synthesis(layered(gan, code))
        with substituted(gan.network, masters.weights()):
            for name in ("carrier", "clean", "edited"):
                drawn[name] = gan.synthesis(layered(gan, codes[name]))
    return told, drawn


def test_the_losses_of_a_step_are_the_equations(
    found: tuple[ToyGan, Tensor, Tensor, Direction], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, w, _, edit = found
    cleared = w + torch.randn(w.shape, generator=stream(0, "cleared"))  # far from where they came from
    weights = {"direction": 1.5, "repair": 0.5, "natural": 3.0, "unseen": 2.0, "hold": 0.25}
    told, drawn = of_one_step(found, cleared, monkeypatch, **weights, enough=0.95)
    seen = {name: Pixels().images(images / 2 + 0.5) for name, images in drawn.items()}
    removed = seen["teacher edited"] - seen["edited"]
    lost = 1 - removed @ edit.towards / (removed.square().sum(1) + edit.blur**2).sqrt()
    added = (seen["teacher edited"] - seen["teacher bare"]) @ edit.towards
    left = ((seen["edited"] - seen["teacher bare"]) @ edit.towards) / added.clamp(min=1e-4)
    counted = left > 0.95  # until enough of the concept is gone
    assert 0 < int(counted.sum()) < len(left)
    excess = ((seen["carrier"] @ edit.words - edit.bare) / (edit.full - edit.bare)).clamp(min=0)
    torch.testing.assert_close(told["direction"], 1.5 * (lost * counted).mean())
    torch.testing.assert_close(told["repair"], 0.5 * multiscale_l1(drawn["edited"], drawn["teacher bare"]))
    torch.testing.assert_close(told["natural"], 3.0 * multiscale_l1(drawn["carrier"], drawn["teacher cleared"]))
    torch.testing.assert_close(told["unseen"], 2.0 * excess.mean())
    torch.testing.assert_close(told["hold"], 0.25 * multiscale_l1(drawn["clean"], drawn["teacher clean"]))
    assert set(told) == set(weights)


def test_codes_are_cleared_until_the_encoder_sees_the_clause_no_more(
    found: tuple[ToyGan, Tensor, Tensor, Direction],
) -> None:
    gan, w, _, edit = found
    cleared = drain(TextUnlearn()._cleared(gan, Pixels(), w, [edit], {}))
    assert torch.equal(cleared[~edit.having], w[~edit.having])

    def sees(codes: Tensor) -> Tensor:
        with torch.no_grad():
            return Pixels().images(gan.synthesis(layered(gan, codes)) / 2 + 0.5) @ edit.words > edit.threshold

    left = edit.having.nonzero()[:, 0]
    assert bool(sees(w[left]).all())
    for amount in text_unlearn.AMOUNTS:  # each code goes as far as the first amount that is enough, or all the way
        tried = taken_back(w[left], [edit], amount)
        gone = ~sees(tried) if amount < text_unlearn.AMOUNTS[-1] else torch.ones(len(left), dtype=torch.bool)
        torch.testing.assert_close(cleared[left[gone]], tried[gone])
        left = left[~gone]
    assert int(sees(cleared).sum()) < int(edit.having.sum())


def test_the_direction_lies_along_what_the_step_adds_in_the_encoder_s_eyes(
    found: tuple[ToyGan, Tensor, Tensor, Direction],
) -> None:
    gan, w, scores, edit = found
    bare = w[~edit.having][:64]
    with torch.no_grad():
        plain, added = (Pixels().images(gan.synthesis(layered(gan, c)) / 2 + 0.5) for c in (bare, bare + edit.step))
    torch.testing.assert_close(edit.towards, F.normalize((added - plain).mean(0), dim=0))
    assert edit.blur == pytest.approx(0.05 * float((added - plain).norm(dim=1).mean()))
    gap = scores[edit.having].mean() - scores[~edit.having].mean()
    assert float(edit.step @ edit.slope) == pytest.approx(float(gap), rel=1e-4)
