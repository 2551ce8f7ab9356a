"""Code inversion: searches the codes of images that the GAN used to draw."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, Field
from torch import Tensor

from benchmarks.attacks.gan.base import AttackTarget, descend
from erase.gan.distillation import layered, multiscale_l1
from erase.model import Gan
from erase.work import Work


class Inversion(BaseModel, frozen=True, extra="forbid"):
    """Optimises codes, then one per layer, until the GAN draws what it drew before the edit."""

    paper: ClassVar[str] = "Recovery by inversion, after StyleGAN2 projection (arXiv 1912.04958)"
    needs: ClassVar[type] = Gan
    presets: ClassVar[dict[str, dict[str, Any]]] = {"quick": {"budget": 60}, "paper": {"budget": 300}}
    budget: int = Field(300, ge=2, le=100_000, description="optimiser steps, in the second half with a code a layer")
    lr: float = Field(0.05, gt=0, le=10, description="Adam's learning rate, in standard deviations of codes")

    def search(self, model: Gan, aim: AttackTarget) -> Work[tuple[Tensor, list[str]]]:
        """Codes [n layer w], one for each image."""
        found = yield from descend(
            model, layered(model, aim.with_it), aim, self.lr, self.budget,
            lambda drawn: (multiscale_l1(drawn, aim.images) * len(drawn)),
        )  # fmt: skip
        return found, ["an inverted code"] * len(found)
