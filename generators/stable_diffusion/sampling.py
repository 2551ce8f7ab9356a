"""The denoising loop, one Step per call of the U-Net: with the pipeline's own scheduler, or with DDIM for banks.

Step for step it computes what the stock diffusers pipelines compute, so an exported folder draws the same pictures.
Gradients are switched off inside each step and never while the caller holds the generator.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from erase.errors import BadInput
from erase.model import Codes, Shot, Trajectory
from erase.work import Step, Work

if TYPE_CHECKING:
    from generators.export.format import Painter
    from generators.stable_diffusion.adapter import StableDiffusion


LATENTS_AT_ONCE = 16 * 64 * 64  # places; with guidance the U-Net sees twice as many


def streams(shots: Sequence[Shot]) -> list[torch.Generator]:
    """One generator per shot, on the CPU: the same noise on every machine and in every batch."""
    return [torch.Generator("cpu").manual_seed(shot.seed) for shot in shots]


def standard_noise(model: StableDiffusion, generators: Sequence[torch.Generator]) -> Tensor:
    """N(0, 1) latents [n c h w], drawn in the model's dtype as the stock pipelines do."""
    drawn = [torch.randn((1, *model.latent_shape), generator=each, dtype=model.dtype) for each in generators]
    return torch.cat(drawn).to(model.device)


