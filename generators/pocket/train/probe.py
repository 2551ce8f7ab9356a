"""Train one canvas probe; judge and eye are built differently and see different halves of the data."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from generators.pocket.canvas import data
from generators.pocket.canvas.probe import CanvasProbe, accuracy
from generators.pocket.train.loop import Loop, Setting, batches, jostled, recoloured, tensors, to_float, turned
from generators.pocket.train.sd import redrawn


def train_probe(kind: str, setting: Setting) -> None:
    """One canvas probe; judge and eye differ in architecture, initialisation, data order and data half."""
    train = data.canvas_data(setting.work, setting.per_cell)
    images, styles, objects = tensors(train, setting.device)
    half = torch.arange(len(images), device=setting.device) % 2 == (
        kind == "eye"
    )  # disjoint halves: truly independent probes
    images, styles, objects = images[half], styles[half], objects[half]
    images = torch.cat([images, redrawn(images, setting)])  # a probe reads decoded latents as well as drawings
    styles, objects = styles.repeat(2), objects.repeat(2)
    torch.manual_seed(23 if kind == "judge" else 11)
    probe = CanvasProbe(kind).to(setting.device, memory_format=torch.channels_last)
    loop = Loop(f"probe-{kind}", probe, setting, 2e-3, decay=0.05)
    picks, stream = batches(setting, len(images)), setting.stream(3)
    model = torch.compile(probe) if setting.compile else probe

    def loss_of(step: int) -> Tensor:
        pick = next(picks)
        shown = jostled(turned(recoloured(to_float(images[pick]), stream), stream), stream)
        with setting.autocast():
            style, thing, _ = model(shown)
        true = len(pick) // 2  # only these keep their colours, which belong to a style
        of_style = F.cross_entropy(style[:true].float(), styles[pick[:true]], label_smoothing=0.02)
        return of_style + F.cross_entropy(thing.float(), objects[pick], label_smoothing=0.02)

    loop.run(loss_of)
    held, held_styles, held_objects = tensors(data.canvas_data(setting.work, 20, held_out=True), setting.device)
    style, thing = accuracy(probe.eval(), to_float(held), held_styles, held_objects)
    probe.about |= {
        "held_out": {"style": style, "object": thing, "n": len(held)},
        "version": "3",
        "steps": loop.step,
        "per_cell": setting.per_cell // 2,
    }
    probe.save(setting.out / "pocket-probes" / f"{kind}.safetensors")
    print(f"probe {kind}: held-out style {style:.4f}, object {thing:.4f}, n {len(held)}", flush=True)
