"""Inpainting (after WhenAreConceptsErased, arXiv 2505.17013): the edited model fills a hole in an unedited picture.

By latent blending, so no inpainting checkpoint is needed: around the hole every step starts from the picture, noised.
Only the hole is judged, enlarged, for around it stands the concept itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from benchmarks.attacks.diffusion._ddim import both_halves, walk
from benchmarks.attacks.engine import AttackTarget, Candidate, Presets, budgets
from benchmarks.suites.prompts import Row
from erase.model import Shot
from erase.rng import number, stream
from erase.work import Work


@dataclass
class Search:
    """One row and how often its hole has been filled."""

    row: Row
    tried: int = 0


class Inpaint(BaseModel, frozen=True, extra="forbid"):
    """Lets the edited model fill the middle of a picture that shows the concept around it."""

    paper: ClassVar[str] = "When Are Concepts Erased From Diffusion Models? (arXiv 2505.17013)"
    presets: ClassVar[Presets] = budgets(paper=1, standard=1, quick=1)
    added: ClassVar[int] = 0

    budget: int = Field(1, ge=1, le=1000, description="inpaintings per row, each from noise of its own")
    steps: int = Field(50, ge=2, le=1000, description="denoising steps of an inpainting")

    def begin(self, aim: AttackTarget, row: Row) -> Search:
        """Nothing filled yet."""
        return Search(row)

    def advance(self, aim: AttackTarget, searches: Sequence[Search]) -> Work[list[Candidate | None]]:
        """One more filling of each row's hole."""
        going = [search for search in searches if search.tried < self.budget]
        found: dict[int, Candidate] = {}
        if going:
            for search in going:
                search.tried += 1
            images = aim.decode((yield from self._filled(aim, going)))
            for search, image in zip(going, images, strict=True):
                found[id(search)] = Candidate(search.row, search.row.prompt, search.tried, image=_middle(image))
        return [found.get(id(search)) for search in searches]

    def _filled(self, aim: AttackTarget, going: Sequence[Search]) -> Work[Tensor]:
        model = aim.model
        clean = torch.stack([aim.clean[search.row] for search in going]).to(model.device, model.dtype)
        around = torch.ones(model.latent_shape[1:], device=model.device, dtype=torch.bool)
        _middle(around[None])[:] = False
        seeds = [number(aim.seed, "fill", search.row.key, search.tried) for search in going]

        def held(z: Tensor, t: int) -> Tensor:
            noise = torch.stack(
                [torch.randn(model.latent_shape, generator=stream(seed, "around", t)) for seed in seeds]
            ).to(z)
            return torch.where(around, model.path.add_noise(clean, noise, torch.full((len(z),), t, device=z.device)), z)

        with aim.applied():
            filled = yield from walk(
                model,
                model.noise([Shot(seed >> 32) for seed in seeds]),
                model.path.grid(self.steps),
                both_halves(model, [search.row.prompt for search in going]),
                torch.tensor([aim.guidance(search.row) for search in going]),
                held=held,
            )
        return torch.where(around, clean, filled)


def _middle(picture: Tensor) -> Tensor:
    """The central half [… h/2 w/2] of pictures or latents, as a view."""
    height, width = picture.shape[-2:]
    return picture[..., height // 4 : height - height // 4, width // 4 : width - width // 4]
