"""Feature Unlearning for GANs (Moon, Cho, Kim; AAAI 2024, arXiv 2303.05699), on a latent target; details ours.

Of codes w whose images show the concept and codes whose images do not, e is the normalised difference of means.  A
student learns to draw every code as the frozen generator draws it without its excess along e,

    G_t(w) = G(w − max(0, p − t) e),   p = ⟨w − w_avg, e⟩,

with t the usual p of images without the concept.  No critic, no words, nobody who looks on during the training.  What
is kept has a direction of its own (by the model's scorer), and e is taken at right angles to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor

from erase.edit import Edit
from erase.gan.distillation import Part, aside, drawn_codes, layered, learning, multiscale_l1, students, teaching
from erase.gan.feedback import marked
from erase.model import Gan
from erase.request import Request
from erase.rng import stream
from erase.training.deltas import DeltaOptimizer, tune
from erase.work import Work, with_state


class FeatureUnlearn(BaseModel, frozen=True, extra="forbid"):
    """Teaches a GAN to draw each code as if its share of the concept had been taken out: quick, needs no critic."""

    paper: ClassVar[str] = "Feature Unlearning for Pre-trained GANs and VAEs (arXiv 2303.05699)"
    needs: ClassVar[type] = Gan
    presets: ClassVar[dict[str, dict[str, Any]]] = {"attribute": {}}

    marks: str = Field(
        "",
        description='JSON file {"yes": [seeds], "no": [seeds]} of a person\'s clicks; empty: use the model\'s scorer',
    )
    marked: int = Field(
        300, ge=8, le=100_000, description="images with, and as many without, from which the direction is learnt"
    )
    part: Part = Field(
        "synthesis", description="trained layers: synthesis, all but the colour layers · readers, the style layers only"
    )
    steps: int = Field(300, ge=1, le=100_000, description="optimiser steps")
    lr: float = Field(0.0016, gt=0, le=0.1, description="Adam's learning rate in units of unfolded weights")
    batch: int = Field(16, ge=2, le=1024, description="images per step, half of them with the concept")
    further: float = Field(
        0.0,
        ge=-5,
        le=5,
        description="target of the concept's component, in standard deviations below images without it",
    )

    def cost(self, request: Request) -> dict[str, float]:
        """Images of the frozen generator and of the student."""
        return {"teacher_images": 2 * self.marked + self.steps * self.batch, "gradient_steps": self.steps}

    def finish(self, request: Request, edit: Edit) -> Work[Edit]:
        """The edit with the name of whatever said which images show the concept."""
        yield from ()
        by = "marks" if self.marks else request.model.scorer(request.concepts[0]).name
        return Edit(edit.deltas, {**edit.about, "steered_by": by})

    def learn(self, request: Request, state: Mapping[str, Tensor]) -> Work[dict[str, Tensor]]:
        """Looks, then tunes; each Step's state resumes the job to the same bits."""
        model, concepts, keep, seed = request.model, request.concepts, request.keep, request.seed
        seen = yield from marked(model, concepts, self.marks, yes=self.marked, no=self.marked, seed=seed, state=state)
        present, absent = (drawn_codes(model, seeds.tolist()) for seeds in (seen.yes, seen.no))
        others = [model.contrast(concept) for concept in keep]
        kept = [other.present.mean(0) - other.absent.mean(0) for other in others]
        e = F.normalize(aside(present.mean(0) - absent.mean(0), kept), dim=0)
        masters = students(model, self.part, self.lr)
        one = partial(self._one, model, masters, present, absent, e, seed)
        yield from with_state(tune(self.steps, one, (masters,), state), seen.state())
        return masters.result()

    def _one(
        self, model: Gan, masters: DeltaOptimizer, present: Tensor, absent: Tensor, e: Tensor, seed: int, step: int
    ) -> dict[str, float]:
        rng, half = stream(seed, "batch", step), self.batch // 2
        some = [rows[torch.randint(len(rows), (half,), generator=rng).to(rows.device)] for rows in (present, absent)]
        w = torch.cat(some)
        wanted = teaching(model, layered(model, without(w, absent, e, self.further)))

        def losses() -> dict[str, Tensor]:
            drawn = model.synthesis(layered(model, w))
            return {
                "erase": multiscale_l1(drawn[:half], wanted[:half]),
                "keep": multiscale_l1(drawn[half:], wanted[half:]),
            }

        return learning(model, masters, losses)


def without(w: Tensor, absent: Tensor, e: Tensor, further: float = 0.0) -> Tensor:
    """Codes [n w] with their excess along the concept's direction e [w] taken out."""
    usual = (absent @ e).median() - further * (absent @ e).std()
    return w - ((w @ e) - usual).clamp(min=0)[:, None] * e
