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
    from generators.flow.adapter import FlowTransformer
    from generators.stable_diffusion.adapter import StableDiffusion
    from generators.stylegan2.adapter import StyleGan

    Painter = StableDiffusion | FlowTransformer
    Model = Painter | StyleGan

# Each is a module of this package that defines FORM; the order is the one they are listed in.
FORMS = ("pipeline", "single-file", "kohya-lora", "diffusers-lora", "plugin", "edit", "gan")
OF_GANS = ("edit", "gan")
OF_FLOWS = ("pipeline", "kohya-lora", "diffusers-lora", "edit")
FLOW = ("transformer.", "text_3.")  # of which only flow transformers have parameters
DIFFUSION = ("unet.", "transformer.", "text.", "text_2.", "text_3.")  # how the parameters of a diffusion model begin


@dataclass(frozen=True)
class Asked:
    """What a user may ask of a format: how much of the edit, stored how, and how exactly.

    `dtype` None keeps what the model or the edit has; `variant` goes into a pipeline's file names; low-rank formats
    take a relative `error`, a `rank`, or the `size` in megabytes that they should stay below.
    """

    strength: float = 1.0
    dtype: torch.dtype | None = None
    variant: str | None = None
    error: float | None = None
    rank: int | None = None
    size: float | None = None
    title: str = "erased"  # what the export is called: its file's or folder's name

    @property
    def compressed(self) -> bool:
        """Whether low rank was asked for."""
        return not self.error is self.rank is self.size is None


@dataclass(frozen=True)
class Place:
    """What a recipe for loading names: the written file or folder, the base model, a prompt, and which kind it is."""

    path: str
    base: str
    prompt: str
    kind: str  # sd1, sd2, xl, sd3, flux or gan
    v_prediction: bool = False
    published: bool = False  # whether other programs know the model's names and shapes
    variant: str | None = None
    call: str = ""  # what a stock pipeline is called with beside the prompt

    @property
    def drawing(self) -> str:
        """The line of Python that draws the prompt with a stock pipeline."""
        return f'image = pipe("{self.prompt}"{self.call}).images[0]'


# What writing left behind for the card: ranks and errors of a low-rank format.
Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Form:
    """One format. `opens` says who opens it; `programs` who does where the model is of a published size. `files` are
    those of its files that a target may be named after, by how that name ends; `adds` says that it is no whole model
    but is added to the base; `options` are the fields of Asked it takes beside strength and dtype; `approximates` says
    whether something is left out."""

    about: str
    opens: str
    files: Mapping[str, str]
    write: Callable[[Any, Edit, Path, Asked], Work[Facts]]
    recipe: Callable[[Place], str]
    programs: str = ""
    adds: bool = False
    options: tuple[str, ...] = ()
    approximates: Callable[[Asked], bool] = lambda asked: False
    refusal: Callable[[Edit, Asked], str | None] = lambda edit, asked: None

    def openers(self, published: bool) -> str:
        """Who opens the format, of a model of a published size or of another one."""
        return ", ".join(filter(None, (self.programs if published else "", self.opens)))

    @property
    def file(self) -> str | None:
        """The one file it consists of; None for a folder of several."""
        return next(iter(self.files.values())) if len(self.files) == 1 else None


def form(name: str) -> Form:
    """A format by its name in FORMS."""
    return import_module(f"generators.export.formats.{name.replace('-', '_')}").FORM


def refusal(name: str, edit: Edit, asked: Asked) -> str | None:
    """Why this edit cannot be exported in a format, in a sentence; None where it can."""
    diffusion = all(parameter.startswith(DIFFUSION) for parameter in edit.deltas)
    if name not in OF_GANS and not diffusion:
        return f"This edit changes a GAN, which goes out as {' or '.join(OF_GANS)}."
    if name not in OF_FLOWS and any(parameter.startswith(FLOW) for parameter in edit.deltas):
        return f"This edit changes a flow transformer, which goes out as {', '.join(OF_FLOWS)}."
    if name == "gan" and diffusion and edit.deltas:
        return "This edit changes a diffusion model; gan is for generators."
    return form(name).refusal(edit, asked)
