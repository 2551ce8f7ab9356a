"""Guided deterministic sampling: begun by one set of weights and ended by another, or held to a mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from erase.model import Codes, Denoiser
from erase.work import Step, Work


def walk(
    model: Denoiser,
    z: Tensor,
    times: Sequence[int],
    codes: Codes,
    guidance: Tensor,
    *,
    to: int | None = None,
    held: Callable[[Tensor, int], Tensor] | None = None,
) -> Work[Tensor]:
    """Latents z [n c h w] taken through `times` and on to time `to` (None: clean), each row by its own guidance [n].

    `codes` are the n prompts' and then n times the empty one's. `held` may change z before each call.
    """
    scale = guidance.to(z).view(-1, 1, 1, 1)
    for place, (now, then) in enumerate(zip(times, [*times[1:], to], strict=True), 1):
        with torch.no_grad():
            z = z if held is None else held(z, now)
            t = torch.full((2 * len(z),), now, device=z.device)
            present, absent = model.predict(torch.cat([z, z]), t, codes).chunk(2)
            z = model.path.step(absent + scale * (present - absent), z, now, then)
        yield Step("denoise", place, len(times))
    return z


@torch.no_grad()
def both_halves(model: Denoiser, prompts: Sequence[str]) -> Codes:
    """The codes of prompts, then as many of the empty one."""
    return Codes.cat([model.encode(prompts), model.encode([""]).repeat(len(prompts))])
