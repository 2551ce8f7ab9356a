"""StyleCLIP's latent mapper (Patashnik et al. 2021, arXiv 2103.17249): where codes go for a CLIP to see some words.

Three small networks say how a code moves at the coarse, the middle and the fine layers, ŵ = w + 0.1 M(w), and learn

    1 − cos(E(G(ŵ)), E(words)) + 0.8 · mean (ŵ − w)².

Left out are the paper's identity term, which takes a face network, and Ranger: Adam is used.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from erase.gan.distillation import layered
from erase.model import Encoder, Gan
from erase.rng import stream
from erase.training.deltas import DeltaOptimizer

LEVELS = (4, 8)  # where the middle and the fine layers begin
DEPTH, REACH, NEAR, LR, BATCH = 4, 0.1, 0.8, 0.005, 8


class Mapper(nn.Module):
    """The step [n layer w] of codes [n w]."""

    def __init__(self, w_dim: int, layers: int, seed: int) -> None:
        super().__init__()
        edges = [0, *(level for level in LEVELS if level < layers), layers]
        self.counts = [end - start for start, end in pairwise(edges)]
        self.parts = nn.ModuleList(nn.Sequential(*_layers(w_dim)) for _ in self.counts)
        rng = stream(seed, "mapper")
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=math.sqrt(2 / w_dim), generator=rng)

    def forward(self, w: Tensor) -> Tensor:
        x = w * torch.rsqrt(w.square().mean(1, keepdim=True) + 1e-8)
        steps = [part(x)[:, None].expand(-1, count, -1) for part, count in zip(self.parts, self.counts, strict=True)]
        return REACH * torch.cat(steps, 1)


def _layers(size: int) -> list[nn.Module]:
    """Not filled here, because PyTorch would draw from a stream that belongs to others."""
    linear = (nn.utils.skip_init(nn.Linear, size, size) for _ in range(DEPTH))
    return [layer for one in linear for layer in (one, nn.LeakyReLU(0.2))]


class Lesson:
    """A mapper in training on codes [n w] that lack the words, whose direction in the CLIP is `words` [e]."""

    def __init__(self, model: Gan, eye: Encoder, w: Tensor, words: Tensor, seed: int) -> None:
        self.model, self.eye, self.w, self.words, self.seed = model, eye, w, F.normalize(words, dim=0), seed
        layers = layered(model, w[:1]).shape[1]
        self.mapper = Mapper(w.shape[1], layers, seed).to(w.device).requires_grad_(False)
        names = [name for name, _ in self.mapper.named_parameters()]
        self.masters = DeltaOptimizer(self.mapper, names, LR)

    def one(self, step: int) -> dict[str, float]:
        """One step down StyleCLIP's loss."""
        rng = stream(self.seed, "mapper", step)
        w = self.w[torch.randint(len(self.w), (BATCH,), generator=rng).to(self.w.device)]
        with torch.enable_grad():
            move = torch.func.functional_call(self.mapper, self.masters.weights(), (w,))
            seen = self.eye.images(self.model.synthesis(layered(self.model, w) + move) / 2 + 0.5)
            losses = {"words": (1 - seen @ self.words).mean(), "near": NEAR * move.square().mean()}
            self.masters.step(torch.stack(list(losses.values())).sum())
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def load(self, learnt: dict[str, Tensor]) -> None:
        """Puts in place what has been learnt."""
        self.mapper.load_state_dict({name: weight.to(self.w.device) for name, weight in learnt.items()})

    def learnt(self) -> dict[str, Tensor]:
        """The mapper's weights as they are after training."""
        return {name: weight.detach().cpu() for name, weight in self.masters.weights().items()}
