"""What the tests of exports share: edits of every kind, and the clean process brought into this one for speed."""

from __future__ import annotations

from collections.abc import Callable

import torch

from erase.edit import Edit
from generators.export import verify
from generators.export.low_rank import rides
from generators.export.standalone import reopen

ABOUT = {
    "method": "uce", "knobs": {"push": 1.0}, "seed": 7, "base": "0123abcd", "model": "toy", "versions": {"torch": "2"},
    "concepts": [{"name": "Van Gogh", "kind": "style", "prompts": [], "anchor": "painting"}], "keep": [],
}  # fmt: skip


def random_edit(model, chosen: Callable[[str, torch.Tensor], bool], size: float) -> Edit:
    """A random change of the chosen parameters, each as large as a share of its weights' spread."""
    randomness = torch.Generator().manual_seed(0)
    deltas = {}
    for name, weight in model.network.named_parameters():
        if chosen(name, weight):
            spread = float(weight.std().nan_to_num(1)) or 1.0
            deltas[name] = size * spread * torch.randn(weight.shape, generator=randomness)
    return Edit(deltas, ABOUT)


def readers(model) -> Edit:
    """Keys and values of cross-attention, as UCE changes them."""
    names = {f"{name}.weight" for name in model.readers()}
    return random_edit(model, lambda name, weight: name in names, 0.5)


def closed_form(model) -> Edit:
    """W·M for every reader, with one M of rank 4: what UCE does."""
    randomness = torch.Generator().manual_seed(0)
    weights = {f"{name}.weight": reader.weight.detach() for name, reader in model.readers().items()}
    width = next(iter(weights.values())).shape[1]
    change = torch.randn(width, 4, generator=randomness) @ torch.randn(4, width, generator=randomness) / width
    return Edit({name: weight @ change for name, weight in weights.items()}, ABOUT)


def layers(model) -> Edit:
    """Every linear and convolution layer, of the U-Net and the text encoders."""
    return random_edit(model, rides, 0.1)


def text(model) -> Edit:
    """All of the text encoders: embeddings, norms and biases too."""
    return random_edit(model, lambda name, weight: name.startswith("text"), 0.3)


def text_layers(model) -> Edit:
    """What AdvUnlearn's layers have in a LoRA: the text encoders' matrices."""
    return random_edit(model, lambda name, weight: name.startswith("text") and rides(name, weight), 0.3)


def here(request):
    """Stock libraries without the seconds a process of their own takes; one test per family starts one."""
    yield verify.Step("prove", 0)
    drawn = reopen.draw(request)
    return verify.Drawn(drawn["latents"], drawn["images"])
