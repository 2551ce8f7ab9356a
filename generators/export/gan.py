"""An edited StyleGAN2 as a folder of this studio, as rosinality's .pt, or under NVlabs' names in .safetensors.

The path says which: a name ending in .pt, in .safetensors, or a folder, which holds all three and a card.
"""

from __future__ import annotations

import copy
import json
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from erase.edit import Edit
from erase.errors import BadInput
from erase.work import Step, Work
from generators.export.arrive import CARD, arriving, room
from generators.stylegan2.checkpoint import Checkpoint, read, write_folder, write_nvlabs, write_rosinality

if TYPE_CHECKING:
    from generators.stylegan2.adapter import StyleGan

EXACT = 1e-4  # largest difference of a pixel in [0, 1]: what dividing gains out and multiplying them in again costs
SEEDS = range(4)
WRITERS: dict[str, Callable[[Checkpoint, Path], Path]] = {".pt": write_rosinality, ".safetensors": write_nvlabs}


@dataclass(frozen=True)
class GanExport:
    """What was written where, and the largest pixel difference of reopened files to the worn edit."""

    path: Path
    files: tuple[str, ...]
    bytes: int
    max_difference: float
    seconds: float


def export_gan(
    model: StyleGan, edit: Edit, out: str | Path, *, strength: float = 1.0, force: bool = False, card: str = ""
) -> Work[GanExport]:
    """Writes the edited generator, and the critic as it is; reopens every file and compares pictures before it counts.

    BadInput for a target that holds something, RuntimeError if a reopened file draws something else.
    """
    started, out = time.perf_counter(), Path(out).expanduser()
    room(out, 16 * sum(weight.numel() for weight in model.network.parameters()))
    with edit.worn(model.network, strength):
        checkpoint = edited(model, edit, strength)
        wanted = checkpoint.generator(model.latents(SEEDS)).detach()
    written: list[Path] = []
    worst = 0.0

    @torch.no_grad()
    def prove(path: Path) -> float:
        again = read(path)
        if again is None:
            raise RuntimeError(f"{path.name} could not be read again; nothing was kept.")
        apart = float((again.generator(model.latents(SEEDS).cpu()) - wanted.cpu()).abs().max()) / 2
        if apart > EXACT:
            raise RuntimeError(f"{path.name} draws other pictures (they differ by {apart:.2g}); nothing was kept.")
        return apart

    if out.suffix in WRITERS:
        if out.exists() and not force:
            raise BadInput(f"{out} exists; add --force to replace it, or choose another --out.")
        draft = out.with_name(f".{uuid.uuid4().hex[:8]}{out.suffix}")
        try:
            WRITERS[out.suffix](checkpoint, draft)
            yield Step("written", 1, 1)
            worst = prove(draft)
            os.replace(draft, out)
        finally:
            draft.unlink(missing_ok=True)
        written = [out]
    else:
        with arriving(out, force=force) as folder:
            write_folder(checkpoint, folder)
            yield Step("written", 1, 3)
            worst = prove(folder)
            for done, (suffix, name) in enumerate(
                ((".pt", "rosinality.pt"), (".safetensors", "nvlabs.safetensors")), 2
            ):
                worst = max(worst, prove(WRITERS[suffix](checkpoint, folder / name)))
                yield Step("written", done, 3)
            proof = {"max_difference": worst, "seeds": list(SEEDS), "tolerance": EXACT}
            (folder / "proof.json").write_text(json.dumps(proof, indent=2) + "\n", encoding="utf-8")
            if card:
                (folder / CARD).write_text(card, encoding="utf-8")
        written = sorted(path for path in out.rglob("*") if path.is_file())
    names = tuple(path.name for path in written)
    return GanExport(out, names, sum(path.stat().st_size for path in written), worst, time.perf_counter() - started)


def edited(model: StyleGan, edit: Edit, strength: float) -> Checkpoint:
    """A copy of the model as it is now, with the edit in its provenance."""
    about = {**model.about, "erased": dict(edit.about), "strength": strength}
    generator = copy.deepcopy(model.network).cpu().requires_grad_(False)
    critic = None if model.critic is None else copy.deepcopy(model.critic).cpu()
    return Checkpoint(generator, critic, about)  # type: ignore[arg-type]
