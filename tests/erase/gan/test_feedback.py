"""Who says what an image shows, and that what is kept stays as frequent in what is learnt from."""

from __future__ import annotations

import torch

from erase.concept import Concept
from erase.gan.feedback import Marks, balanced, raked
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
