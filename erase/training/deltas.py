"""Tuning a slice: fp32 master deltas over frozen weights, one optimiser step at a time, with an exact state."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from erase.borrow import substituted
from erase.errors import BadInput
from erase.model import Codes, Denoiser
from erase.work import Step, Work

FreezeCodes = Literal["none", "start", "rest"]


class Learner(Protocol):
    """Something trained whose state is flat tensors by name; `state()` is good until its next step."""

    def state(self) -> dict[str, Tensor]: ...

    def load(self, flat: Mapping[str, Tensor]) -> None: ...


def tune(
    total: int, one: Callable[[int], Mapping[str, float]], learners: Sequence[Learner], state: Mapping[str, Tensor]
) -> Work[None]:
    """Runs `one`, which makes the optimiser step of a number and tells its losses, until `total` steps are made.

    Goes on from `state`, which may be empty.
    """
    done = int(state["tuned"]) if "tuned" in state else 0
    if done:
        for learner in learners:
            learner.load(state)
    for step in range(done, total):
        losses = one(step)
        yield Step("tune", step + 1, total, losses, state=partial(_snapshot, learners, step + 1))


@dataclass(frozen=True)
class NoiseTarget:
    """What a student is asked in one step: its prediction at z [n c h w], times t [n] and codes, beside a target."""

    z: Tensor
    t: Tensor
    codes: Codes
    target: Tensor
    weight: float = 1.0


def errors(model: Denoiser, asks: Mapping[str, NoiseTarget]) -> dict[str, Tensor]:
    """weight · mean (ε(z, t, c) − target)² of each ask; one forward for all, losses in fp32."""
    z, t = (torch.cat(parts) for parts in zip(*((ask.z, ask.t) for ask in asks.values()), strict=True))
    said = model.predict(z, t, Codes.cat([ask.codes for ask in asks.values()])).float()
    parts = said.split([len(ask.z) for ask in asks.values()])
    return {
        name: ask.weight * (part - ask.target).square().mean()
        for (name, ask), part in zip(asks.items(), parts, strict=True)
    }


def regress(
    model: Denoiser, masters: DeltaOptimizer, asks: Mapping[str, NoiseTarget], mask: Mapping[str, Tensor] | None = None
) -> dict[str, float]:
    """One optimiser step down the sum of the asks' errors, through a mask of the gradient if there is one."""
    with torch.enable_grad(), substituted(model.network, masters.weights()):
        losses = errors(model, asks)
        gradients = masters.gradients(torch.stack(list(losses.values())).sum())
    masters.descend({name: part * mask[name] for name, part in gradients.items()} if mask else gradients)
    return {name: float(loss.detach()) for name, loss in losses.items()}


def _snapshot(learners: Sequence[Learner], done: int) -> dict[str, Tensor]:
    parts = {name: value for learner in learners for name, value in learner.state().items()}
    return {"tuned": torch.tensor(done), **parts}


def held(model: Denoiser, confine: FreezeCodes) -> dict[str, Tensor]:
    """By weight name, an orthonormal basis of the codes that the layers reading codes may not reinterpret.

    The code of the start token is the same in every prompt, and those of the empty prompt are in every guided call.
    """
    if confine == "none":
        return {}
    bases = {}
    for space in model.spaces:
        with torch.no_grad():
            resting = model.resting_codes(space)
        basis = span(resting[:1] if confine == "start" else resting)
        bases |= {f"{name}.weight": basis for name in model.readers(space)}
    return bases


def span(rows: Tensor) -> Tensor:
    """An orthonormal basis [code k] of what the rows [n code] span, in float64 on the CPU."""
    _, sizes, basis = torch.linalg.svd(rows.detach().to("cpu", torch.float64), full_matrices=False)
    return basis[sizes > 1e-6 * sizes[0]].T


