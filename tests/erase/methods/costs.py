"""What a method spends and how far it strays, measured beside what it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from erase.concept import Concept
from erase.edit import Edit
from erase.request import Request, run_method
from erase.work import drain
from tests.toys.denoiser import Toy


def counted(toy: Toy, method: Any, request: Request) -> tuple[Edit, int]:
    """The edit of a method, and how many samples the U-Net saw on the way."""
    seen = 0

    def count(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        nonlocal seen
        seen += len(args[0])

    hook = toy.network["unet"].register_forward_pre_hook(count)
    try:
        return drain(run_method(method, request)), seen
    finally:
        hook.remove()


def strays(toy: Toy, cats: Concept, made: Callable[[str], Any]) -> dict[str, float]:
    """How differently the edit's readers take the start code, by what `confine` keeps frozen."""
    start, found = toy.resting_codes().detach()[:1], {}
    for confine in ("none", "start"):
        edit = drain(run_method(made(confine), Request(toy, [cats])))
        found[confine] = max(float((start @ delta.T).abs().max()) for delta in edit.deltas.values())
    return found
