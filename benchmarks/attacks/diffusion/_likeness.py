"""CLIP as the searcher of PEZ sees it: word vectors in, likeness to pictures out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.attacks.engine import AttackTarget
from benchmarks.metrics.alignment import Clip, clip, resized
from benchmarks.suites.prompts import Row
from erase.errors import BadInput
from erase.work import Step, Work


class TextSide:
    """An open_clip model that reads given word vectors, and its own tokenizer."""

    def __init__(self, probe: Clip) -> None:
        self.probe = probe
        probe.model.requires_grad_(False)
        # CustomTextCLIP keeps its text tower apart; plain CLIP is one itself.
        self.embedding: Any = getattr(probe.model, "text", probe.model).token_embedding
        self.table: Tensor = self.embedding.weight.detach()
        empty = probe.tokenize([""])[0].tolist()
        self.start, self.end, self.pad, self.length = empty[0], empty[1], empty[-1], len(empty)
        special = {self.start, self.end, self.pad}
        self.words = torch.tensor([word for word in range(len(self.table)) if word not in special], device=probe.device)

    def see(self, images: Tensor) -> Tensor:
        """The directions [n d] of images [n 3 h w] in [0, 1]."""
        pixels = resized(images.to(self.probe.device, torch.float32), self.probe.size)
        with torch.no_grad():
            return self.probe.model.encode_image((pixels - self.probe.mean) / self.probe.std, normalize=True)  # type: ignore[operator]

    def say(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """The directions [n d] of rows of tokens, and the word vectors [n token word] they are differentiable in."""
        whole = [[self.start, *row[: self.length - 2], self.end] for row in rows]
        ids = torch.tensor([row + [self.pad] * (self.length - len(row)) for row in whole], device=self.probe.device)
        vectors = self.table[ids].requires_grad_(True)
        handle = self.embedding.register_forward_hook(lambda *_: vectors)
        try:
            return F.normalize(self.probe.model.encode_text(ids), dim=-1), vectors  # type: ignore[operator]
        finally:
            handle.remove()

    def spell(self, row: Sequence[int]) -> str:
        """The text of tokens."""
        tokenizer: Any = self.probe.tokenize
        return str(getattr(tokenizer, "tokenizer", tokenizer).decode(list(row))).strip()


class Likeness:
    """PEZ's loss: one minus CLIP's cosine of the tokens and the unedited model's picture of the row."""

    def __init__(self, aim: AttackTarget, rows: Sequence[Row]) -> None:
        self.aim, self.rows = aim, rows
        self.seen = torch.empty(0)

    def network(self) -> AbstractContextManager[None]:
        """No diffusion model takes part."""
        return nullcontext()

    def prepare(self) -> Work[None]:
        """CLIP's view of the pictures."""
        if self.rows:
            self.seen = text_side(self.aim).see(
                self.aim.decode(torch.stack([self.aim.clean[row] for row in self.rows]))
            )
            yield Step("see", len(self.rows), len(self.rows))

    def gradients(self, step: int, tokens: Sequence[Sequence[int]]) -> tuple[list[Tensor], float]:
        """For each row the gradient [slot word] at its tokens' word vectors; the mean loss."""
        with torch.enable_grad():
            said, vectors = text_side(self.aim).say(tokens)
            loss = 1 - (said * self.seen).sum(1)
            (gradient,) = torch.autograd.grad(loss.sum(), vectors)
        return [gradient[place, 1 : 1 + len(own)] for place, own in enumerate(tokens)], float(loss.detach().mean())


def text_side(aim: AttackTarget) -> TextSide:
    """The suite's CLIP; BadInput where it names none."""
    if aim.suite.clip is None:
        raise BadInput(f"pez needs a CLIP, and suite {aim.suite.name} names none; take the variant p4d-n.")
    return _opened(aim.suite.clip, str(aim.model.device))


@lru_cache(maxsize=2)
def _opened(name: str, device: str) -> TextSide:
    return TextSide(clip(name, device))
