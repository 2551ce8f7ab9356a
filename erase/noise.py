"""The Gaussian path of a diffusion or flow model, and what its network's prediction means on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Predicts = Literal["noise", "velocity"]


@dataclass(frozen=True)
class NoisePath:
    """z_t = α_t z_0 + σ_t ε at T times, and what `Denoiser.predict` says of z_t: ε, or the velocity u = ε − z_0.

    `signal` and `noise` hold α and σ [T], float64 on the CPU, from the least noise to the most. `shift` is that of a
    flow model's sampler, σ → s·σ / (1 + (s − 1)·σ) (Esser et al. 2024, arXiv 2403.03206, eq. 23); 1 leaves times even.
    """

    signal: Tensor
    noise: Tensor
    predicts: Predicts = "noise"
    shift: float = 1.0

    @staticmethod
    def diffusion(alphas_cumprod: Tensor) -> NoisePath:
        """The variance-preserving path of a diffusion model: α = √ᾱ, σ = √(1 − ᾱ)."""
        levels = alphas_cumprod.to("cpu", torch.float64)
        return NoisePath(levels.sqrt(), (1 - levels).sqrt())

    @staticmethod
    def flow(times: int = 1000, shift: float = 1.0) -> NoisePath:
        """The straight path of a flow model: α = 1 − σ, and σ = (t + 1) / T at time t."""
        noise = torch.arange(1, times + 1, dtype=torch.float64) / times
        return NoisePath(1 - noise, noise, "velocity", shift)

    def __len__(self) -> int:
        """T, the number of times."""
        return len(self.noise)

    def levels(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """α and σ at times t ([n] or scalar), shaped to multiply latents, in at least fp32."""
        wide = torch.promote_types(like.dtype, torch.float32)
        at = torch.as_tensor(t).cpu()
        return tuple(part[at].reshape(-1, 1, 1, 1).to(like.device, wide) for part in (self.signal, self.noise))  # type: ignore[return-value]

    def add_noise(self, z0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """z_t [n c h w] of clean latents and noise at times t ([n] or scalar)."""
        signal, rest = self.levels(t, z0)
        return (signal * z0 + rest * noise).to(z0.dtype)

    def target(self, z0: Tensor, noise: Tensor) -> Tensor:
        """What a perfect prediction says of any z_t between these two."""
        return noise if self.predicts == "noise" else noise - z0

    def to_clean(self, said: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """The clean latents a prediction amounts to, in its dtype: (z − σε) / α, or z − σu."""
        signal, rest = (part.to(said.dtype) for part in self.levels(t, said))
        far = z.to(said.dtype) - rest * said
        return far / signal if self.predicts == "noise" else far

    def to_noise(self, said: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """The noise a prediction amounts to, in its dtype: itself, or z + αu where α + σ = 1."""
        if self.predicts == "noise":
            return said
        return z.to(said.dtype) + self.levels(t, said)[0].to(said.dtype) * said

    def step(self, said: Tensor, z: Tensor, now: int, then: int | None) -> Tensor:
        """z at time `then` (None: clean) from a prediction at time `now`: DDIM with η = 0, or Euler's rule."""
        clean, noise = (turn(said, z, torch.tensor(now)) for turn in (self.to_clean, self.to_noise))
        if then is None:
            return clean
        signal, rest = (part.to(said.dtype) for part in self.levels(torch.tensor(then), said))
        return signal * clean + rest * noise

    def times(self, spread: Tensor) -> Tensor:
        """Times [n], long, of even positions in [0, 1): where the sampler spends its steps, most noise at 1."""
        shifted = spread if self.shift == 1 else self.shift * spread / (1 + (self.shift - 1) * spread)
        return (shifted * len(self)).long().clamp_(max=len(self) - 1)

    def grid(self, steps: int) -> list[int]:
        """The times of `steps` sampling steps from the noisiest down: 999, 979 … 19 for 50 of 1000 without a shift."""
        even = 1 - torch.arange(steps, dtype=torch.float64) / steps
        shifted = even if self.shift == 1 else self.shift * even / (1 + (self.shift - 1) * even)
        return [round(len(self) * level) - 1 for level in shifted.tolist()]
