"""Two independent readers of face attributes, differently built and trained on different faces.

    python -m generators.pocket.faces.probe --device cuda --seconds 60 --out FOLDER    # face-eye, face-judge

Methods may look through the eye; scores come from the judge alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.pocket.faces.words import ATTRIBUTES
from generators.stylegan2.io.files import read, write

TRAIN, HELD_OUT = 20_000, 4_000
FIRST = {"eye": 1_000_000, "judge": 2_000_000}  # where each probe's own training faces start; the GAN's start at 0
SEED = {"eye": 11, "judge": 23}


class Residual(nn.Module):
    """Two 3 × 3 convolutions beside a skip; halves the picture."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(before, after, 3, 2, 1), nn.Conv2d(after, after, 3, padding=1)
        self.skip = nn.Conv2d(before, after, 1)
        self.calm, self.calm2 = nn.GroupNorm(8, after), nn.GroupNorm(8, after)

    def forward(self, x: Tensor) -> Tensor:
        y = self.calm2(self.second(F.relu(self.calm(self.first(x)))))
        return F.relu(y + self.skip(F.avg_pool2d(x, 2)))


class Patchwise(nn.Module):
    """A wide depthwise convolution, then a mixing of channels, beside a skip (after ConvNeXt, Liu et al. 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.calm = nn.GroupNorm(1, width)
        self.grow, self.shrink = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(3 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shrink(F.gelu(self.grow(self.calm(self.look(x)))))


def _body(kind: str) -> tuple[nn.Module, int]:
    if kind == "eye":
        widths = (24, 48, 80, 128)
        stages = [Residual(a, b) for a, b in itertools.pairwise(widths)]
        return nn.Sequential(nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), *stages, Residual(128, 128)), 128
    stages = [nn.Conv2d(3, 48, 4, 4), Patchwise(48), Patchwise(48)]
    stages += [nn.Conv2d(48, 96, 2, 2), Patchwise(96), Patchwise(96), Patchwise(96)]
    stages += [nn.Conv2d(96, 160, 2, 2), Patchwise(160), Patchwise(160)]
    return nn.Sequential(*stages), 160


class FaceProbe(nn.Module):
    """Images [n 3 64 64] in [0, 1] to logits [n attribute] and features [n f]."""

    def __init__(self, kind: str, attributes: tuple[str, ...] = ATTRIBUTES) -> None:
        super().__init__()
        self.kind, self.attributes = kind, attributes
        self.about: dict[str, Any] = {}
        self.body, size = _body(kind)
        self.head = nn.Linear(size, len(attributes))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body((images - 0.5) * 2)
        features = x.mean((2, 3)) if self.kind == "judge" else x.amax((2, 3))
        return self.head(features), features


def load_face_probe(path: Path) -> FaceProbe:
    """A saved probe in eval mode; `.about` holds its held-out accuracies."""
    tensors, about = read(path)
    if about.get("family") != "face-probe":
        raise ValueError(f"{path} holds a {about.get('family', 'different network')}, not a face probe.")
    probe = FaceProbe(about["kind"], tuple(about["attributes"]))
    probe.load_state_dict({key: value.float() for key, value in tensors.items()})
    probe.about = about
    return probe.eval().requires_grad_(False)


def shaken(images: Tensor, rng: torch.Generator) -> Tensor:
    """Training pictures [n 3 h w] in [0, 1], mirrored, shifted, recoloured, blurred and made noisy a little."""

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(images), 1, 1, 1, generator=rng, device=images.device)

    theta = torch.zeros(len(images), 2, 3, device=images.device)
    size = draw(0.94, 1.06)[:, 0, 0, 0]
    theta[:, 0, 0] = size * torch.sign(draw(-1, 1)[:, 0, 0, 0])
    theta[:, 1, 1] = size
    theta[:, :, 2] = torch.cat([draw(-0.09, 0.09), draw(-0.09, 0.09)], 1)[:, :, 0, 0]
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    out = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    blurred = F.avg_pool2d(F.pad(out, (1, 1, 1, 1), mode="replicate"), 3, 1)
    out = torch.lerp(out, blurred, draw(-0.3, 0.8))
    out = (out - 0.5) * draw(0.85, 1.15) + 0.5 + draw(-0.08, 0.08)
    noise = torch.randn(out.shape, generator=rng, device=out.device)
    return (out + noise * draw(0, 0.06)).clamp(0, 1)


def train(
    kind: str, pictures: Tensor, labels: Tensor, seconds: float, *, batch: int = 256, lr: float = 2e-3
) -> FaceProbe:
    """Fits one probe on pictures uint8 [n 3 64 64] already on the device, until the clock runs out."""
    device = pictures.device
    torch.manual_seed(SEED[kind])
    probe = FaceProbe(kind).to(device).to(memory_format=torch.channels_last)
    rng = torch.Generator(device).manual_seed(SEED[kind])
    adam = torch.optim.AdamW(probe.parameters(), lr=lr, weight_decay=0.01)
    began = time.monotonic()
    while (spent := (time.monotonic() - began) / seconds) < 1:
        for group in adam.param_groups:
            group["lr"] = lr * min(1.0, spent * 20 + 0.02) * (1 - spent) ** 0.9
        chosen = torch.randint(len(pictures), (batch,), generator=rng, device=device)
        images = shaken(pictures[chosen].float() / 255, rng).contiguous(memory_format=torch.channels_last)
        logits, _ = probe(images)
        loss = F.binary_cross_entropy_with_logits(logits, labels[chosen].float() * 0.98 + 0.01)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
    return probe.eval()


@torch.no_grad()
def read_off(probe: FaceProbe, pictures: Tensor, batch: int = 500) -> tuple[Tensor, Tensor]:
    """Probabilities [n attribute] and features [n f] of pictures uint8 [n 3 64 64], on the probe's device."""
    device = next(probe.parameters()).device
    seen = [probe(part.to(device).float() / 255) for part in pictures.split(batch)]
    return torch.cat([logits.sigmoid() for logits, _ in seen]), torch.cat([features for _, features in seen])


