"""Provenance: what was asked, of which model, with which versions; and the checks every request must pass."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor

from erase.concept import Concept
from erase.model import BadInput, Generator


def agreed(concepts: Sequence[Concept], keep: Sequence[Concept]) -> None:
    """Raises BadInput for a request that contradicts itself: nothing to erase, erased twice, erased and kept."""
    if not concepts:
        raise BadInput("Nothing to erase: name at least one concept.")
    erased: set[str] = set()
    for concept in concepts:
        concept.refuse_own_anchor()
        if concept.name.lower() in erased:
            raise BadInput(f"{concept.name!r} is to be erased twice; name it once, its other wordings are prompts.")
        erased.add(concept.name.lower())
    gone = erased | {phrase.lower() for concept in concepts for phrase in concept.phrases}
    for kept in keep:
        for phrase in (kept.name, *kept.phrases):
            if phrase.lower() in gone:
                raise BadInput(f"{phrase!r} is to be erased and kept; take it out of one of the two lists.")


def versions() -> dict[str, str]:
    """The versions that decide the bits of an edit; the studio's own is left out where it is not installed."""
    found = {"python": platform.python_version(), "torch": str(torch.__version__)}
    try:
        return {**found, "concept-erasure-studio": metadata.version("concept-erasure-studio")}
    except metadata.PackageNotFoundError:
        return found


def name_of(method: BaseModel) -> str:
    """The name under which a method is listed: that of its file."""
    return type(method).__module__.rpartition(".")[2].replace("_", "-")


def provenance(
    method: BaseModel, model: Generator, concepts: Sequence[Concept], keep: Sequence[Concept], seed: int
) -> dict[str, Any]:
    """The part of `Edit.about` that all methods share."""
    return {
        "method": name_of(method),
        "knobs": method.model_dump(mode="json"),
        "concepts": [concept.model_dump(mode="json") for concept in concepts],
        "keep": [concept.model_dump(mode="json") for concept in keep],
        "seed": seed,
        "base": model.fingerprint,
        "model": model.name,
        "versions": versions(),
    }


def job_mark(about: dict[str, Any]) -> Tensor:
    """A digest of a job [32 bytes] that is stored in its state, so that another job's state is not taken for it."""
    return torch.tensor(list(hashlib.sha256(json.dumps(about, sort_keys=True).encode()).digest()), dtype=torch.uint8)
