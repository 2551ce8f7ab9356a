"""LPIPS (Zhang et al. 2018, arXiv 1801.03924), where the weights of a network it looks through are on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from generators.clip import fitted

Net = Literal["alex", "vgg", "squeeze"]
WEIGHTS: dict[Net, str] = {
    "alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth", "squeeze": "squeezenet1_1-b8a52dc0.pth",
}  # fmt: skip
LEAST = 64  # pixels: the networks halve their input many times


class Lpips:
    """How unlike images [n 3 h w] in [-1, 1] look to a network: [n]."""

    def __init__(self, net: Net, device: torch.device) -> None:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        self.name = f"LPIPS ({net})"
        self.network = LearnedPerceptualImagePatchSimilarity(net_type=net).net.to(device).eval()

    @torch.no_grad()
    def __call__(self, one: Tensor, other: Tensor) -> Tensor:
        pair = [fitted(images.float(), max(LEAST, images.shape[-1])).clamp(-1, 1) for images in (one, other)]
        return self.network(*pair).flatten().cpu()


def lpips(device: torch.device) -> Lpips | None:
    """LPIPS through the first network whose ImageNet weights torchvision has kept here; nothing is downloaded."""
    kept = Path(torch.hub.get_dir()) / "checkpoints"
    for net, file in WEIGHTS.items():
        if (kept / file).is_file():
            return Lpips(net, device)
    return None
