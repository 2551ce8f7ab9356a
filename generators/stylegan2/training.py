"""Training StyleGAN2: losses, lazy regularisers, the state of a run (Karras et al. 2020; optimiser after NVlabs' ADA).

The pieces work without waiting for the device, so that a CUDA graph can hold a whole step.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from erase.gan.adversarial import critic_loss, generator_loss, path_lengths, r1_penalty
from generators.stylegan2.discriminator import Critic
from generators.stylegan2.network import StyleGenerator, gains


class Recipe(BaseModel, frozen=True):
    """The knobs of a training run."""

    batch: int = Field(64, ge=2, description="pictures a step")
    lr: float = Field(0.002, gt=0, description="Adam's step for weights of unit scale")
    r1: float = Field(0.1, ge=0, description="strength of the critic's gradient penalty: higher is calmer and slower")
    r1_every: int = Field(16, ge=1)
    path: float = Field(2.0, ge=0, description="strength of path length: how evenly w moves the picture")
    path_every: int = Field(4, ge=1)
    mixing: float = Field(0.9, ge=0, le=1, description="share of batches whose layers read two styles")
    half_life: int = Field(20_000, ge=1, description="pictures after which the average forgets half")
    bf16: bool = Field(False, description="convolve in bfloat16; penalties stay in float32")


def adam(network: nn.Module, lr: float, every: int, *, capturable: bool = False) -> torch.optim.Adam:
    """Adam on folded weights as if gains were applied at run time; `every` corrects for steps a lazy penalty adds."""
    share = every / (every + 1)
    groups: dict[float, list[nn.Parameter]] = {}
    gain = gains(network)
    for name, parameter in network.named_parameters():
        groups.setdefault(gain[name], []).append(parameter)
    return torch.optim.Adam(
        [{"params": params, "lr": lr * share * g, "eps": 1e-8 / g} for g, params in groups.items()],
        betas=(0.0, 0.99**share),
        fused=capturable or None,
        capturable=capturable,
    )


@torch.no_grad()
def average_w(generator: StyleGenerator, count: int = 10_000, seed: int = 0) -> Tensor:
    """The mean w [w] of seeded draws: where truncation leads."""
    z = torch.randn(count, generator.shape.z_dim, generator=torch.Generator().manual_seed(seed))
    return generator.mapping(z.to(generator.mapping.w_avg.device))[:, 0].mean(0)


@dataclass
class Run:
    """A generator and its critic in training, with the generator's average and everything needed to go on exactly."""

    generator: StyleGenerator
    critic: Critic
    recipe: Recipe
    seed: int = 0
    steps: int = 0
    average: StyleGenerator = field(init=False)
    draws: torch.Generator = field(init=False)
    beside: Callable[[StyleGenerator], Tensor] | None = None  # a further loss of the generator
    path_mean: Tensor = field(init=False)

    def __post_init__(self) -> None:
        device = self.generator.mapping.w_avg.device
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.draws = torch.Generator(device).manual_seed(self.seed)
        self.path_mean = torch.zeros([], device=device)
        on_gpu = device.type == "cuda"
        self.generator_adam = adam(self.generator, self.recipe.lr, self.recipe.path_every, capturable=on_gpu)
        self.critic_adam = adam(self.critic, self.recipe.lr, self.recipe.r1_every, capturable=on_gpu)
        self.dtype = torch.bfloat16 if self.recipe.bf16 else torch.float32

    def _normal(self, *size: int) -> Tensor:
        return torch.randn(size, generator=self.draws, device=self.draws.device)

    def fakes(self, count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Pictures [n 3 h w] and their ws, drawn with style mixing and fresh noise."""
        shape, device = self.generator.shape, self.draws.device
        first, second = (self.generator.mapping(self._normal(count, shape.z_dim)) for _ in range(2))
        mixed = torch.rand([], generator=self.draws, device=device) < self.recipe.mixing
        crossover = torch.randint(1, shape.num_ws, [], generator=self.draws, device=device)
        keep = torch.arange(shape.num_ws, device=device) < crossover + shape.num_ws * ~mixed
        ws = torch.where(keep[:, None], first, second)
        noise = [self._normal(count, 1, *conv.noise_const.shape) for conv in self.generator.synthesis.convs()]
        return self.generator.synthesis(ws, noise, dtype), ws

    def critic_step(self, real: Tensor) -> dict[str, Tensor]:
        """Teaches the critic to tell real pictures [n 3 h w] from fresh ones."""
        with torch.no_grad():
            images, _ = self.fakes(len(real), self.dtype)
        told, fooled = self.critic(real, self.dtype), self.critic(images, self.dtype)
        loss = critic_loss(told, fooled)
        _update(self.critic, self.critic_adam, loss)
        return {"critic": loss.detach(), "real": told.detach().mean(), "fake": fooled.detach().mean()}

    def critic_penalty(self, real: Tensor) -> dict[str, Tensor]:
        """R1, weighted for the steps it was left out."""
        penalty = r1_penalty(self.critic, real)
        _update(self.critic, self.critic_adam, penalty * self.recipe.r1 * self.recipe.r1_every)
        return {"r1": penalty.detach()}

    def generator_step(self) -> dict[str, Tensor]:
        """Teaches the generator to pass for real."""
        images, _ = self.fakes(self.recipe.batch, self.dtype)
        loss = generator_loss(self.critic(images, self.dtype))
        if self.beside is None:
            _update(self.generator, self.generator_adam, loss)
            return {"generator": loss.detach()}
        more = self.beside(self.generator)
        _update(self.generator, self.generator_adam, loss + more)
        return {"generator": loss.detach(), "beside": more.detach()}

    def generator_penalty(self) -> dict[str, Tensor]:
        """Path length on half a batch, weighted for the steps it was left out."""
        images, ws = self.fakes(max(1, self.recipe.batch // 2), torch.float32)
        y = self._normal(*images.shape) / math.sqrt(images.shape[2] * images.shape[3])
        lengths = path_lengths(images, ws, y)
        mean = self.path_mean.lerp(lengths.detach().mean(), 0.01)
        self.path_mean.copy_(mean)
        penalty = (lengths - mean).square().mean()
        _update(self.generator, self.generator_adam, penalty * self.recipe.path * self.recipe.path_every)
        return {"path": penalty.detach()}

    @torch.no_grad()
    def follow(self) -> None:
        """Moves the average; its memory grows with the run, so that early weights are forgotten."""
        seen = (self.steps + 1) * self.recipe.batch
        keep = 0.5 ** (self.recipe.batch / min(self.recipe.half_life, max(1.0, 0.05 * seen)))
        for slow, fast in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            slow.lerp_(fast, 1 - keep)

    def step(self, pieces: Mapping[str, Callable[[], dict[str, Tensor]]]) -> dict[str, Tensor]:
        """One step of both networks; `pieces` holds the four steps above with their pictures bound, maybe captured."""
        seen = pieces["critic_step"]()
        if self.recipe.r1 and self.steps % self.recipe.r1_every == 0:
            seen = seen | pieces["critic_penalty"]()
        seen = seen | pieces["generator_step"]()
        if self.recipe.path and self.steps % self.recipe.path_every == 0:
            seen = seen | pieces["generator_penalty"]()
        self.follow()
        self.steps += 1
        return seen

    def pieces(self, real: Callable[[int], Tensor]) -> dict[str, Callable[[], dict[str, Tensor]]]:
        """The four steps with their real pictures: `real(count)` draws a batch in [-1, 1]."""
        return {
            "critic_step": lambda: self.critic_step(real(self.recipe.batch)),
            "critic_penalty": lambda: self.critic_penalty(real(self.recipe.batch)),
            "generator_step": self.generator_step,
            "generator_penalty": self.generator_penalty,
        }

    def state(self) -> dict[str, Tensor]:
        """Everything a later `restore` needs, as flat named tensors."""
        out = {"steps": torch.tensor(self.steps), "draws": self.draws.get_state(), "path_mean": self.path_mean}
        for name, module in (("generator", self.generator), ("critic", self.critic), ("average", self.average)):
            out |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
        for name, optimiser in (("generator_adam", self.generator_adam), ("critic_adam", self.critic_adam)):
            for index, moments in optimiser.state_dict()["state"].items():
                out |= {f"{name}.{index}.{key}": value for key, value in moments.items()}
        return {key: value.detach().clone().cpu().contiguous() for key, value in out.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Goes on exactly where `state` was taken."""
        self.steps = int(state["steps"])
        self.draws.set_state(state["draws"])
        self.path_mean.copy_(state["path_mean"])
        for name, module in (("generator", self.generator), ("critic", self.critic), ("average", self.average)):
            module.load_state_dict(below(state, name))
        for name, optimiser in (("generator_adam", self.generator_adam), ("critic_adam", self.critic_adam)):
            moments: dict[int, dict[str, Tensor]] = {}
            for key, value in below(state, name).items():
                index, _, what = key.partition(".")
                moments.setdefault(int(index), {})[what] = value
            optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})


def captured(work: Callable[[], dict[str, Tensor]], draws: torch.Generator) -> Callable[[], dict[str, Tensor]]:
    """The same step as a CUDA graph: one launch instead of thousands.  Capturing first runs `work` three times."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(draws)
    with torch.cuda.graph(graph):
        seen = work()

    def replay() -> dict[str, Tensor]:
        graph.replay()
        return seen

    return replay


def _update(network: nn.Module, optimiser: torch.optim.Adam, loss: Tensor) -> None:
    """One Adam step of this network alone: the other one's weights get no gradient."""
    parameters = list(network.parameters())
    for parameter, slope in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
        parameter.grad = torch.zeros_like(parameter) if slope is None else slope
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def below(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of one part of a state, under their own names."""
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
