"""Teaches pocket-gan's generator which face each z stands for, before it competes with a critic: days of a CPU less.

    python -m generators.pocket.train.start_gan --data FOLDER --out GAN  # then train.gan --resume --taught 10 --out GAN

Pocket Faces are drawn by dice, and a normal z can be the dice (`face_codes`).  So the generator learns by regression,
in three parts: the synthesis, reading what decides a picture through one linear layer; the mapping, from z to what
that layer says; both together.  Each goes on from where it was, as the state beside the rendered faces says.  The
adversarial training that follows makes sharp what regression leaves undecided.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.pocket.faces.data import rendered
from generators.pocket.faces.factors import factors
from generators.pocket.train.gan import FIRST_TAUGHT, LICENCE, drawn, off, sheet
from generators.stylegan2.discriminator import Critic
from generators.stylegan2.io import files
from generators.stylegan2.network import Shape, StyleGenerator, gains, latents
from generators.stylegan2.training import Recipe, Run, average_w

MINUTES = {"synthesis": 25.0, "mapping": 10.0, "together": 5.0}
SHAPE = Shape(mapping_layers=6)


def pupil(network: nn.Module, gain: Mapping[str, float], lr: float) -> torch.optim.Adam:
    """Adam in units of unfolded weights."""
    return torch.optim.Adam(
        [{"params": [leaf], "lr": lr * gain[name], "eps": 1e-8 / gain[name]}
         for name, leaf in network.named_parameters() if "noise" not in name],
        betas=(0.9, 0.99),
    )  # fmt: skip


def descend(optimisers: Sequence[torch.optim.Optimizer], loss: Tensor, spent: float, step: int) -> None:
    """One step down, the rate rising for 100 steps and falling over the last two fifths of the time."""
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    loss.backward()
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            first = group.setdefault("first_lr", group["lr"])
            group["lr"] = first * min(1.0, (step + 1) / 100, 2.5 * (1 - spent) + 0.01)
        optimiser.step()


@dataclass
class TrainingBatch:
    """A run that is being started, the faces it learns from and the linear layer that stands in for the mapping."""

    run: Run
    reader: nn.Linear
    pictures: Tensor
    codes: Tensor
    lr: float
    tell: Callable[[str, Tensor], None]
    settled: bool = False  # whether the linear layer stays as it is, because the mapping has learnt from it

    def chosen(self) -> tuple[Tensor, Tensor]:
        """Codes [n z] of a batch and their pictures [n 3 64 64] in [-1, 1]."""
        some = torch.randint(len(self.pictures), (self.run.recipe.batch,), generator=self.run.draws)
        return self.codes[some], self.pictures[some].float() / 127.5 - 1

    def synthesis(self, shares: Iterator[float]) -> None:
        """Pictures from what decides them."""
        network, gain = self.run.generator.synthesis, gains(self.run.generator.synthesis)
        optimisers = [pupil(network, gain, self.lr)]
        if not self.settled:
            optimisers.append(torch.optim.Adam(self.reader.parameters(), self.lr / 4))
        for step, spent in enumerate(shares):
            z, wanted = self.chosen()
            w = self.reader(factors(z))
            made = network(w[:, None].expand(-1, self.run.generator.shape.num_ws, -1), "none", torch.bfloat16)
            loss = off(made, wanted)
            descend(optimisers, loss, spent, step)
            self.done("synthesis", loss)

    def mapping(self, shares: Iterator[float]) -> None:
        """From z to what the linear layer says, over ever new codes: no picture is drawn.

        An error of w counts as much as it changes the picture; the loss is the share of that which is left.
        """
        network = self.run.generator.mapping
        optimiser = torch.optim.Adam(network.parameters(), 2e-3)
        seen = self.visible()
        for step, spent in enumerate(shares):
            z = torch.randn(1024, self.run.generator.shape.z_dim, generator=self.run.draws)
            with torch.no_grad():
                wanted = self.reader(factors(z)) @ seen
            loss = F.mse_loss(network(z)[:, 0] @ seen, wanted) / wanted.var(0).mean()
            descend([optimiser], loss, spent, step)
            self.done("mapping", loss)

    def visible(self) -> Tensor:
        """L of LLᵀ = E[JᵀJ], J the slope of the picture: |Lᵀ dw| is how much dw changes it, on average [w w]."""
        count, network = 512, self.run.generator.synthesis
        total = torch.zeros(2 * [self.run.generator.shape.w_dim])
        for _ in range(count // 32):
            z = torch.randn(32, self.run.generator.shape.z_dim, generator=self.run.draws)
            w = self.reader(factors(z)).detach().requires_grad_()
            made = network(w[:, None].expand(-1, self.run.generator.shape.num_ws, -1), "none")
            toward = torch.randn(made.shape, generator=self.run.draws)
            (slope,) = torch.autograd.grad((made * toward).sum(), w)
            total += slope.T @ slope / count
        least = 1e-3 * total.trace() / len(total)  # nothing of w is left to itself
        return torch.linalg.cholesky(total + least * torch.eye(len(total)))

    def together(self, shares: Iterator[float]) -> None:
        """Pictures from z."""
        generator = self.run.generator
        optimisers = [
            pupil(generator.synthesis, gains(generator.synthesis), self.lr / 4),
            torch.optim.Adam(generator.mapping.parameters(), 1e-4),
        ]
        for step, spent in enumerate(shares):
            z, wanted = self.chosen()
            loss = off(generator.synthesis(generator.mapping(z), "none", torch.bfloat16), wanted)
            descend(optimisers, loss, spent, step)
            self.done("together", loss)

    def done(self, lesson: str, loss: Tensor) -> None:
        """Counts a step."""
        self.run.follow()
        self.run.steps += 1
        self.tell(lesson, loss.detach())


def shares(minutes: float) -> Iterator[float]:
    """The share of so many minutes that is spent, until they are."""
    began = time.monotonic()
    while (spent := (time.monotonic() - began) / (60 * minutes)) < 1:
        yield spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for lesson, minutes in MINUTES.items():
        parser.add_argument(f"--{lesson}", type=float, default=minutes, help="minutes (default: %(default)g)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("temp/pocket-faces"))
    parser.add_argument("--faces", type=int, default=12_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.004)
    parser.add_argument("--settled", action="store_true", help="synthesis: leave w as the mapping has learnt it")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.manual_seed(asked.seed)
    pictures, _ = rendered(asked.faces, asked.data, start=FIRST_TAUGHT, coded=True)
    codes = latents(range(FIRST_TAUGHT, FIRST_TAUGHT + asked.faces), SHAPE.z_dim)
    run = Run(StyleGenerator(SHAPE), Critic(SHAPE), Recipe(batch=asked.batch), asked.seed)
    began = said = time.monotonic()

    def tell(lesson: str, loss: Tensor) -> None:
        nonlocal said
        if (now := time.monotonic()) - said > 30:
            said = now
            print(f"{lesson}: step {run.steps}, {float(loss):.4f}", flush=True)

    reader = nn.Linear(factors(codes[:1]).shape[1], SHAPE.w_dim)
    parts = {"generator": run.generator, "average": run.average, "reader": reader}
    state = asked.data / "start-state.safetensors"
    if state.exists():
        stored = files.read(state)[0]
        for name, network in parts.items():
            network.load_state_dict(
                {k.removeprefix(f"{name}."): v for k, v in stored.items() if k.startswith(f"{name}.")}
            )
    lessons = TrainingBatch(run, reader, pictures, codes, asked.lr, tell, asked.settled)
    for lesson in MINUTES:
        if getattr(asked, lesson):
            getattr(lessons, lesson)(shares(getattr(asked, lesson)))
            tensors = {f"{name}.{key}": value for name, net in parts.items() for key, value in net.state_dict().items()}
            files.write(state, tensors, {"family": "stylegan2-start"})
            keep(run, reader, asked.out, time.monotonic() - began, asked.faces)


def keep(run: Run, reader: nn.Linear, folder: Path, seconds: float, faces: int) -> None:
    """Writes what train_gan goes on from."""
    taught = {"steps": run.steps, "faces": faces, "seconds": round(seconds)}
    about = {"name": "pocket-gan", "world": "pocket-faces", "licence": LICENCE, "steps": 0, "taught": taught}
    run.average.mapping.w_avg.copy_(average_w(run.average))
    files.save(folder / "generator.safetensors", run.average, about)
    files.save(folder / "critic.safetensors", run.critic, about)
    cv2.imwrite(str(folder / "sheet.png"), sheet(drawn(run.average, 128)))
    with torch.no_grad():
        ws = reader(factors(latents(range(128), SHAPE.z_dim)))[:, None].expand(-1, SHAPE.num_ws, -1)
        pictures = ((run.average.synthesis(ws, "none") + 1) * 127.5).round().clamp(0, 255).byte()
    cv2.imwrite(str(folder / "sheet-of-factors.png"), sheet(pictures))


if __name__ == "__main__":
    main()
