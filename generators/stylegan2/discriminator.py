"""StyleGAN2's residual discriminator in plain PyTorch (Karras et al. 2020), under NVlabs' parameter names."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.stylegan2.network import Shape, act, blur, blur_kernel


class Conv(nn.Module):
    """A convolution with its gain folded in; stride 2 filters before it skips, so that nothing aliases."""

    def __init__(self, before: int, after: int, size: int, *, down: bool = False, bias: bool = True) -> None:
        super().__init__()
        gain = 1 / math.sqrt(before * size * size)
        self.down = down
        self.weight = nn.Parameter(torch.randn(after, before, size, size) * gain)
        self.bias = nn.Parameter(torch.zeros(after)) if bias else None
        self.kernel: Tensor
        self.register_buffer("kernel", blur_kernel(), persistent=False)
        self.gain = {"weight": gain}

    def forward(self, x: Tensor) -> Tensor:
        size = self.weight.shape[-1]
        weight, bias = self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype)
        if not self.down:
            return F.conv2d(x, weight, bias, padding=size // 2)
        if size == 1:
            wide = x.to(torch.promote_types(x.dtype, torch.float32))  # strided filters in bfloat16 are slow on a CPU
            return F.conv2d(blur(wide, self.kernel, padding=1, stride=2).to(x.dtype), weight, bias)
        return F.conv2d(blur(x, self.kernel, padding=2), weight, bias, stride=2)


class Stage(nn.Module):
    """One resolution: two convolutions beside a skip, halving the picture."""

    def __init__(self, shape: Shape, resolution: int) -> None:
        super().__init__()
        here, below = shape.widths[resolution], shape.widths[resolution // 2]
        self.clamp = shape.clamp
        self.fromrgb = Conv(3, here, 1) if resolution == shape.resolution else None
        self.conv0 = Conv(here, here, 3)
        self.conv1 = Conv(here, below, 3, down=True)
        self.skip = Conv(here, below, 1, down=True, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.fromrgb is not None:
            x = act(self.fromrgb(x), self.clamp)
        y = self.skip(x)
        x = act(self.conv1(act(self.conv0(x), self.clamp)), self.clamp)
        return (x + y) * math.sqrt(0.5)


class Head(nn.Module):
    """The 4 × 4 end: how alike the batch is, then one logit [n]."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.widths[4]
        self.group, self.clamp = shape.group, shape.clamp
        self.conv = Conv(width + 1, width, 3)
        self.fc = _linear(width * 16, width)
        self.out = _linear(width, 1)
        self.gain = {"fc.weight": 1 / math.sqrt(width * 16), "out.weight": 1 / math.sqrt(width)}

    def forward(self, x: Tensor) -> Tensor:
        x = act(self.conv(with_spread(x, self.group)), self.clamp)
        return self.out(act(self.fc(x.flatten(1))))[:, 0]


class Critic(nn.Module):
    """Images [n 3 h w] in [-1, 1] to logits [n]: large for real."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.stages = [f"b{resolution}" for resolution in reversed(shape.resolutions[1:])]
        for name, resolution in zip(self.stages, reversed(shape.resolutions[1:]), strict=True):
            self.add_module(name, Stage(shape, resolution))
        self.b4 = Head(shape)

    def forward(self, images: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Convolves in `dtype`; the logits keep the images' own."""
        x = images.to(dtype or images.dtype).contiguous(memory_format=torch.channels_last)
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return self.b4(x.to(images.dtype))


def with_spread(x: Tensor, group: int) -> Tensor:
    """Adds a channel holding each group's mean standard deviation; sample j belongs to group j mod (n / size)."""
    n = len(x)
    size = next(g for g in range(min(group, n), 0, -1) if n % g == 0)
    y = x.reshape(size, n // size, *x.shape[1:])
    spread = ((y - y.mean(0)).square().mean(0) + 1e-8).sqrt().mean((1, 2, 3))
    return torch.cat([x, spread.repeat(size)[:, None, None, None].expand(-1, 1, *x.shape[2:])], 1)


def _linear(before: int, after: int) -> nn.Linear:
    layer = nn.Linear(before, after)
    nn.init.normal_(layer.weight, std=1 / math.sqrt(before))
    nn.init.zeros_(layer.bias)
    return layer
