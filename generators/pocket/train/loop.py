"""What every training stage of the pocket models shares: where it runs, its loop, and its pictures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generators.pocket.canvas import data


@dataclass(frozen=True)
class Setting:
    """Where and how long a stage trains."""

    device: torch.device
    work: Path
    out: Path
    minutes: float
    steps: int
    batch: int
    per_cell: int
    compile: bool
    without: Sequence[str] = ()

    def autocast(self, *, enabled: bool = True) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)

    def stream(self, *purpose: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(hash(purpose) % 2**63)


def to_float(images: Tensor) -> Tensor:
    """uint8 [n h w 3] → float [n 3 h w] in [0, 1], channels last in memory."""
    return (images.permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)


def tensors(canvas: data.Canvas, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in canvas)  # type: ignore[return-value]


class Loop:
    """An optimiser loop with warm-up, cosine decay by steps or by the clock, EMA and resume."""

    def __init__(
        self, name: str, network: nn.Module, setting: Setting, lr: float, *, ema: float = 0.0, decay: float = 0.01
    ) -> None:
        self.name, self.network, self.setting, self.lr = name, network, setting, lr
        self.optimiser = torch.optim.AdamW(
            network.parameters(), lr=lr, weight_decay=decay, betas=(0.9, 0.99), fused=setting.device.type == "cuda"
        )
        self.ema_rate = ema
        self.ema = {k: v.detach().clone() for k, v in network.state_dict().items()} if ema else {}
        self.step, self.spent = 0, 0.0
        self.path = setting.work / f"{name}.state.pt"
        if self.path.exists():
            kept = torch.load(self.path, map_location=setting.device, weights_only=True)
            network.load_state_dict(kept["network"])
            self.ema, self.step, self.spent = kept["ema"] if ema else {}, kept["step"], kept["spent"]
            if kept["optimiser"]:
                self.optimiser.load_state_dict(kept["optimiser"])

    def save(self) -> None:
        kept = {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "ema": self.ema,
            "step": self.step,
            "spent": self.spent,
        }
        torch.save(kept, self.path.with_suffix(".part"))
        self.path.with_suffix(".part").replace(self.path)

    def run(self, loss_of: Callable[[int], Tensor]) -> None:
        """Minimise `loss_of(step)` until the steps or the minutes are used up."""
        started, said, before = time.time(), time.time(), self.spent
        while self.progress() < 1:
            rise = min(1.0, (self.step + 1) / 300)
            for group in self.optimiser.param_groups:
                group["lr"] = self.lr * rise * (0.5 + 0.5 * math.cos(math.pi * self.progress()))
            loss = loss_of(self.step)
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimiser.step()
            self.optimiser.zero_grad(set_to_none=True)
            if self.ema:
                rate = min(self.ema_rate, (self.step + 1) / (self.step + 10))
                live = self.network.state_dict()
                floating = [k for k, v in live.items() if v.is_floating_point()]
                torch._foreach_lerp_([self.ema[k] for k in floating], [live[k] for k in floating], 1 - rate)
            self.step += 1
            if self.step % 50 == 0 or self.setting.device.type == "cpu":
                self.spent = before + time.time() - started
            if time.time() - said > 20:
                said = time.time()
                print(f"{self.name} step {self.step} loss {loss.item():.4f} {self.spent / 60:.1f} min", flush=True)
                self.save()
        self.save()
        print(f"{self.name} done after {self.step} steps, {self.spent / 60:.1f} min", flush=True)

    def progress(self) -> float:
        return max(self.step / self.setting.steps, self.spent / 60 / self.setting.minutes)


def batches(setting: Setting, count: int) -> Iterator[Tensor]:
    stream = torch.Generator(setting.device).manual_seed(7)
    while True:
        yield torch.randint(count, (setting.batch,), generator=stream, device=setting.device)


def recoloured(images: Tensor, stream: torch.Generator) -> Tensor:
    """The second half of the images with their colour channels in another order: shapes are learnt, not colours."""
    order = torch.rand(len(images), 3, generator=stream, device=images.device).argsort(1)
    order[: len(images) // 2] = torch.arange(3, device=images.device)
    return images.gather(1, order[:, :, None, None].expand_as(images)).contiguous(memory_format=torch.channels_last)


def jostled(images: Tensor, stream: torch.Generator) -> Tensor:
    """Shift, soften, dim and grain, so that a network reads drawings however a decoder renders them."""
    n = len(images)
    device = images.device
    move = torch.randint(-4, 5, (2,), generator=stream, device=device).tolist()
    images = torch.roll(F.pad(images, (4,) * 4, mode="replicate"), tuple(move), (2, 3))[..., 4:-4, 4:-4]
    soft = F.avg_pool2d(F.pad(images, (1,) * 4, mode="replicate"), 3, 1)
    mix = torch.rand(n, 1, 1, 1, generator=stream, device=device) * 0.8
    images = images * (1 - mix) + soft * mix
    gain = 0.85 + 0.3 * torch.rand(n, 3, 1, 1, generator=stream, device=device)
    grain = (
        0.06
        * torch.rand(n, 1, 1, 1, generator=stream, device=device)
        * torch.randn(images.shape, generator=stream, device=device)
    )
    return (images * gain + grain).clamp(0, 1)


def turned(images: Tensor, stream: torch.Generator) -> Tensor:
    """Mirror, tilt, stretch, shear and shift each image its own way: few drawings then teach many shapes."""
    n, device = len(images), images.device

    def within(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=stream, device=device)

    angle, shear = within(-0.3, 0.3), within(-0.2, 0.2)
    wide, high = within(0.8, 1.2), within(0.8, 1.2)
    wide = wide * (within(-1, 1).sign())
    cos, sin = angle.cos(), angle.sin()
    rows = torch.stack(
        (
            wide * cos,
            high * (shear * cos - sin),
            within(-0.1, 0.1),
            wide * sin,
            high * (shear * sin + cos),
            within(-0.1, 0.1),
        ),
        dim=1,
    )
    grid = F.affine_grid(rows.view(n, 2, 3), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return moved.contiguous(memory_format=torch.channels_last)


def trained(name: str, network: nn.Module, setting: Setting, *, ema: bool = True) -> Any:
    kept = torch.load(setting.work / f"{name}.state.pt", map_location=setting.device, weights_only=True)
    network.load_state_dict(kept["ema"] if ema else kept["network"])
    return network.to(setting.device).eval().requires_grad_(False)
