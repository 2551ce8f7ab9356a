"""Adversarial prompts in word-vector space: where free vectors stand in a prompt, and how they are driven.

The adversary of AdvUnlearn (arXiv 2405.15234, eq. 3) and of the continuous attacks: vectors δ, placed among a prompt's
own words, that lower a loss through the text encoder and the noise predictor while both stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from erase.errors import BadInput
from erase.model import Codes, Denoiser

Place = Literal["prefix", "suffix", "insert", "replace", "add"]
Update = Literal["adam", "pgd", "fast"]


@dataclass(frozen=True)
class Placed:
    """A prompt with free vectors in it: framed tokens `ids` [1 token] and the positions they take.

    With `adds` the free vectors are added to the words that stand there, otherwise they stand in their place.
    """

    ids: Tensor
    slots: tuple[int, ...]
    adds: bool = False

    def vectors(self, model: Denoiser, free: Tensor) -> Tensor:
        """Word vectors [n token word] of the prompt with free vectors [n slot word] in their places."""
        with torch.no_grad():
            own = model.embed(self.ids).expand(len(free), -1, -1)
        at = torch.tensor(self.slots, device=own.device)
        free = free.to(own.dtype)
        return own.index_add(1, at, free) if self.adds else own.index_copy(1, at, free)

    def read(self, model: Denoiser, free: Tensor) -> Codes:
        """The codes [n token code] of the prompt with each of the n sets of free vectors, differentiable in both."""
        return model.read(self.ids.expand(len(free), -1), self.vectors(model, free))


def place(model: Denoiser, words: Sequence[int], count: int, where: Place) -> Placed:
    """`count` free vectors before, after or amid the sub-tokens of a prompt; `replace` and `add` take the words' own.

    All sub-tokens stay in order; a prompt too long for the encoder loses its last words, never a free vector or the
    end. Raises BadInput if there is no room, or nothing to replace.
    """
    room, opening = model.room, model.opening
    if where in ("replace", "add"):
        if not words:
            raise BadInput(f"Free words cannot {where} the words of an empty prompt; put them before it (prefix).")
        kept = list(words[:room])
        return Placed(model.frame([kept]), tuple(range(opening, opening + len(kept))), where == "add")
    if not 1 <= count < room:
        raise BadInput(f"{count} free words do not fit: this model reads {room} tokens; give 1 to {room - 1}.")
    kept = list(words[: room - count])
    before = {"prefix": 0, "suffix": len(kept), "insert": len(kept) // 2}[where]
    filler = kept[:1] or [0]
    row = [*kept[:before], *filler * count, *kept[before:]]
    return Placed(model.frame([row]), tuple(range(opening + before, opening + before + count)))


def ordinary(model: Denoiser) -> Tensor:
    """The word vectors [token word] of all tokens that are words."""
    table = model.vocabulary
    keep = [number for number in range(len(table)) if number not in model.specials]
    return table[torch.tensor(keep, device=table.device)].float()


def random_words(model: Denoiser, draws: torch.Generator, restarts: int, count: int) -> Tensor:
    """Free vectors [restart slot word] that start as words drawn from the vocabulary."""
    table = ordinary(model)
    picked = torch.randint(len(table), (restarts, count), generator=draws)
    return table[picked.to(table.device)]


@dataclass(frozen=True)
class PromptOptimizer:
    """How free vectors are driven down a loss.

    `adam`: Adam of rate `size`. `pgd`: signed steps of `size`, each coordinate held within `radius` of where it began.
    `fast`: one such step, as in fast adversarial training. With `radius` Adam is held in the same box.
    """

    steps: int
    size: float
    update: Update = "adam"
    radius: float | None = None
    accumulate: bool = False  # the published code's defect: gradients of earlier steps are not cleared
    drop_last: bool = False  # another: the last step's update is thrown away

    def run(self, start: Tensor, loss: Callable[[int, Tensor], Tensor]) -> tuple[Tensor, list[float]]:
        """Drives `start` [restart …] down loss(step, free) [restart]; returns the vectors and each step's mean loss.

        Restarts share a call and nothing else: each has its own gradient and moments.
        """
        free = start.detach().clone().float().requires_grad_(True)
        adam = torch.optim.Adam([free], lr=self.size)
        losses, before = [], free.detach().clone()
        for step in range(1 if self.update == "fast" else self.steps):
            before = free.detach().clone()
            with torch.enable_grad():
                each = loss(step, free)
                gradient = torch.autograd.grad(each.sum(), free)[0]
            free.grad = free.grad + gradient if self.accumulate and free.grad is not None else gradient
            if self.update == "adam":
                adam.step()
            else:
                free.data.sub_(self.size * free.grad.sign())
            if self.radius is not None:
                free.data.sub_(start).clamp_(-self.radius, self.radius).add_(start)
            losses.append(float(each.detach().mean()))
        return (before if self.drop_last else free.detach()), losses
