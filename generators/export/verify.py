"""Proof that an export opens elsewhere: a clean process with stock libraries draws what the applied edit draws."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from erase.edit import Edit
from erase.model import Shot
from erase.work import Step, Work
from generators.checkpoints import text_encoder_edit
from generators.export.format import Asked, Form
from generators.export.formats.diffusers_folder import write_configs

if TYPE_CHECKING:
    from generators.export.format import Painter

PROOF_STEPS = 20
# Largest difference of a pixel when both sides compute in fp32 on the CPU, where the same kernels agree to rounding.
EXACT = 1e-4
# Largest mean difference of a pixel where rounding is expected. A first guess: random text weights differ by far more.
ROUNDED = 0.05
# An approximation may move a picture by this share of what the edit itself moves it.
SHARE = 0.25
STOCK = Path(__file__).with_name("standalone") / "reopen.py"


class Unproven(RuntimeError):
    """What was written did not draw what the applied edit draws; nothing of it was kept."""


@dataclass(frozen=True)
class Proof:
    """How the comparison was made and what it gave; pixel differences are of values in [0, 1].

    The first three are between what `reader` drew and the model wearing the edit. `stored_difference` is the largest
    pixel difference to the model wearing what our own reader finds in the file; `effect` what the edit itself changes,
    mean over pixels.
    """

    max_difference: float
    mean_difference: float
    max_latent_difference: float | None
    stored_difference: float
    effect: float
    tolerance: str
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    guidance: float
    dtype: str
    device: str
    versions: Mapping[str, str]
    reader: str = "a clean process with stock libraries alone"


def versions(*packages: str) -> dict[str, str]:
    """The installed versions of some packages."""
    return {name: metadata.version(name) for name in packages}


@dataclass(frozen=True)
class Drawn:
    """Final latents [n c h w] and images [n 3 h w] of the compared shots."""

    latents: Tensor
    images: Tensor


def prove(
    model: Painter, edit: Edit, asked: Asked, name: str, form: Form, folder: Path, shots: Sequence[Shot]
) -> Work[Proof]:
    """Opens what `folder` holds in a clean process and compares pictures; raises Unproven where they differ."""
    steps = min(model.default_steps, PROOF_STEPS)

    def drawn(worn: Edit, strength: float) -> Work[Drawn]:
        with worn.applied(model.network, strength):
            latents = yield from model.latents(shots, steps=steps)
            return Drawn(latents.float(), model.decode(latents))

    wanted = yield from drawn(edit, asked.strength)
    plain = yield from drawn(edit, 0.0)
    stored = wanted
    if form.adds and form.file:  # the file is read back as an Edit: proof that it can be worn here too
        stored = yield from drawn(text_encoder_edit.read(folder / form.file), 1.0)
    request = {
        "form": name,
        "path": str(folder),
        "file": form.file,
        "variant": asked.variant,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "prompts": [shot.prompt for shot in shots],
        "seeds": [shot.seed for shot in shots],
        "steps": steps,
        "call": model.stock_call(model.default_guidance),
        "absent": getattr(model, "absent", ()),
    }
    with tempfile.TemporaryDirectory(prefix=".base-", dir=folder.parent) as base:
        if form.adds:
            yield from model.write(Path(base))
        elif name == "single-file":
            write_configs(model, Path(base), model.dtype)
        found = yield from _stock({**request, "base": base})
    if found.images.shape != wanted.images.shape:
        raise Unproven(f"Stock libraries drew images of {tuple(found.images.shape)}, not {tuple(wanted.images.shape)}.")
    pixels = (found.images - wanted.images).abs()
    effect = float((wanted.images - plain.images).abs().mean())
    bound, tolerance = _tolerance(model, form, asked, effect)
    proof = Proof(
        max_difference=float(pixels.max()),
        mean_difference=float(pixels.mean()),
        max_latent_difference=float((found.latents - wanted.latents).abs().max()),
        stored_difference=float((found.images - stored.images).abs().max()),
        effect=effect,
        tolerance=tolerance,
        prompts=tuple(request["prompts"]),
        seeds=tuple(request["seeds"]),
        steps=steps,
        guidance=model.default_guidance,
        dtype=request["dtype"],
        device=request["device"],
        versions=versions("diffusers", "transformers", "torch", "safetensors"),
    )
    _judge(proof, bound, as_stored=stored is not wanted and _plain(model))
    return proof


def _tolerance(model: Painter, form: Form, asked: Asked, effect: float) -> tuple[float | None, str]:
    """The bound of the mean pixel difference and its words; None where the largest must be within EXACT."""
    if not _plain(model) or ((form.file is None or not form.adds) and asked.dtype not in (None, model.dtype)):
        return ROUNDED, f"mean pixel difference ≤ {ROUNDED}, for rounding is expected"
    if asked.dtype in (None, torch.float32) and not form.approximates(asked):
        return None, f"largest pixel difference ≤ {EXACT}"
    bound = max(EXACT, SHARE * effect)
    return bound, f"mean pixel difference ≤ {bound:.2g}, a quarter of what the edit itself changes"


def _plain(model: Painter) -> bool:
    """Whether both sides compute the same to the last bits."""
    return model.dtype == torch.float32 and model.device.type == "cpu"


def _judge(proof: Proof, bound: float | None, as_stored: bool) -> None:
    agrees = proof.max_difference <= EXACT if bound is None else proof.mean_difference <= bound
    if not agrees:
        raise Unproven(
            f"The export draws another picture than the applied edit: it differs by up to {proof.max_difference:.3g}, "
            f"on average {proof.mean_difference:.3g} (required: {proof.tolerance}). "
            "A low-rank format comes closer with a smaller --error; edit, pipeline and single-file leave nothing out."
        )
    if as_stored and proof.stored_difference > EXACT:
        raise Unproven(
            f"Stock libraries draw another picture than what the file holds: it differs by up to "
            f"{proof.stored_difference:.3g} (required: {EXACT})."
        )


def _stock(request: dict[str, Any]) -> Work[Drawn]:
    """What stock libraries draw in a process of its own: isolated from this project, from the environment's Python
    settings and from the network. One Step a second; the process ends with the job."""
    # Beside the export: what a killed process leaves there, the next export to that place clears.
    with tempfile.TemporaryDirectory(prefix=".proof-", dir=Path(request["path"]).parent) as place:
        out, asked, log = Path(place, "drawn.safetensors"), Path(place, "request.json"), Path(place, "log.txt")
        asked.write_text(json.dumps({**request, "out": str(out), "parent": os.getpid()}), encoding="utf-8")
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        with log.open("wb") as errors:
            child = subprocess.Popen(
                [sys.executable, "-I", str(STOCK), str(asked)], stdout=errors, stderr=errors, env=environment
            )
        started = time.perf_counter()
        try:
            while True:
                try:
                    child.wait(timeout=1)
                    break
                except subprocess.TimeoutExpired:
                    yield Step("prove", int(time.perf_counter() - started), unit="s")
        finally:
            child.kill()
            child.wait()
        if child.returncode or not out.is_file():
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise Unproven(f"Stock libraries could not open the export: {said[-1] if said else child.returncode}")
        found = load_file(out)
        return Drawn(found["latents"].clone(), found["images"].clone())
