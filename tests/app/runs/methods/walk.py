"""Not a paper: a random walk of the readers' weights, slow enough to be killed, exact enough to compare."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from erase.about import provenance
from erase.edit import Edit
from erase.loan import stream
from erase.model import Concept, Generator
from erase.work import Step, Work


class Walk(BaseModel, frozen=True, extra="forbid"):
    """Adds a little noise at every step; each step depends on the one before."""

    paper: ClassVar[str] = "none"
    needs: ClassVar[type] = Generator
    presets: ClassVar[dict[str, dict[str, Any]]] = {"long": {"steps": 1000}}

    steps: int = Field(8, ge=1, le=10_000, description="length of the walk")
    pause: float = Field(0.0, ge=0, description="seconds each step takes at least")
    fail_at: int = Field(0, ge=0, description="the step that fails; 0 is none")

    def erase(
        self,
        model: Generator,
        concepts: Sequence[Concept],
        keep: Sequence[Concept] = (),
        *,
        seed: int = 0,
        state: Mapping[str, Tensor] | None = None,
    ) -> Work[Edit]:
        """Walk from the state, or from nothing."""
        deltas = {f"{name}.weight": torch.zeros(reader.weight.shape) for name, reader in model.readers().items()}
        first = 0
        if state is not None:
            first = int(state["done"])
            deltas = {name: state[f"delta.{name}"].clone() for name in deltas}
        for step in range(first, self.steps):
            if step + 1 == self.fail_at:
                raise RuntimeError("the walk was told to fail")
            for name, delta in deltas.items():
                delta.mul_(0.9).add_(torch.randn(delta.shape, generator=stream(seed, "walk", name, step)) / 1000)
            time.sleep(self.pause)

            def snapshot(done: int = step + 1) -> dict[str, Tensor]:
                return {"done": torch.tensor(done), **{f"delta.{name}": delta for name, delta in deltas.items()}}

            yield Step("walk", step + 1, self.steps, {"length": float(step + 1)}, state=snapshot)
        return Edit(deltas, provenance(self, model, concepts, keep, seed))
