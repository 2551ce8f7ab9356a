"""The denoising loop of flow transformers, one Step per call: what the stock pipelines compute, step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from erase.errors import BadInput
from erase.model import Codes, Shot, Trajectory
from erase.work import Work
from generators.stable_diffusion.sampling import Outputs, at_once

if TYPE_CHECKING:
    from generators.flow.adapter import FlowTransformer


def standard_noise(model: FlowTransformer, shots: Sequence[Shot]) -> Tensor:
    """N(0, 1) latents [n c h w], drawn in the model's dtype as the stock pipelines do."""
    streams = [torch.Generator("cpu").manual_seed(shot.seed) for shot in shots]
    drawn = [torch.randn((1, *model.latent_shape), generator=each, dtype=model.dtype) for each in streams]
    return torch.cat(drawn).to(model.device) if drawn else torch.empty((0, *model.latent_shape), device=model.device)


def _dynamic(model: FlowTransformer) -> float | None:
    """μ, the logarithm of the shift that a scheduler with dynamic shifting gives latents of this size."""
    config, patch = model.scheduler.config, model.kind.patch(model.parts.transformer.config)
    if not config.get("use_dynamic_shifting"):
        return None
    length = model.latent_shape[1] * model.latent_shape[2] // patch**2
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    least, most = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return least + (most - least) * (length - low) / (high - low)


def shift(model: FlowTransformer) -> float:
    """The shift s of the sampler, σ → s·σ / (1 + (s − 1)·σ)."""
    dynamic = _dynamic(model)
    return math.exp(dynamic) if dynamic is not None else float(model.scheduler.config.get("shift", 1.0))


def timed(model: FlowTransformer, steps: int) -> Any:
    """A fresh scheduler of the pipeline's own kind, set to so many steps."""
    scheduler = type(model.scheduler).from_config(model.scheduler.config)
    given: dict[str, Any] = {}
    if model.kind.pipeline == "FluxPipeline" and not scheduler.config.get("use_flow_sigmas"):
        given["sigmas"] = np.linspace(1.0, 1 / steps, steps)
    else:
        given["num_inference_steps"] = steps
    if (dynamic := _dynamic(model)) is not None:
        given["mu"] = dynamic
    scheduler.set_timesteps(device=model.device, **given)
    scheduler.set_begin_index(0)
    return scheduler


@dataclass(frozen=True)
class How:
    """How shots are drawn: denoising steps, guidance scale, and how many latents at once."""

    steps: int
    guidance: float
    batch: int


def denoise(
    model: FlowTransformer,
    shots: Sequence[Shot],
    how: How,
    codes: Codes | None = None,
    state: Mapping[str, Tensor] | None = None,
) -> Work[Tensor]:
    """The final latents [n c h w] of shots, on the CPU; `codes`, one per shot, are read in place of their prompts."""
    if how.steps < 1 or how.batch < 1:
        raise BadInput(
            f"Drawing needs at least one step and a batch of one; given {how.steps} steps, batches of {how.batch}."
        )
    batch = min(how.batch, at_once(model))
    state = state if len(shots) <= batch else None  # what is kept is of one batch
    finished: list[Tensor] = []
    total = done = 0
    with torch.no_grad():
        codes = model.encode([shot.prompt for shot in shots] or [""]) if codes is None else codes
        absent = model.encode([""]) if how.guidance > 1 and not model.embeds_guidance else None
    for start in range(0, len(shots), batch):
        scheduler = timed(model, how.steps)
        total = total or len(scheduler.timesteps) * -(-len(shots) // batch)
        z, outputs = standard_noise(model, shots[start : start + batch]), Outputs(state, model)
        own = codes[start : start + batch]
        for place, t in enumerate(scheduler.timesteps):
            output = outputs.of(place, partial(_output, model, z, t, (own, absent, how.guidance)))
            z = scheduler.step(output, t, z, return_dict=False)[0].to(z.dtype)
            done += 1
            if place >= outputs.known:
                yield outputs.step("sample", done, total)
        finished.append(z.cpu())
    return torch.cat(finished) if finished else torch.empty((0, *model.latent_shape))


@torch.no_grad()
def _output(model: FlowTransformer, z: Tensor, t: Tensor, guide: tuple[Codes, Codes | None, float]) -> Tensor:
    present, absent, guidance = guide
    level = (t / 1000).expand(len(z)).to(z.device)
    said = model.velocity(z, level, present, guidance)
    if absent is None:
        return said
    without = model.velocity(z, level, absent.repeat(len(present)), guidance)
    return without + guidance * (said - without)


@torch.no_grad()
def _both(model: FlowTransformer, z: Tensor, t: int, codes: Codes) -> Tensor:
    return model.predict(torch.cat([z, z]), torch.tensor(t), codes)


def rollout(
    model: FlowTransformer, shots: Sequence[Shot], how: How, state: Mapping[str, Tensor] | None = None
) -> Work[Trajectory]:
    """Guided rollouts by Euler's rule over the sampler's own grid, with both predictions at each call."""
    if how.steps < 1 or how.batch < 1 or not shots:
        raise BadInput(f"A rollout needs shots, steps and a batch; given {len(shots)}, {how.steps} and {how.batch}.")
    batch = min(how.batch, at_once(model))
    state = state if len(shots) <= batch else None  # what is kept is of one batch
    times = model.path.grid(how.steps)
    shape = (len(shots), len(times), *model.latent_shape)
    book = {name: torch.empty(shape) for name in ("z", "present", "absent")}
    with torch.no_grad():
        codes, absent = model.encode([shot.prompt for shot in shots]), model.encode([""])
    total, done = len(times) * -(-len(shots) // batch), 0
    for start in range(0, len(shots), batch):
        rows = slice(start, start + batch)
        z, outputs = standard_noise(model, shots[rows]), Outputs(state, model)
        both = Codes.cat([absent.repeat(len(z)), codes[rows]])
        for column, (now, then) in enumerate(zip(times, [*times[1:], None], strict=True)):
            book["z"][rows, column] = z.float().cpu()
            without, present = outputs.of(column, partial(_both, model, z, now, both)).chunk(2)
            book["absent"][rows, column] = without.float().cpu()
            book["present"][rows, column] = present.float().cpu()
            # What embeds its guidance is not guided a second time.
            guided = present if model.embeds_guidance else without + how.guidance * (present - without)
            z = model.path.step(guided, z, now, then).to(z.dtype)
            done += 1
            if column >= outputs.known:
                yield outputs.step("rollout", done, total)
    return Trajectory(book["z"], torch.tensor(times), book["present"], book["absent"])
