"""StyleGAN2's generator in plain PyTorch (Karras et al. 2020, arXiv 1912.04958), under NVlabs' parameter names.

Run-time gains are folded into the weights, so that every layer that reads a style is a true `nn.Linear`; `gains` says
how to train as if they were not.  One formulation serves every device: the input is scaled by the style, one
convolution is shared by the batch, and the output is demodulated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel
from torch import Tensor, nn

Noise = Literal["const", "none"] | Sequence[Tensor]


class Shape(BaseModel, frozen=True):
    """Everything needed to build a generator and its critic: sizes, and channels per resolution."""

    resolution: int = 64
    z_dim: int = 128
    w_dim: int = 128
    mapping_layers: int = 4
    widths: dict[int, int] = {4: 128, 8: 128, 16: 64, 32: 32, 64: 16}
    clamp: float | None = None
    group: int = 4

    @property
    def resolutions(self) -> list[int]:
        return [2**k for k in range(2, int(math.log2(self.resolution)) + 1)]

    @property
    def num_ws(self) -> int:
        return 2 * len(self.resolutions)


def act(x: Tensor, clamp: float | None = None) -> Tensor:
    """Leaky ReLU that keeps the variance."""
    x = F.leaky_relu(x, 0.2) * math.sqrt(2)
    return x if clamp is None else x.clamp(-clamp, clamp)


def blur_kernel() -> Tensor:
    """The resampling filter [4 4], summing to one."""
    row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    return torch.outer(row, row)


def blur(x: Tensor, kernel: Tensor, *, padding: int, stride: int = 1) -> Tensor:
    """Each channel of x [n c h w] filtered by itself with `kernel` [4 4]."""
    maps = x.shape[1]
    return F.conv2d(x, kernel.to(x.dtype).expand(maps, 1, 4, 4), padding=padding, stride=stride, groups=maps)


def gains(network: nn.Module) -> dict[str, float]:
    """Each parameter's folded run-time gain g: Adam with lr·g and eps/g trains as the unfolded network does."""
    out = {name: 1.0 for name, _ in network.named_parameters()}
    for prefix, module in network.named_modules():
        for name, gain in getattr(module, "gain", {}).items():
            out[f"{prefix}.{name}" if prefix else name] = gain
    return out


