"""Provenance: what was asked, of which model, with which versions; and the checks every request must pass."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel
from torch import Tensor

from erase.concept import Concept
from erase.model import BadInput

if TYPE_CHECKING:
    from erase.request import Request


About = Mapping[str, Any]


def check_request(concepts: Sequence[Concept], keep: Sequence[Concept]) -> None:
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


def provenance(method: Any, request: Request) -> dict[str, Any]:
    """The part of `Edit.about` that all methods share."""
    return {
        "method": name_of(method),
        "knobs": method.model_dump(mode="json"),
        "concepts": [concept.model_dump(mode="json") for concept in request.concepts],
        "keep": [concept.model_dump(mode="json") for concept in request.keep],
        "seed": request.seed,
        "base": request.model.fingerprint,
        "model": request.model.name,
        "versions": versions(),
    }


def job_mark(about: dict[str, Any]) -> Tensor:
    """A digest of a job [32 bytes] that is stored in its state, so that another job's state is not taken for it."""
    return torch.tensor(list(hashlib.sha256(json.dumps(about, sort_keys=True).encode()).digest()), dtype=torch.uint8)


def erasures(about: About) -> list[tuple[float, About]]:
    """The single erasures an edit consists of, each with the strength it enters with."""
    if "parents" not in about:
        return [(1.0, about)]
    return [
        (float(parent["strength"]) * strength, erasure)
        for parent in about["parents"]
        for strength, erasure in erasures(parent["about"])
    ]


def common_value(about: About, key: str) -> str | None:
    """What all erasures say about `key`, all of it if they disagree, None if they are silent."""
    values = {str(erasure[key]) for _, erasure in erasures(about) if erasure.get(key)}
    return ", ".join(sorted(values)) or None


def erased_names(about: About) -> list[str]:
    """The names of the concepts that are gone, each once."""
    return list(dict.fromkeys(name for _, erasure in erasures(about) for name in concept_names(erasure, "concepts")))


def concept_names(erasure: About, key: str) -> list[str]:
    """The names of one erasure's `concepts` or `keep`."""
    return [str(each["name"]) if isinstance(each, Mapping) else str(each) for each in erasure.get(key, ())]
