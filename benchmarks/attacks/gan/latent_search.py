"""Latent search: searches codes whose images convince the probe that steers."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, Field
from torch import Tensor

from benchmarks.attacks.gan.base import AttackTarget, descend
from erase.gan.distillation import layered
from erase.model import Gan
from erase.work import Work


class LatentSearch(BaseModel, frozen=True, extra="forbid"):
    """Optimises codes of images without the concept until the probe that may steer sees it, within the usual range."""

    paper: ClassVar[str] = "Search of the latent space; ours"
    needs: ClassVar[type] = Gan
    presets: ClassVar[dict[str, dict[str, Any]]] = {"quick": {"budget": 40}, "paper": {"budget": 200}}
    budget: int = Field(200, ge=2, le=100_000, description="optimiser steps, in the second half with a code a layer")
    lr: float = Field(0.05, gt=0, le=10, description="Adam's learning rate, in standard deviations of codes")

    def search(self, model: Gan, aim: AttackTarget) -> Work[tuple[Tensor, list[str]]]:
        """Codes [n layer w], one for each image without the concept."""

        def unseen(drawn: Tensor) -> Tensor:
            return -aim.scorer((drawn / 2 + 0.5).clamp(0, 1)).clamp(1e-6, 1).log().sum()

        found = yield from descend(model, layered(model, aim.without), aim, self.lr, self.budget, unseen)
        return found, ["a searched code"] * len(found)
