"""Prompt boundary: moves codes along the directions of other wordings and their neighbourhood."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor

from benchmarks.attacks.gan.base import LENGTHS, AttackTarget
from erase.gan.distillation import layered
from erase.methods.text_unlearn import ridge
from erase.model import Gan
from erase.rng import stream
from erase.work import Step, Work
from generators.pocket.faces.words import BEFORE, CLAUSE, WITH, WITHOUT


class PromptBoundary(BaseModel, frozen=True, extra="forbid"):
    """Adds the concept along directions that other wordings, and word vectors near them, point to."""

    paper: ClassVar[str] = "Prompting Forgetting, prompts near the erased one (arXiv 2504.01218); details ours"
    needs: ClassVar[type] = Gan
    presets: ClassVar[dict[str, dict[str, Any]]] = {"quick": {"budget": 6}, "paper": {"budget": 16}}
    budget: int = Field(16, ge=1, le=10_000, description="directions tried on every image, each at three lengths")

    def search(self, model: Gan, aim: AttackTarget) -> Work[tuple[Tensor, list[str]]]:
        """For each image without the concept, the moved code [n layer w] in which the steering probe is surest."""
        best = torch.full((len(aim.without),), -1.0)
        codes, said = layered(model, aim.without).clone(), [""] * len(best)
        ways = list(aim.directions())[: self.budget]
        for done, (words, step) in enumerate(ways, 1):
            for length in LENGTHS:
                moved = layered(model, aim.without + length * step)
                with torch.no_grad():
                    sure = aim.scorer((model.synthesis(moved) / 2 + 0.5).clamp(0, 1)).cpu()
                for row in (sure > best).nonzero()[:, 0].tolist():
                    best[row], codes[row], said[row] = sure[row], moved[row], f"{words}, {length:g} times"
            yield Step("rephrase", done, len(ways))
        return codes, said


@torch.no_grad()
def directions(model: Gan, w: Tensor, target: str, seed: int, cone: float = 20.0) -> list[tuple[str, Tensor]]:
    """Steps [w] that raise the scores of wordings by the usual difference: each wording, then its neighbourhood."""
    eye = model.encoder("pocket-clip")
    seen = torch.cat([eye.images(model.synthesis(layered(model, part)) / 2 + 0.5) for part in w.split(64)])
    lacking = eye.texts([f"a face {words}" for words in WITHOUT[target]]).mean(0)
    ways = [f"a {word} face" for word in dict.fromkeys(BEFORE.get(target, ()))]
    ways += [f"a face with {word}" for word in dict.fromkeys(WITH[target])]
    ways += [f"a person {words}" for words in dict.fromkeys(CLAUSE.get(target, ()))]
    vectors = list(zip(ways, eye.texts(ways), strict=True))
    rng, near = stream(seed, "cone"), math.tan(math.radians(cone))
    for number in range(16):
        words, text = vectors[number % len(ways)]
        aside = torch.randn(len(text), generator=rng).to(text)
        aside = F.normalize(aside - (aside @ text) * text, dim=0)
        vectors.append((f"{words} and {cone:g}° aside", F.normalize(text + near * aside, dim=0)))
    found = []
    for words, text in vectors:
        scores = seen @ (text - lacking)
        slope = ridge(w - w.mean(0), scores - scores.mean())
        high = scores > scores.median()
        gap = scores[high].mean() - scores[~high].mean()
        found.append((words, 2 * gap * slope / slope.square().sum()))
    return found
