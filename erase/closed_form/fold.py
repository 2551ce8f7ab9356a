"""A change of code space written into every layer that reads codes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from erase.work import Step, Work


def fold(readers: Mapping[str, nn.Linear], change: Tensor) -> Work[dict[str, Tensor]]:
    """The deltas W·change by which every reader W sees (I + change)·code instead of code; one Step per reader.

    `change` is [code code] in float64; products are taken in float64 and rounded to float32 once.
    """
    deltas: dict[str, Tensor] = {}
    for done, (name, reader) in enumerate(readers.items(), 1):
        with torch.no_grad():
            weight = reader.weight.detach()
            # Apple's GPU has no float64, so there the product is taken on the CPU.
            home = torch.device("cpu") if weight.device.type == "mps" else weight.device
            product = weight.to(home, torch.float64) @ change.to(home)
            deltas[f"{name}.weight"] = product.float().cpu()
        yield Step("fold", done, len(readers))
    return deltas
