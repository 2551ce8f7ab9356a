"""The erased model as a diffusers folder, with proof: stock diffusers opens it and draws the same picture."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from erase.edit import Edit
from erase.errors import BadInput
from erase.model import Shot
from erase.work import Step, Work
from generators.export import card as cards
from generators.export.folder import arriving, write

if TYPE_CHECKING:
    from generators.stable_diffusion import StableDiffusion

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PROOF_STEPS = 20
# Largest difference of a pixel when both sides compute in fp32 on the CPU, where the same kernels agree to rounding.
EXACT = 1e-4
# Largest mean difference of a pixel where rounding is expected. A first guess: random text weights differ by far more.
ROUNDED = 0.05
STOCK = Path(__file__).with_name("stock.py")


class Unproven(RuntimeError):
    """The written folder did not draw what the worn edit draws; it was kept under another name to be looked at."""


@dataclass(frozen=True)
class Exported:
    """What was written and how far its picture is from the worn edit's: largest pixel and latent difference."""

    path: Path
    files: tuple[str, ...]
    bytes: int
    max_difference: float
    max_latent_difference: float
    seconds: float


@dataclass(frozen=True)
class Proof:
    """How the comparison was made and what it gave; the pixel differences are of values in [0, 1]."""

    max_difference: float
    mean_difference: float
    max_latent_difference: float
    tolerance: str
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    guidance: float
    dtype: str
    device: str
    versions: Mapping[str, str]


def export_pipeline(
    model: StableDiffusion,
    edit: Edit | None,
    folder: Path,
    *,
    strength: float = 1.0,
    dtype: str | None = None,
    variant: str | None = None,
    force: bool = False,
    card: str | None = None,
    shots: Sequence[Shot] | None = None,
) -> Work[Exported]:
    """Writes the model wearing the edit at a strength, opens it with stock diffusers and compares `shots`.

    `dtype` is fp32, bf16 or fp16, None keeps the loaded one; `card` is the model card, made from `edit.about` if None.
    The folder appears whole or not at all. Raises BadInput for a target that holds something, an edit of another model
    or a full disk, and Unproven, leaving FOLDER.unproven, if the pictures differ.
    """
    started, folder = time.perf_counter(), Path(folder).expanduser()
    if dtype is not None and dtype not in DTYPES:
        raise BadInput(f"Unknown dtype {dtype!r}. Possible: {', '.join(DTYPES)}.")
    if not strength == strength or abs(strength) == float("inf"):
        raise BadInput(f"The strength should be a number, usually between 0 and 1, not {strength}.")
    stored = DTYPES[dtype] if dtype else model.dtype
    about: dict[str, Any] = dict(edit.about) if edit else {}
    compared = list(shots) if shots is not None else [Shot(0, cards.spoken(about))]
    text = cards.card(about, licence=model.licence) if card is None else card
    edit = edit or Edit({}, {})
    with arriving(folder, force=force) as temporary:
        with edit.worn(model.network, strength):
            yield from write(model, temporary, dtype=stored, variant=variant)
            steps = min(model.default_steps, PROOF_STEPS)
            latents = yield from model.latents(compared, steps=steps)
            images = model.decode(latents)
        request = {
            "folder": str(temporary),
            "variant": variant,
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": str(model.device),
            "prompts": [shot.prompt for shot in compared],
            "seeds": [shot.seed for shot in compared],
            "steps": steps,
            "guidance": model.default_guidance,
        }
        try:
            drawn = yield from _stock(request)
            exact = stored == model.dtype == torch.float32 and model.device.type == "cpu"
            proof = _compared(request, drawn, latents, images, exact=exact)
        except Unproven:
            unproven = folder.with_name(f"{folder.name}.unproven")
            shutil.rmtree(unproven, ignore_errors=True)
            os.replace(temporary, unproven)
            raise
        (temporary / "proof.json").write_text(json.dumps(asdict(proof), indent=2) + "\n", encoding="utf-8")
        note = cards.proof_section(
            asdict(proof), strength=strength, stored=str(stored).removeprefix("torch."), variant=variant
        )
        (temporary / "README.md").write_text(f"{text.rstrip()}\n\n{note}", encoding="utf-8")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return Exported(
        path=folder,
        files=tuple(path.relative_to(folder).as_posix() for path in files),
        bytes=sum(path.stat().st_size for path in files),
        max_difference=proof.max_difference,
        max_latent_difference=proof.max_latent_difference,
        seconds=time.perf_counter() - started,
    )


def _stock(request: dict[str, Any]) -> Work[dict[str, Tensor]]:
    """What stock diffusers draws in a process of its own: isolated from this project, from the environment's Python
    settings and from the network. One Step a second; the process ends with the job."""
    with tempfile.TemporaryDirectory() as place:
        out, asked, log = Path(place, "drawn.safetensors"), Path(place, "request.json"), Path(place, "log.txt")
        asked.write_text(json.dumps({**request, "out": str(out)}), encoding="utf-8")
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
                    yield Step("prove", int(time.perf_counter() - started))
        finally:
            child.kill()
            child.wait()
        if child.returncode or not out.is_file():
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise Unproven(f"Stock diffusers could not open the export: {said[-1] if said else child.returncode}")
        return {name: tensor.clone() for name, tensor in load_file(out).items()}


def _compared(
    request: Mapping[str, Any], drawn: Mapping[str, Tensor], latents: Tensor, images: Tensor, *, exact: bool
) -> Proof:
    if drawn["images"].shape != images.shape:
        raise Unproven(
            f"Stock diffusers drew images of {tuple(drawn['images'].shape)} instead of {tuple(images.shape)}."
        )
    pixels = (drawn["images"] - images).abs()
    latent = float((drawn["latents"] - latents.float()).abs().max())
    worst, mean = float(pixels.max()), float(pixels.mean())
    agrees = worst <= EXACT if exact else mean <= ROUNDED
    tolerance = (
        f"largest pixel difference ≤ {EXACT}"
        if exact
        else f"mean pixel difference ≤ {ROUNDED}, for rounding is expected"
    )
    if not agrees:
        raise Unproven(
            f"The exported pipeline draws another picture than the worn edit: it differs by {worst:.3g} ({tolerance})."
        )
    return Proof(
        max_difference=worst,
        mean_difference=mean,
        max_latent_difference=latent,
        tolerance=tolerance,
        prompts=tuple(request["prompts"]),
        seeds=tuple(request["seeds"]),
        steps=request["steps"],
        guidance=request["guidance"],
        dtype=request["dtype"],
        device=request["device"],
        versions={
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
            "torch": str(torch.__version__),
        },
    )