def at_once(model: Painter) -> int:
    """How many latents the U-Net may be asked for together, for memory grows with their size."""
    return max(LATENTS_AT_ONCE // (model.latent_shape[1] * model.latent_shape[2]), 1)


def few_steps(scheduler: Any) -> dict[str, float]:
    """Steps and guidance of models that were distilled to few steps, which their scheduler tells; else nothing."""
    kind, config = type(scheduler).__name__, scheduler.config
    distilled = kind in ("LCMScheduler", "TCDScheduler")
    # Turbo and Lightning: no other published model asks Euler for trailing times without zero terminal SNR.
    turbo = kind.startswith("Euler") and config.get("timestep_spacing") == "trailing"
    zero_snr = config.get("rescale_betas_zero_snr") or config.get("prediction_type") == "v_prediction"
    return {"steps": 4, "guidance": 1.0} if distilled or (turbo and not zero_snr) else {}


class Outputs:
    """What the network has said of one batch, step by step: an interrupted batch goes on from it to the same bits.

    A scheduler's memory and its noise follow from these, so replaying them calls no network. Without a `state` to go
    on from, which may be empty, nothing is kept.
    """

    def __init__(self, state: Mapping[str, Tensor] | None, model: Painter) -> None:
        self.kept = state is not None
        self.said = list(state["outputs"].to(model.device, model.dtype)) if state else []
        self.known = len(self.said)

    def of(self, place: int, ask: Callable[[], Tensor]) -> Tensor:
        """The output of a step: the one that is known, else what `ask` computes."""
        if place < self.known:
            return self.said[place]
        output = ask()
        if self.kept:
            self.said.append(output)
        return output

    def step(self, stage: str, done: int, total: int) -> Step:
        """The Step of the newest output, with the state that is kept."""
        said = list(self.said)
        return Step(stage, done, total, state=(lambda: {"outputs": torch.stack(said)}) if self.kept else None)


def denoise(
    model: StableDiffusion,
    shots: Sequence[Shot],
    *,
    steps: int,
    guidance: float,
    batch: int,
    codes: Codes | None = None,
    state: Mapping[str, Tensor] | None = None,
) -> Work[Tensor]:
    """The final latents [n c h w] of shots, on the CPU; `codes`, one per shot, are read in place of their prompts."""
    if steps < 1 or batch < 1:
        raise BadInput(f"Drawing needs at least one step and a batch of one; given {steps} steps, batches of {batch}.")
    batch = min(batch, at_once(model))
    state = state if len(shots) <= batch else None  # what is kept is of one batch
    finished: list[Tensor] = []
    total = done = 0
    codes = _read(model, [shot.prompt for shot in shots]) if codes is None else codes
    # As in stock diffusers a scale of 1 or less means no guidance at all.
    absent = model.unconditional() if guidance > 1 else None
    for start in range(0, len(shots), batch):
        scheduler = type(model.scheduler).from_config(model.scheduler.config)
        scheduler.set_timesteps(steps, device=model.device)
        if model.family == "xl" and hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        total = total or len(scheduler.timesteps) * -(-len(shots) // batch)
        generators = streams(shots[start : start + batch])
        z = standard_noise(model, generators) * scheduler.init_noise_sigma
        own = codes[start : start + batch]
        options = _options(scheduler, generators)
        outputs, guide = Outputs(state, model), _Guide(own, absent, guidance)
        for place, t in enumerate(scheduler.timesteps):
            output = outputs.of(place, partial(_output, model, scheduler, z, t, guide))
            z = scheduler.step(output, t, z, **options, return_dict=False)[0].to(z.dtype)
            done += 1
            if place >= outputs.known:
                yield outputs.step("sample", done, total)
        finished.append(z.cpu())
    return torch.cat(finished) if finished else torch.empty((0, *model.latent_shape))


@torch.no_grad()
def _read(model: StableDiffusion, prompts: list[str]) -> Codes:
    return model.encode(prompts or [""])


@dataclass(frozen=True)
class _Guide:
    """What one call is guided by: codes of the prompts, of the empty prompt (None: no guidance), and the scale."""

    present: Codes
    absent: Codes | None
    scale: float


@torch.no_grad()
def _output(model: StableDiffusion, scheduler: Any, z: Tensor, t: Tensor, guide: _Guide) -> Tensor:
    if guide.absent is None:
        return model.unet_output(scheduler.scale_model_input(z, t), t, guide.present)
    scaled = scheduler.scale_model_input(torch.cat([z, z]), t)
    without, with_prompt = _halves(model, scaled, t, guide.present, guide.absent)
    return without + guide.scale * (with_prompt - without)


def _halves(model: StableDiffusion, z: Tensor, t: Tensor, present: Codes, absent: Codes) -> tuple[Tensor, Tensor]:
    """Both halves of a guided call in one batch: without the prompt, then with it; `z` holds the latents twice."""
    without, with_prompt = model.unet_output(z, t, Codes.cat([absent.repeat(len(present)), present])).chunk(2)
    return without, with_prompt


def _both(model: StableDiffusion, z: Tensor, t: Tensor, present: Codes, absent: Codes) -> Tensor:
    """Both halves of a guided call at z, one after the other."""
    return torch.cat(_halves(model, torch.cat([z, z]), t, present, absent))


def _options(scheduler: Any, generators: list[torch.Generator]) -> dict[str, Any]:
    """The keywords this scheduler's step takes, out of those the stock pipelines pass."""
    accepted = inspect.signature(scheduler.step).parameters
    return {name: value for name, value in {"eta": 0.0, "generator": generators}.items() if name in accepted}


def rollout(
    model: StableDiffusion,
    shots: Sequence[Shot],
    *,
    guidance: float,
    steps: int,
    batch: int,
    state: Mapping[str, Tensor] | None = None,
) -> Work[Trajectory]:
    """Guided DDIM rollouts (η = 0) over the scheduler's grid of times, with both predictions at each call."""
    if steps < 1 or batch < 1 or not shots:
        raise BadInput(f"A rollout needs shots, steps and a batch; given {len(shots)}, {steps} and {batch}.")
    batch = min(batch, at_once(model))
    state = state if len(shots) <= batch else None  # what is kept is of one batch
    scheduler = model.ddim()
    scheduler.set_timesteps(steps)
    times = [int(t) for t in scheduler.timesteps]
    shape = (len(shots), len(times), *model.latent_shape)
    book = {name: torch.empty(shape) for name in ("z", "present", "absent")}
    codes, absent = _read(model, [shot.prompt for shot in shots]), model.unconditional()
    total, done = len(times) * -(-len(shots) // batch), 0
    for start in range(0, len(shots), batch):
        rows = slice(start, start + batch)
        z, outputs = standard_noise(model, streams(shots[rows])), Outputs(state, model)
        for column, t in enumerate(times):
            book["z"][rows, column] = z.float().cpu()
            time = torch.tensor(t, device=model.device)
            with torch.no_grad():
                both = outputs.of(column, partial(_both, model, z, time, codes[rows], absent))
                without, with_prompt = both.chunk(2)
                book["absent"][rows, column] = model.as_noise(without, z, time).float().cpu()
                book["present"][rows, column] = model.as_noise(with_prompt, z, time).float().cpu()
                guided = without + guidance * (with_prompt - without)
                z = scheduler.step(guided, t, z, eta=0.0, return_dict=False)[0].to(z.dtype)
            done += 1
            if column >= outputs.known:
                yield outputs.step("rollout", done, total)
    return Trajectory(book["z"], torch.tensor(times), book["present"], book["absent"])
