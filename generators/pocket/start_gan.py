"""Teaches pocket-gan's generator to redraw faces before it competes with a critic: hours of a processor's time less.

    python -m generators.pocket.start_gan --minutes 25 --data FOLDER --out GAN    # then train_gan --resume --out GAN

A variational autoencoder (Kingma & Welling 2014, arXiv 1312.6114) whose decoder is mapping and synthesis: the encoder
is thrown away, z stays normal, and the generator begins the adversarial training with faces in place of noise.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.pocket.face_data import rendered
from generators.pocket.train_gan import batches, drawn, sheet
from generators.stylegan2 import files
from generators.stylegan2.discriminator import Critic
from generators.stylegan2.network import Shape, StyleGenerator
from generators.stylegan2.training import Recipe, Run, adam, average_w

SHARPNESS = 0.5  # how much an error of the picture weighs against a nat of the code
EDGES = 0.7  # and how much an error of its edges: thin frames cover few pixels


class Encoder(nn.Module):
    """Images [n 3 64 64] in [-1, 1] to mean and log variance of z, [n z] each."""

    def __init__(self, z_dim: int) -> None:
        super().__init__()
        widths = (3, 32, 64, 128, 192)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.GroupNorm(8, after), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(192 * 16, 2 * z_dim))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, spread = self.body(images).float().chunk(2, 1)
        return mean, spread.clamp(-8, 4)


def slopes(images: Tensor) -> Tensor:
    """How each pixel differs from its neighbours below and to the right."""
    return torch.cat([images.diff(dim=2).flatten(1), images.diff(dim=3).flatten(1)], 1)


def redrawing_loss(generator: StyleGenerator, encoder: Encoder, images: Tensor, draws: torch.Generator) -> Tensor:
    """The negative evidence of a batch, and its parts: picture and edges in units of error, code in nats."""
    with torch.autocast(images.device.type, torch.bfloat16):
        mean, spread = encoder(images.contiguous(memory_format=torch.channels_last))
    z = mean + (spread / 2).exp() * torch.randn(mean.shape, generator=draws)
    drawn = generator.synthesis(generator.mapping(z), "none", torch.bfloat16)
    nats = 0.5 * (mean.square() + spread.exp() - 1 - spread).sum(1).mean()
    picture = (drawn - images).abs().flatten(1).sum(1).mean() / 2
    edges = F.l1_loss(slopes(drawn), slopes(images), reduction="sum") / (2 * len(images))
    return torch.stack([SHARPNESS * picture, EDGES * edges, nats])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("temp/pocket-faces"))
    parser.add_argument("--faces", type=int, default=6_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.manual_seed(asked.seed)
    pictures, _ = rendered(asked.faces, asked.data)
    run = Run(StyleGenerator(Shape()), Critic(Shape()), Recipe(batch=asked.batch), asked.seed)
    encoder = Encoder(run.generator.shape.z_dim).to(memory_format=torch.channels_last)
    state = asked.data / "start-state.safetensors"
    if state.exists():
        run.generator.load_state_dict(part(state, "generator"))
        run.average.load_state_dict(part(state, "average"))
        encoder.load_state_dict(part(state, "encoder"))
    real = batches(pictures, run.draws)
    optimisers = adam(run.generator, 0.003, 1_000), torch.optim.Adam(encoder.parameters(), 1e-3)
    began = said = time.monotonic()
    while (spent := (time.monotonic() - began) / (60 * asked.minutes)) < 1:
        losses = redrawing_loss(run.generator, encoder, real(asked.batch), run.draws)
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        losses.sum().backward()
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                first = group.setdefault("first_lr", group["lr"])
                group["lr"] = first * min(1.0, (run.steps + 1) / 100, 4 * (1 - spent))
            optimiser.step()
        run.follow()
        run.steps += 1
        if time.monotonic() - said > 60:
            said = time.monotonic()
            picture, edges, nats = losses.tolist()
            told = f"picture {picture / SHARPNESS:.0f}, edges {edges / EDGES:.0f}, nats {nats:.0f}"
            print(f"step {run.steps}, {run.steps * asked.batch / 1000:.0f} k pictures, {told}", flush=True)
            keep(run, encoder, asked.out, state, said - began, asked.faces)
    keep(run, encoder, asked.out, state, time.monotonic() - began, asked.faces)


def keep(run: Run, encoder: Encoder, folder: Path, state: Path, seconds: float, faces: int) -> None:
    """Writes what train_gan goes on from, and what this goes on from."""
    told = {"redrawn": {"steps": run.steps, "pictures_seen": run.steps * run.recipe.batch, "seconds": round(seconds)}}
    about = {"name": "pocket-gan", "world": "pocket-faces", "steps": 0, "training_faces": [0, faces], **told}
    run.average.mapping.w_avg.copy_(average_w(run.average))
    files.save(folder / "generator.safetensors", run.average, about)
    files.save(folder / "critic.safetensors", run.critic, about)
    cv2.imwrite(str(folder / "sheet.png"), sheet(drawn(run.average, 128)))
    parts = {"generator": run.generator, "average": run.average, "encoder": encoder}
    tensors = {f"{name}.{key}": value for name, net in parts.items() for key, value in net.state_dict().items()}
    files.write(state, tensors, {"family": "stylegan2-start"})


def part(state: Path, name: str) -> dict[str, Tensor]:
    """The weights of one network in a state file."""
    stored = files.read(state)[0]
    return {key.removeprefix(f"{name}."): value for key, value in stored.items() if key.startswith(f"{name}.")}


if __name__ == "__main__":
    main()
