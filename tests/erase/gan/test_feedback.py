"""Who says what an image shows, and that what is kept stays as frequent in what is learnt from."""

from __future__ import annotations

import pytest
import torch

from erase.concept import Concept
from erase.gan.feedback import Marks, balanced, marked, pictures, raked
from erase.work import drain
from tests.toys.gan import ToyGan


def test_raking_meets_every_rate() -> None:
    rng = torch.Generator().manual_seed(0)
    shown = (torch.rand(400, 3, generator=rng) < torch.tensor([0.8, 0.2, 0.5])).double()
    shown[:, 1] = torch.where(torch.rand(400, generator=rng) < 0.7, shown[:, 0], shown[:, 1])  # they go together
    wanted = torch.tensor([0.5, 0.5, 0.25], dtype=torch.float64)
    weights = raked(shown, wanted)
    torch.testing.assert_close(weights @ shown, wanted, atol=1e-3, rtol=0)
    assert float(weights.sum()) == 1.0 or abs(float(weights.sum()) - 1) < 1e-9
    alike = torch.ones(10, 1, dtype=torch.float64)
    torch.testing.assert_close(raked(alike, wanted[:1]), torch.full((10,), 0.1, dtype=torch.float64))


def test_what_is_learnt_from_shows_what_is_kept_as_often_as_all_images_do() -> None:
    gan, keep = ToyGan(), [Concept(name="hat", kind="attribute")]
    scorer = gan.scorer(keep[0])

    def rate(seeds: torch.Tensor) -> float:
        with torch.no_grad():
            images = gan.synthesis(gan.mapping(gan.latents(seeds.tolist()))) / 2 + 0.5
        return float((scorer(images.clamp(0, 1)) > 0.5).float().mean())

    everyone = torch.arange(10_000, 11_000)
    with torch.no_grad():
        shown = scorer((gan.synthesis(gan.mapping(gan.latents(everyone.tolist()))) / 2 + 0.5).clamp(0, 1)) > 0.5
    skewed = torch.cat([everyone[shown][:40], everyone[~shown][:160]])
    marks = Marks(torch.arange(8), skewed, "test")
    even = drain(balanced(gan, marks, keep, 0, {}))
    assert abs(rate(even.no) - rate(everyone)) < 0.06 < abs(rate(skewed) - rate(everyone))
    assert len(even.no) == len(skewed) and set(even.no.tolist()) <= set(skewed.tolist())
    assert torch.equal(even.yes, marks.yes) and drain(balanced(gan, marks, [], 0, {})) is marks


def test_marked_seeds_draw_what_the_scorer_is_sure_of() -> None:
    gan = ToyGan()
    concepts = [Concept(name="hat", kind="attribute"), Concept(name="bright", kind="attribute")]
    found = drain(marked(gan, concepts, "", yes=12, no=10, seed=3, state={}))
    assert (len(found.yes), len(found.no)) == (12, 10)

    def sure(seeds: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            images = (gan.synthesis(gan.mapping(gan.latents(seeds.tolist()))) / 2 + 0.5).clamp(0, 1)
        return torch.stack([gan.scorer(concept)(images) for concept in concepts])

    yes, no = sure(found.yes), sure(found.no)
    assert bool((yes >= 0.6).any(0).all())  # any of the concepts is enough
    assert not bool((yes >= 0.6).all(0).all())
    assert bool((no <= 0.4).all())


@pytest.mark.parametrize("cached", [0, 2**30])
def test_pictures_are_those_of_the_chosen_seeds(cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erase.gan.feedback.CACHED", cached)
    gan, seeds = ToyGan(), torch.tensor([5, 9, 11, 40])
    shown = pictures(gan, seeds)(torch.tensor([0.3, 0.99, 0.0]))
    with torch.no_grad():
        expected = gan.synthesis(gan.mapping(gan.latents([9, 40, 5])))
    torch.testing.assert_close(
        shown, expected.clamp(-1, 1) if cached else expected, atol=0.5 / 127 if cached else 1e-6, rtol=0
    )
