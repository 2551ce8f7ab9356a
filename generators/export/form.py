"""What every export format says about itself, and the list of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from erase.edit import Edit
from erase.work import Work

if TYPE_CHECKING:
    from generators.stable_diffusion import StableDiffusion

# Each is a module of this package that defines FORM; the order is the one they are listed in.
FORMS = ("pipeline", "single-file", "kohya-lora", "diffusers-lora", "plugin", "edit")
GAN = "gan"


@dataclass(frozen=True)
class Asked:
    """What a user may ask of a format: how much of the edit, stored how, and how exactly.

    `dtype` None keeps what the model or the edit has; `variant` goes into a pipeline's file names; low-rank formats
    take a relative `error` or a `rank`.
    """

    strength: float = 1.0
    dtype: torch.dtype | None = None
    variant: str | None = None
    error: float | None = None
    rank: int | None = None


@dataclass(frozen=True)
class Place:
    """What a recipe for loading names: the written file or folder, the base model, a prompt, and whether it is XL."""

    path: str
    base: str
    prompt: str
    xl: bool
    v_prediction: bool
    variant: str | None = None


# What writing left behind for the card: ranks and errors of a low-rank format.
Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Form:
    """One format. `file` is the one file it consists of, None for a folder; `adds` says that it is no whole model but
    is added to the base; `options` are the fields of Asked it takes beside strength and dtype; `approximates` says
    whether something is left out."""

    about: str
    opens: str
    file: str | None
    adds: bool
    options: tuple[str, ...]
    approximates: Callable[[Asked], bool]
    refusal: Callable[[Edit, Asked], str | None]
    write: Callable[[StableDiffusion, Edit, Path, Asked], Work[Facts]]
    recipe: Callable[[Place], str]


def form(name: str) -> Form:
    """A format by its name in FORMS."""
    return import_module(f"generators.export.{name.replace('-', '_')}").FORM


def refusal(name: str, edit: Edit, asked: Asked) -> str | None:
    """Why this edit cannot be exported in a format, in a sentence; None where it can."""
    diffusion = all(name.startswith(("unet.", "text.", "text_2.")) for name in edit.deltas)
    if name == GAN:
        return "This edit changes a diffusion model; gan is for generators." if diffusion else None
    return form(name).refusal(edit, asked) if diffusion else f"This edit changes a GAN, which goes out as {GAN}."