class DeltaOptimizer:
    """The trained deltas D of some parameters of a network, kept in fp32 whatever the network computes in.

    Adam in bf16 would lose every step smaller than a weight's last bit; the deltas start at zero, so none is lost.
    `held` gives orthonormal inputs [in k] of some layers by weight name: what these layers make of them never changes.
    """

    def __init__(
        self,
        network: nn.Module,
        names: Sequence[str],
        lr: float,
        held: Mapping[str, Tensor] | None = None,
        optimiser: Literal["adam", "sgd"] | Callable[[dict[str, Tensor]], torch.optim.Optimizer] = "adam",
    ) -> None:
        known = dict(network.named_parameters())
        self.frozen = {name: known[name] for name in names}
        self.deltas = {
            name: torch.zeros(weight.shape, dtype=torch.float32, device=weight.device, requires_grad=True)
            for name, weight in self.frozen.items()
        }
        self.held = {name: basis.to(self.deltas[name]) for name, basis in (held or {}).items() if name in self.deltas}
        if isinstance(optimiser, str):
            rule = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimiser]
            self.optimiser: torch.optim.Optimizer = rule(list(self.deltas.values()), lr=lr)
        else:
            self.optimiser = optimiser(self.deltas)

    def weights(self) -> dict[str, Tensor]:
        """W0 + D in the network's dtype, carrying the graph back to D."""
        return {name: (self.frozen[name].detach().float() + delta).to(self.frozen[name].dtype)
                for name, delta in self.deltas.items()}  # fmt: skip

    def gradients(self, loss: Tensor) -> dict[str, Tensor]:
        """The loss's gradient by each delta; raises FloatingPointError if the loss is not finite."""
        finite(loss, "loss")
        gradients = torch.autograd.grad(loss, list(self.deltas.values()), allow_unused=True, materialize_grads=True)
        return dict(zip(self.deltas, gradients, strict=True))

    def descend(self, gradients: Mapping[str, Tensor]) -> None:
        """One optimiser step against these gradients; raises FloatingPointError first if one is not finite."""
        finite(torch.nn.utils.get_total_norm(gradients.values()), "gradient")
        for name, delta in self.deltas.items():
            delta.grad = gradients[name]
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        # After the step, not on the gradient: Adam's rescaling would turn a projected gradient back towards `held`.
        with torch.no_grad():
            for name, basis in self.held.items():
                self.deltas[name].sub_(self.deltas[name] @ basis @ basis.T)

    def step(self, loss: Tensor) -> None:
        """One optimiser step down a loss."""
        self.descend(self.gradients(loss))

    def result(self) -> dict[str, Tensor]:
        """The deltas as an edit holds them: on the CPU."""
        return {name: delta.detach().cpu() for name, delta in self.deltas.items()}

    def state(self) -> dict[str, Tensor]:
        """Deltas and the optimiser's moments by name."""
        deltas = {f"delta.{name}": delta.detach() for name, delta in self.deltas.items()}
        return {**deltas, **moments(self.optimiser, self.deltas)}

    def load(self, flat: Mapping[str, Tensor]) -> None:
        """Goes on from `state()`; raises BadInput if it is the state of other parameters."""
        for name, delta in self.deltas.items():
            if f"delta.{name}" not in flat or flat[f"delta.{name}"].shape != delta.shape:
                raise BadInput(f"The saved state does not fit this job: it has no delta for {name}.")
            with torch.no_grad():
                delta.copy_(flat[f"delta.{name}"])
        remember(self.optimiser, self.deltas, flat)


def finite(value: Tensor, what: str) -> float:
    """The value as a number; raises FloatingPointError, with advice, if it is none."""
    number = float(value.detach())
    if not math.isfinite(number):
        raise FloatingPointError(f"The {what} became {number}; a smaller learning rate or fp32 usually helps.")
    return number


def moments(optimiser: torch.optim.Optimizer, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What an optimiser remembers of each named parameter, as flat tensors."""
    return {
        f"{key}.{name}": value for name, leaf in named.items() for key, value in optimiser.state.get(leaf, {}).items()
    }


def remember(optimiser: torch.optim.Optimizer, named: Mapping[str, Tensor], flat: Mapping[str, Tensor]) -> None:
    """Gives an optimiser its `moments` back; one that has made no step yet has none."""
    for name, leaf in named.items():
        for key in ("step", "exp_avg", "exp_avg_sq"):
            saved = flat.get(f"{key}.{name}")
            if saved is not None:
                optimiser.state[leaf][key] = saved.clone() if key == "step" else saved.to(leaf.device, copy=True)
