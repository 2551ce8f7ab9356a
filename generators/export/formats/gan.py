"""An edited StyleGAN2: a folder of this studio, and the same weights under NVlabs' and rosinality's names."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from erase.edit import Edit
from erase.model import Shot
from erase.work import Step, Work
from generators.checkpoints import text_encoder_edit
from generators.export.format import Asked, Facts, Form, Place
from generators.export.staging import room
from generators.export.verify import EXACT, ROUNDED, SHARE, Proof, Unproven, versions
from generators.stylegan2.io.checkpoint import Checkpoint, read, write_folder, write_nvlabs, write_rosinality

if TYPE_CHECKING:
    from generators.stylegan2.adapter import StyleGan

NVLABS, ROSINALITY = "nvlabs.safetensors", "rosinality.pt"
SEEDS = range(4)


def _write(model: StyleGan, edit: Edit, folder: Path, asked: Asked) -> Work[Facts]:
    dtype = asked.dtype or torch.float32
    networks = [model.network, *([model.critic] if model.critic is not None else [])]
    room(folder, 3 * dtype.itemsize * sum(weight.numel() for net in networks for weight in net.state_dict().values()))
    checkpoint = edited(model, edit, asked.strength)
    write_folder(checkpoint, folder, dtype)
    yield Step("write", 1, 3)
    write_nvlabs(checkpoint, folder / NVLABS, dtype)
    yield Step("write", 2, 3)
    write_rosinality(checkpoint, folder / ROSINALITY, dtype)
    yield Step("write", 3, 3)
    return {}


def edited(model: StyleGan, edit: Edit, strength: float) -> Checkpoint:
    """A copy of the model wearing the edit, on the CPU, with the edit in its provenance; the critic is as it was."""
    with edit.applied(model.network, strength):
        generator = copy.deepcopy(model.network).cpu().requires_grad_(False)
    critic = None if model.critic is None else copy.deepcopy(model.critic).cpu()
    about = {**model.about, "erased": dict(edit.about), "strength": strength}
    return Checkpoint(generator, critic, about)  # type: ignore[arg-type]


@torch.no_grad()
def prove(model: StyleGan, edit: Edit, asked: Asked, form: Form, folder: Path, shots: Sequence[Shot]) -> Work[Proof]:
    """Reads every file back and compares raw pictures, drawn in fp32 on the CPU; raises Unproven where they differ.

    No stock library holds a StyleGAN2, so that the reader is our own.
    """
    seeds = tuple(shot.seed for shot in shots) or tuple(SEEDS)
    z = model.latents(seeds).cpu()

    def drawn(checkpoint: Checkpoint) -> Tensor:
        return checkpoint.generator(z) / 2 + 0.5

    wanted, plain = drawn(edited(model, edit, asked.strength)), drawn(edited(model, edit, 0.0))
    effect, worst, mean = float((wanted - plain).abs().mean()), 0.0, 0.0
    exact = asked.dtype in (None, torch.float32) and not form.approximates(asked)
    bound = EXACT if exact else max(EXACT, SHARE * effect) if form.adds else ROUNDED
    tolerance = f"{'largest' if exact else 'mean'} pixel difference ≤ {bound:.2g}"
    for name, checkpoint in _reopened(model, form, folder):
        apart = (drawn(checkpoint) - wanted).abs()
        worst, mean = max(worst, float(apart.max())), max(mean, float(apart.mean()))
        if (worst if exact else mean) > bound:
            raise Unproven(
                f"{name} draws other pictures than the applied edit: they differ by up to {worst:.3g}, on average "
                f"{mean:.3g} (required: {tolerance})."
            )
        yield Step("prove", 1, 1)
    return Proof(
        max_difference=worst, mean_difference=mean, max_latent_difference=None, stored_difference=0.0, effect=effect,
        tolerance=tolerance, prompts=("",) * len(seeds), seeds=seeds, steps=1, guidance=1.0, dtype="float32",
        device="cpu", versions=versions("torch", "safetensors"), reader="this studio's reader",
    )  # fmt: skip


def _reopened(model: StyleGan, form: Form, folder: Path) -> Iterator[tuple[str, Checkpoint]]:
    if form.adds and form.file:
        yield form.file, edited(model, text_encoder_edit.read(folder / form.file), 1.0)
        return
    for path in (folder, *(folder / name for name in form.files.values())):
        again = read(path)
        if again is None:
            raise Unproven(f"{path.name} could not be read again.")
        yield path.name, again


def _recipe(place: Place) -> str:
    return (
        f"With the studio: `studio sample {place.path} --seeds 0:8 --out pictures.png`. Into the networks of NVlabs' "
        "stylegan2-ada-pytorch (`generator` is built with the `init_kwargs` in the file's header) or of rosinality's "
        "stylegan2-pytorch; no file holds code:\n\n"
        "```python\nimport torch\nfrom safetensors.torch import load_file\n\n"
        f'tensors = load_file("{NVLABS}")\n'
        'parts = {name.removeprefix("G_ema."): part for name, part in tensors.items() if name.startswith("G_ema.")}\n'
        f"generator.load_state_dict(parts)\n\n"
        f'generator.load_state_dict(torch.load("{ROSINALITY}", weights_only=True)["g_ema"])\n```\n\n'
        "NVIDIA's code and most public StyleGAN2 weights are for non-commercial use; that follows the weights."
    )


FORM = Form(
    about="an edited StyleGAN2 under this studio's, NVlabs' and rosinality's names",
    opens="this studio, NVlabs' and rosinality's networks",
    files={".safetensors": NVLABS, ".pt": ROSINALITY},
    write=_write,
    recipe=_recipe,
)
