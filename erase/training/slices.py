"""Slices: names for the sets of parameters that erasers train, matched by whole path components."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from erase.errors import BadInput, nearest

Chosen = Callable[[list[str], nn.Module], bool]


def _weighs(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Conv2d)


ADDED = ("add_k_proj", "add_v_proj", "add_q_proj", "to_add_out")  # what a joint block does to the text's half
# Of a module under `transformer`, the counterpart of each slice of a U-Net: joint attention reads text by ADDED.
TRANSFORMER: dict[str, Chosen] = {
    "kv": lambda path, module: path[-1] in ADDED[:2],
    "cross": lambda path, module: path[-1] in ADDED,
    "attention": lambda path, module: "attn" in path and isinstance(module, nn.Linear),
    "not_cross": lambda path, module: path[-1] not in ADDED and _weighs(module),
    "full": lambda path, module: True,
}
# Of a module under `unet`, given its path and itself: does the slice hold its parameters?
UNET: dict[str, Chosen] = {
    "kv": lambda path, module: "attn2" in path and path[-1] in ("to_k", "to_v"),
    "cross": lambda path, module: "attn2" in path and isinstance(module, nn.Linear),
    "attention": lambda path, module: ("attn1" in path or "attn2" in path) and isinstance(module, nn.Linear),
    "not_cross": lambda path, module: "attn2" not in path and _weighs(module),
    "full": lambda path, module: True,
}
SLICES = (*UNET, "text", "text[n]", "text[0..n]")


def select(network: nn.Module, slice: str) -> list[str]:
    """The parameter names of a slice, in the network's order.

    kv: weights by which cross-attention reads codes · cross: all of cross-attention · attention: all attention ·
    not_cross: linear and convolution layers outside cross-attention · full: the whole U-Net or transformer · text:
    encoder layers and final norm · text[1]: one layer · text[0..3]: four layers. In a transformer's joint blocks the
    projections of text count as cross-attention. Raises BadInput for another name or an empty slice.
    """
    asked = re.fullmatch(r"text(?:\[(\d+)(?:\.\.(\d+))?\])?", slice)
    if slice in UNET:
        names = _denoiser(network, slice)
    elif asked:
        first, last = asked.groups()
        layers = None if first is None else range(int(first), int(last or first) + 1)
        names = [name for name, _ in network.named_parameters() if _in_text(name.split("."), layers)]
    else:
        raise nearest(slice, SLICES, "slice")
    if not names:
        raise BadInput(f"The slice {slice!r} holds no parameter of this model.")
    return names


def _denoiser(network: nn.Module, slice: str) -> list[str]:
    chosen = {"unet": UNET[slice], "transformer": TRANSFORMER[slice]}
    return [
        f"{path}.{leaf}"
        for path, module in network.named_modules()
        if (root := path.split(".")[0]) in chosen and chosen[root](path.split("."), module)
        for leaf, _ in module.named_parameters(recurse=False)
        if slice != "kv" or leaf == "weight"
    ]


def _in_text(path: list[str], layers: range | None) -> bool:
    if path[0] not in ("text", "text_2"):
        return False
    if "layers" in path:
        return layers is None or int(path[path.index("layers") + 1]) in layers
    return layers is None and "final_layer_norm" in path
