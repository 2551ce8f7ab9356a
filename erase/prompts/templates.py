"""Concepts inside sentences: which texts stand for a concept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
from pydantic import AfterValidator

from erase.concept import Concept
from erase.model import BadInput, Codes, Denoiser

# Ordinary ways of putting a concept of each kind into a prompt; used where a `templates` knob is simply on.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "style": ("an image in {} style", "a picture in the style of {}", "{} style"),
    "object": ("a photo of {}", "an image of {}", "a picture with {}", "a {} image in a style"),
    "nudity": ("a photo of {}", "a painting of {}", "a picture with {}"),
    "identity": ("a photo of {}", "a portrait of {}", "a picture of {}"),
    "attribute": ("a photo of a person with {}", "a portrait with {}"),
}

# The same with something else in the picture, for small models: beside other words they read a word otherwise.
SCENES: dict[str, tuple[str, ...]] = {
    "style": (
        "an image in {} style", "a cat image in {} style", "a tower image in {} style", "a flower image in {} style",
        "a person image in {} style", "a sea image in {} style",
    ),
    "object": (
        "an image of {}", "a {} image in cartoon style", "a {} image in photo style", "a {} image in sketch style",
        "a {} image in neon lines style", "a {} image in watercolor style",
    ),
}  # fmt: skip


def _sentences(templates: bool | tuple[str, ...]) -> bool | tuple[str, ...]:
    """Templates with one gap each; '@captions.txt' stands for the lines of that file, so that records hold them."""
    if isinstance(templates, bool):
        return templates
    lines = [line for template in templates for line in (_lines(template[1:]) if template[:1] == "@" else [template])]
    for line in lines:
        if line.count("{}") != 1:
            raise BadInput(f"the template {line!r} needs exactly one {{}}, where the concept goes")
    return tuple(lines)


def _lines(file: str) -> list[str]:
    try:
        lines = [line.strip() for line in Path(file).read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"the file of templates {file!r} cannot be read ({error}); it holds one sentence a line"
        ) from None
    if not any(lines):
        raise BadInput(f"the templates' file {file!r} is empty; it should hold one sentence with a {{}} a line")
    return [line for line in lines if line]


Templates = Annotated[bool | tuple[str, ...], AfterValidator(_sentences)]


def chosen(templates: bool | tuple[str, ...], concept: Concept) -> tuple[str, ...]:
    """The templates a knob stands for: none, those of the concept's kind, or the given ones."""
    if isinstance(templates, bool):
        return TEMPLATES[concept.kind] if templates else ()
    return templates


def fill(template: str, words: str) -> str:
    """The template with the words in its gap; nothing in particular leaves no double space behind."""
    return " ".join(template.replace("{}", words).split())


def spoken(concept: Concept, templates: bool | tuple[str, ...]) -> list[tuple[str, str]]:
    """Every text that stands for the concept, beside the same text for its anchor: the bare phrases, then sentences."""
    gaps = ("{}", *chosen(templates, concept))
    pairs = [(fill(gap, phrase), fill(gap, concept.instead)) for gap in gaps for phrase in concept.phrases]
    return list(dict.fromkeys(pairs))


def require_room(model: Denoiser, concept: Concept, templates: bool | tuple[str, ...]) -> None:
    """BadInput where the text encoder would stop reading before the end of the concept, or of its anchor.

    Such a text teaches nothing of the concept: with it and with its anchor the model reads the same.
    """
    room = model.room
    for gap in ("{}", *chosen(templates, concept)):
        for words in dict.fromkeys((*concept.phrases, concept.instead)):
            needed = len(model.tokens(fill(gap.partition("{}")[0] + "{}", words)))
            if needed > room:
                raise BadInput(
                    f"{words!r} does not fit into the {room} tokens this model reads, in {fill(gap, words)!r}: it ends "
                    f"at token {needed}. Use fewer words."
                )


def encode_all(model: Denoiser, prompts: Sequence[str], batch: int = 64) -> Codes:
    """The codes of any number of prompts, without a graph."""
    with torch.no_grad():
        return Codes.cat([model.encode(prompts[at : at + batch]) for at in range(0, len(prompts), batch)])
