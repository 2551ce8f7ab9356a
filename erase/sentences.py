"""Concepts inside sentences: which texts stand for a concept, and which code rows of them belong to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import AfterValidator
from torch import Tensor

from erase.model import BadInput, Codes, Concept, Contrast, Denoiser, Rows

# Ordinary ways of putting a concept of each kind into a prompt; used where a `templates` knob is simply on.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "style": ("an image in {} style", "a picture in the style of {}", "{} style"),
    "object": ("a photo of {}", "an image of {}", "a picture with {}"),
    "nudity": ("a photo of {}", "a painting of {}", "a picture with {}"),
    "identity": ("a photo of {}", "a portrait of {}", "a picture of {}"),
    "attribute": ("a photo of a person with {}", "a portrait with {}"),
}


def _one_gap(templates: bool | tuple[str, ...]) -> bool | tuple[str, ...]:
    for template in () if isinstance(templates, bool) else templates:
        if template.count("{}") != 1:
            raise BadInput(f"the template {template!r} needs exactly one {{}}, where the concept goes")
    return templates


Templates = Annotated[bool | tuple[str, ...], AfterValidator(_one_gap)]


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


def encode_all(model: Denoiser, prompts: Sequence[str], batch: int = 64) -> Codes:
    """The codes of any number of prompts, without a graph."""
    with torch.no_grad():
        return Codes.cat([model.encode(prompts[at : at + batch]) for at in range(0, len(prompts), batch)])


def sentence_contrast(model: Denoiser, concept: Concept, templates: Sequence[str], rows: Rows) -> Contrast:
    """The concept's code rows inside template sentences beside the anchor's in the same sentences.

    `last` is the last subject token; `tail` that one and everything after it, paired with the anchor sentence's from
    its own subject on; `all` every row. An empty anchor is the end row that would follow the words before the gap.
    """
    phrases = [phrase for _ in templates for phrase in concept.phrases]
    gaps = [template for template in templates for _ in concept.phrases]
    present = _subjects(model, gaps, phrases, rows)
    absent = _subjects(model, gaps, [concept.instead] * len(gaps), rows)
    lengths = [min(len(said), len(instead)) for said, instead in zip(present, absent, strict=True)]
    return Contrast(
        torch.cat([said[:n] for said, n in zip(present, lengths, strict=True)]),
        torch.cat([instead[:n] for instead, n in zip(absent, lengths, strict=True)]),
    )


def _subjects(model: Denoiser, gaps: Sequence[str], phrases: Sequence[str], rows: Rows) -> list[Tensor]:
    sentences = encode_all(model, [fill(gap, phrase) for gap, phrase in zip(gaps, phrases, strict=True)]).tokens
    if rows == "all":
        return list(sentences)
    heads = [fill(gap[: gap.index("{}") + 2], phrase) for gap, phrase in zip(gaps, phrases, strict=True)]
    codes = encode_all(model, heads).tokens
    found = []
    for sentence, head, text, phrase, end in zip(sentences, codes, heads, phrases, ends(model, heads), strict=True):
        if end == len(sentence):
            raise BadInput(f"The prompt {text!r} is longer than this model reads; use a shorter template.")
        subject = head[end : end + 1] if phrase == "" else head[end - 1 : end]
        found.append(subject if rows == "last" else torch.cat([subject, sentence[end:]]))
    return found


def ends(model: Denoiser, texts: Sequence[str]) -> list[int]:
    """The row of each text's first end token, found without a tokenizer; the row count if the text fills the window.

    Text encoders read left to right, so the codes of "cats" and "cats ," agree up to the row where one ends and the
    other goes on. Raises BadInput for an encoder that does not read so.
    """
    here = encode_all(model, texts).tokens.float()
    longer = encode_all(model, [f"{text} ," for text in texts]).tokens.float()
    # Batches of one shape give the same bits on most devices; the tolerance is for the others.
    apart = (here - longer).norm(dim=-1) > 1e-3 * here.norm(dim=-1)
    if bool(apart[:, 0].any()):
        raise BadInput("This model's text encoder does not read left to right, so templates cannot be aligned.")
    return [int(row.nonzero()[0]) if bool(row.any()) else len(row) for row in apart]
