"""Adversarial training of a Gan: StyleGAN2's losses, its Adam on folded weights, and a pair in training as deltas."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from erase.borrow import substituted
from erase.model import BadInput, Gan
from erase.rng import stream
from erase.training.deltas import DeltaOptimizer

Weights = Mapping[str, Tensor]


def generator_loss(fake: Tensor) -> Tensor:
    """Non-saturating loss over the critic's logits [n]."""
    return F.softplus(-fake).mean()


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Logistic loss over both sides' logits [n]."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def r1_penalty(critic: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Mean squared length of the logit's gradient with respect to real images (Mescheder et al. 2018), times ½."""
    images = images.detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(images).sum(), images, create_graph=True)
    return slope.square().sum((1, 2, 3)).mean() / 2


def path_lengths(images: Tensor, ws: Tensor, y: Tensor) -> Tensor:
    """How far each picture moves with its ws [n layer w]: the length of the gradient along y, N(0, 1/(h w)); [n]."""
    (slope,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)
    return slope.square().sum(2).mean(1).sqrt()


def folded_adam(named: Weights, gains: Mapping[str, float], lr: float, every: int = 0) -> torch.optim.Adam:
    """Adam as if gains were applied at run time; `every` corrects for the steps that a lazy penalty adds."""
    share = every / (every + 1) if every else 1.0
    groups = [{"params": [leaf], "lr": lr * share * gains[name], "eps": 1e-8 / gains[name]}
              for name, leaf in named.items()]  # fmt: skip
    return torch.optim.Adam(groups, betas=(0.0, 0.99**share))


@dataclass(frozen=True)
class GanSettings:
    """Learning rate, images a step, half-life of the average in steps, weights of R1 and of the path penalty."""

    lr: float
    batch: int
    half_life: float
    r1: float
    path: float


class GanTrainer:
    """A Gan's generator and critic in training on given pictures, as deltas of their weights and a running average.

    Neither network is touched. Everything drawn depends on the seed, the stage's name and the step's number alone.
    """

    R1_EVERY, PATH_EVERY = 16, 8

    def __init__(
        self,
        model: Gan,
        real: Callable[[Tensor], Tensor],
        settings: GanSettings,
        purpose: Sequence[str | int],
        seed: int,
    ) -> None:
        self.model, self.real = model, real
        self.batch, self.r1, self.path = settings.batch, settings.r1, settings.path
        self.critic_net = critic_of(model)
        self.keep = 0.5 ** (1 / settings.half_life)
        self.purpose, self.seed = purpose, seed
        self.generator = _masters(model.network, model.gains, settings.lr, self.PATH_EVERY)
        self.critic = _masters(self.critic_net, model.critic_gains, settings.lr, self.R1_EVERY)
        self.average = {name: torch.zeros_like(delta) for name, delta in self.generator.deltas.items()}
        self.path_mean = torch.zeros([], device=model.device)

    def step(self, number: int, more: Callable[[Weights], Mapping[str, Tensor]] | None = None) -> dict[str, float]:
        """One step of each network; `more` adds terms, over the generator's deltas, to its loss."""
        rng = stream(self.seed, *self.purpose, number)
        with torch.enable_grad():
            seen = self._critic_step(rng, number) | self._generator_step(rng, number, more)
        with torch.no_grad():
            for name, delta in self.generator.deltas.items():
                self.average[name].lerp_(delta, 1 - self.keep)
        return {name: float(loss.detach()) for name, loss in seen.items()}

    def fakes(self, rng: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
        """Pictures of the generator as it is now, and their codes: two styles mixed, fresh noise."""
        z = torch.randn(2, count, self.model.z_dim, generator=rng).to(self.model.device)
        ws, other = self.model.mapping(z[0]), self.model.mapping(z[1])
        layers = ws.shape[1]
        if layers > 1 and float(torch.rand((), generator=rng)) < 0.9:
            cut = int(torch.randint(1, layers, (), generator=rng))
            ws = torch.cat([ws[:, :cut], other[:, cut:]], 1)
        return self.model.synthesis(ws, self.model.fresh_noise(count, rng)), ws

    def state(self) -> dict[str, Tensor]:
        """Both networks' deltas and moments, the average, and the path length so far."""
        parts = {"path_mean": self.path_mean, **{f"average.{name}": value for name, value in self.average.items()}}
        for side, masters in (("generator", self.generator), ("critic", self.critic)):
            parts |= {f"{side}.{name}": value for name, value in masters.state().items()}
        return parts

    def load(self, flat: Mapping[str, Tensor]) -> None:
        """Goes on from `state()`; BadInput if it is the state of another pair."""
        for side, masters in (("generator", self.generator), ("critic", self.critic)):
            masters.load({name.removeprefix(f"{side}."): v for name, v in flat.items() if name.startswith(f"{side}.")})
        for name, value in self.average.items():
            value.copy_(flat[f"average.{name}"])
        self.path_mean = flat["path_mean"].to(self.path_mean.device)

    def _critic_step(self, rng: torch.Generator, number: int) -> dict[str, Tensor]:
        chosen = torch.rand(self.batch, generator=rng)
        real = self.real(chosen)
        with torch.no_grad(), substituted(self.model.network, self.generator.weights()):
            fake, _ = self.fakes(rng, self.batch)
        with substituted(self.critic_net, self.critic.weights()):
            loss = critic_loss(self.critic_net(real), self.critic_net(fake))
            self.critic.step(loss)
        seen = {"critic": loss}
        if self.r1 and number % self.R1_EVERY == 0:
            with substituted(self.critic_net, self.critic.weights()):
                penalty = r1_penalty(self.critic_net, real) * self.r1
                self.critic.step(penalty * self.R1_EVERY)
            seen["r1"] = penalty
        return seen

    def _generator_step(
        self, rng: torch.Generator, number: int, more: Callable[[Weights], Mapping[str, Tensor]] | None
    ) -> dict[str, Tensor]:
        with (
            substituted(self.model.network, self.generator.weights()),
            substituted(self.critic_net, {name: w.detach() for name, w in self.critic.weights().items()}),
        ):
            seen = {"generator": generator_loss(self.critic_net(self.fakes(rng, self.batch)[0]))}
            seen |= more(self.generator.deltas) if more else {}
            self.generator.step(torch.stack(list(seen.values())).sum())
        if self.path and number % self.PATH_EVERY == 0:
            with substituted(self.model.network, self.generator.weights()):
                images, ws = self.fakes(rng, max(1, self.batch // 2))
                y = torch.randn(images.shape, generator=rng).to(images) / math.sqrt(images[0, 0].numel())
                lengths = path_lengths(images, ws, y)
                self.path_mean = self.path_mean.lerp(lengths.detach().mean(), 0.01 if number else 1.0)
                penalty = (lengths - self.path_mean).square().mean() * self.path
                self.generator.step(penalty * self.PATH_EVERY)
            seen["path"] = penalty
        return seen


def critic_of(model: Gan) -> nn.Module:
    """The critic; BadInput naming the methods that do without where the checkpoint has none."""
    if model.critic is None:
        raise BadInput(
            f"{model.name} comes without a discriminator, and this method trains against one. Without it: "
            "text-unlearn, feature-unlearn, guide; or load a checkpoint that holds D."
        )
    return model.critic


def _masters(network: nn.Module, gains: Mapping[str, float], lr: float, every: int) -> DeltaOptimizer:
    names = [name for name, _ in network.named_parameters()]
    return DeltaOptimizer(network, names, lr, optimiser=lambda deltas: folded_adam(deltas, gains, lr, every))