class Mapping(nn.Module):
    """z [n z] to one w per layer [n num_ws w]; learns a hundred times slower than the rest."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.num_ws, self.layers = shape.num_ws, shape.mapping_layers
        self.gain: dict[str, float] = {}
        for i in range(self.layers):
            size = shape.z_dim if i == 0 else shape.w_dim
            layer = nn.Linear(size, shape.w_dim)
            nn.init.normal_(layer.weight, std=1 / math.sqrt(size))
            nn.init.zeros_(layer.bias)
            self.add_module(f"fc{i}", layer)
            self.gain |= {f"fc{i}.weight": 0.01 / math.sqrt(size), f"fc{i}.bias": 0.01}
        self.w_avg: Tensor
        self.register_buffer("w_avg", torch.zeros(shape.w_dim))

    def forward(self, z: Tensor, psi: float = 1.0) -> Tensor:
        """Truncation: psi = 0 is the average face for every z, 1 leaves w alone."""
        x = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
        for i in range(self.layers):
            x = act(self.get_submodule(f"fc{i}")(x))
        if psi != 1.0:
            x = self.w_avg.lerp(x, psi)
        return x[:, None].expand(-1, self.num_ws, -1)


class StyleConv(nn.Module):
    """A 3 × 3 convolution whose inputs are scaled by the style and whose outputs are brought back to unit variance."""

    def __init__(self, w_dim: int, before: int, after: int, resolution: int, *, up: bool, clamp: float | None) -> None:
        super().__init__()
        self.up, self.clamp = up, clamp
        self.affine = _style(w_dim, before)
        self.weight = nn.Parameter(torch.randn(after, before, 3, 3))
        self.bias = nn.Parameter(torch.zeros(after))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.noise_const: Tensor
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.kernel: Tensor
        self.register_buffer("kernel", blur_kernel() * 4, persistent=False)
        self.gain = {"affine.weight": 1 / math.sqrt(w_dim)}

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        s = self.affine(w)
        d = torch.rsqrt(s.square() @ self.weight.square().sum((2, 3)).T + 1e-8)
        x = x * s.to(x.dtype)[:, :, None, None]
        if self.up:
            x = F.conv_transpose2d(x, self.weight.to(x.dtype).transpose(0, 1), stride=2)
            x = blur(x, self.kernel, padding=1)
        else:
            x = F.conv2d(x, self.weight.to(x.dtype), padding=1)
        x = x * d.to(x.dtype)[:, :, None, None]
        if noise is not None:
            x = x + (noise * self.noise_strength).to(x.dtype)
        return act(x + self.bias.to(x.dtype)[:, None, None], self.clamp)


class ToRGB(nn.Module):
    """Reads colours off the features: a 1 × 1 style convolution without demodulation."""

    def __init__(self, w_dim: int, before: int, clamp: float | None) -> None:
        super().__init__()
        self.clamp = clamp
        self.affine = _style(w_dim, before)
        self.weight = nn.Parameter(torch.randn(3, before, 1, 1) / math.sqrt(before))
        self.bias = nn.Parameter(torch.zeros(3))
        self.gain = {"affine.weight": 1 / math.sqrt(w_dim), "weight": 1 / math.sqrt(before)}

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        s = self.affine(w).to(x.dtype)
        rgb = F.conv2d(x * s[:, :, None, None], self.weight.to(x.dtype)) + self.bias.to(x.dtype)[:, None, None]
        return (rgb if self.clamp is None else rgb.clamp(-self.clamp, self.clamp)).to(w.dtype)


class Block(nn.Module):
    """Every layer at one resolution."""

    def __init__(self, shape: Shape, resolution: int) -> None:
        super().__init__()
        width = shape.widths[resolution]
        self.conv0: StyleConv | None = None
        if resolution == 4:
            self.const = nn.Parameter(torch.randn(width, 4, 4))
        else:
            before = shape.widths[resolution // 2]
            self.conv0 = StyleConv(shape.w_dim, before, width, resolution, up=True, clamp=shape.clamp)
        self.conv1 = StyleConv(shape.w_dim, width, width, resolution, up=False, clamp=shape.clamp)
        self.torgb = ToRGB(shape.w_dim, width, shape.clamp)


class Synthesis(nn.Module):
    """ws [n num_ws w] to images [n 3 h w], roughly in [-1, 1] and never clamped."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.resolutions = shape.resolutions
        for resolution in self.resolutions:
            self.add_module(f"b{resolution}", Block(shape, resolution))
        self.upsample: Tensor
        self.register_buffer("upsample", (blur_kernel() * 4).expand(3, 1, 4, 4).clone(), persistent=False)

    def block(self, resolution: int) -> Block:
        """The layers of one resolution."""
        return cast(Block, self.get_submodule(f"b{resolution}"))

    def convs(self) -> list[StyleConv]:
        """The layers that take noise, in the order in which it is drawn."""
        return [module for module in self.modules() if isinstance(module, StyleConv)]

    def forward(self, ws: Tensor, noise: Noise = "const", dtype: torch.dtype | None = None) -> Tensor:
        """Noise is the stored maps, nothing, or one map [n 1 r r] per convolution; images keep the dtype of ws."""
        if isinstance(noise, str):
            maps = iter([conv.noise_const if noise == "const" else None for conv in self.convs()])
        else:
            maps = iter(noise)
        image: Tensor | None = None
        x = self.block(4).const.to(dtype or ws.dtype).expand(len(ws), -1, -1, -1)
        x = x.contiguous(memory_format=torch.channels_last)
        for k, resolution in enumerate(self.resolutions):
            block = self.block(resolution)
            if block.conv0 is not None:
                x = block.conv0(x, ws[:, 2 * k - 1], next(maps))
            x = block.conv1(x, ws[:, 2 * k], next(maps))
            rgb = block.torgb(x, ws[:, 2 * k + 1])
            if image is not None:
                rgb = rgb + F.conv_transpose2d(image, self.upsample, stride=2, padding=1, groups=3)
            image = rgb
        assert image is not None
        return image


class StyleGenerator(nn.Module):
    """Mapping and synthesis under one root."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.mapping = Mapping(shape)
        self.synthesis = Synthesis(shape)

    def forward(self, z: Tensor, psi: float = 1.0, noise: Noise = "const") -> Tensor:
        return self.synthesis(self.mapping(z, psi), noise)


def latents(seeds: Sequence[int], z_dim: int) -> Tensor:
    """One z per seed [n z], the numbers NVlabs' scripts draw for the same seeds."""
    return torch.from_numpy(np.stack([np.random.RandomState(seed).randn(z_dim) for seed in seeds])).float()


def noise_maps(synthesis: Synthesis, seeds: Sequence[int]) -> list[Tensor]:
    """One noise map per seed and convolution: a seed's maps do not depend on its neighbours in the batch."""
    drawn = []
    for seed in seeds:
        rng = torch.Generator().manual_seed(seed)
        drawn.append([torch.randn(1, *conv.noise_const.shape, generator=rng) for conv in synthesis.convs()])
    return [torch.stack(maps).to(synthesis.upsample.device) for maps in zip(*drawn, strict=True)]


def _style(w_dim: int, size: int) -> nn.Linear:
    layer = nn.Linear(w_dim, size)
    nn.init.normal_(layer.weight, std=1 / math.sqrt(w_dim))
    nn.init.ones_(layer.bias)
    return layer
