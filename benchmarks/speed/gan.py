"""What Adapt-then-Unlearn's second stage costs: running sums against a loop that reloads its K adapted checkpoints."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.speed.methods import Plan, Speed
from erase.borrow import borrowed
from erase.gan.adversarial import GanSettings, GanTrainer
from erase.methods.adapt_unlearn import Sums
from erase.model import Gan
from erase.rng import stream
from erase.work import Step, Work

MODELS, BATCH = 5, 16


def speed_adapt_unlearn(model: Gan, plan: Plan) -> Work[Speed]:
    """The same optimiser steps with both ways of measuring the distance to five adapted models; losses must agree."""
    steps = max(2, min(plan.steps, 10))
    with tempfile.TemporaryDirectory() as folder, borrowed(model.network, train=False):
        sums, files = Sums(model), [Path(folder) / f"{k}.safetensors" for k in range(MODELS)]
        for k, file in enumerate(files):
            vector = _moved(model, k, plan.seed)
            sums.add(vector)
            save_file({name: (weight + vector[name]).contiguous() for name, weight in _weights(model).items()}, file)
        ways = {"ours": sums.distance, "published": partial(_reloaded, model, _weights(model), files)}
        seconds, alone, losses = {}, {}, {}
        for name, distance in ways.items():
            seconds[name], losses[name] = yield from _run(model, plan.seed, steps, distance, name)
            alone[name] = _term(model, plan.seed, distance)
    held = sum(value.numel() for value in sums.vectors.values())
    copies = MODELS * sum(value.numel() for value in _weights(model).values())
    return Speed(
        ours_forwards=2.0, published_forwards=2.0,  # of the generator, for the critic and for itself
        wall_ratio=seconds["published"] / seconds["ours"], memory_ratio=copies / held,
        note=(
            f"stage 2 on {model.name} with K = {MODELS}, {BATCH} images a step, on {torch.device(model.device).type}, "
            f"{torch.get_num_threads()} threads; the repulsion alone {1000 * alone['ours']:.1f} ms against "
            f"{1000 * alone['published']:.1f} ms ({alone['published'] / alone['ours']:.0f} times), the rest of a "
            "step is the same on both sides; memory: what is kept of the adapted models against K of them at once"
        ),
        gradient_steps=steps, ours_seconds=seconds["ours"], published_seconds=seconds["published"], loss=losses,
    )  # fmt: skip


def _weights(model: Gan) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in model.network.named_parameters()}


def _moved(model: Gan, k: int, seed: int) -> dict[str, Tensor]:
    rng = stream(seed, "adapted", k)
    return {
        name: 0.01 * model.gains[name] * torch.randn(weight.shape, generator=rng).to(weight)
        for name, weight in _weights(model).items()
    }


def _reloaded(model: Gan, before: Mapping[str, Tensor], files: list[Path], u: Mapping[str, Tensor]) -> Tensor:
    """ρ as the published loop goes about it: each adapted generator is built and read from disk in every step."""
    far, apart = [], []
    for file in files:
        adapted = type(model.network)(model.network.shape)  # type: ignore[arg-type]
        adapted.load_state_dict(load_file(file), strict=False)
        for name, weight in adapted.named_parameters():
            if name.startswith("synthesis."):
                far.append(((before[name] + u[name] - weight.detach()) / model.gains[name]).square().sum())
                apart.append(((before[name] - weight.detach()) / model.gains[name]).square().sum())
    return torch.stack(far).sum() / torch.stack(apart).sum()


def _run(
    model: Gan, seed: int, steps: int, distance: Callable[[Mapping[str, Tensor]], Tensor], name: str
) -> Work[tuple[float, float]]:
    """Seconds a step, and the repulsion after the last one."""
    with torch.no_grad():
        real = model.synthesis(model.mapping(model.latents(range(64))))
    settings = GanSettings(lr=0.002, batch=BATCH, half_life=10.0, r1=0.0, path=0.0)
    duel = GanTrainer(model, lambda chosen: real[(chosen * len(real)).long()], settings, ("speed",), seed)

    def pushed(deltas: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"repel": (-2.0 * distance(deltas)).exp()}

    seen, spent = duel.step(0, pushed), 0.0
    for number in range(1, steps + 1):
        began = time.perf_counter()
        seen = duel.step(number, pushed)
        spent += time.perf_counter() - began
        yield Step(name, number, steps)
    return spent / steps, seen["repel"]


def _term(model: Gan, seed: int, distance: Callable[[Mapping[str, Tensor]], Tensor]) -> float:
    """Seconds of the repulsion and its gradient alone: the median of five."""
    deltas = {name: torch.zeros_like(weight, requires_grad=True) for name, weight in _weights(model).items()}
    found = []
    for _ in range(5):
        began = time.perf_counter()
        with torch.enable_grad():
            torch.autograd.grad((-2.0 * distance(deltas)).exp(), list(deltas.values()), allow_unused=True)
        found.append(time.perf_counter() - began)
    return sorted(found)[2]