def main() -> None:
    from generators.pocket.faces.data import rendered

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kinds", nargs="*", default=["eye", "judge"], metavar="eye|judge", help="default: both")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=60, help="training time of each probe")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("temp/pocket-faces"), help="where rendered faces are cached")
    parser.add_argument("--count", type=int, default=TRAIN, help="training faces of each probe")
    parser.add_argument("--held-out", type=int, default=HELD_OUT)
    parser.add_argument("--batch", type=int, default=256)
    asked = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    test, truth = rendered(asked.held_out, asked.data, held_out=True)
    drawn = {kind: rendered(asked.count, asked.data, start=FIRST[kind]) for kind in asked.kinds}
    for kind in drawn:
        pictures, labels = (part.to(asked.device) for part in drawn[kind])
        probe = train(kind, pictures, labels, asked.seconds, batch=asked.batch)
        path = asked.out / f"face-{kind}.safetensors"
        about = {
            "family": "face-probe", "kind": kind, "attributes": ATTRIBUTES, "world": "pocket-faces", "seed": SEED[kind],
            "training_faces": [FIRST[kind], FIRST[kind] + asked.count],
        }  # fmt: skip
        halved = {key: value.half() for key, value in probe.state_dict().items()}
        write(path, halved, about)
        right = (
            read_off(load_face_probe(path).to(asked.device), test)[0].cpu() > 0.5
        ) == truth  # of the weights as saved
        held_out = dict(zip(ATTRIBUTES, right.float().mean(0).tolist(), strict=True))
        write(path, halved, about | {"held_out": held_out, "held_out_faces": asked.held_out})
        print(kind, sum(p.numel() for p in probe.parameters()), json.dumps(held_out), flush=True)


if __name__ == "__main__":
    main()
