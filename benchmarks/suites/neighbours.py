"""Neighbours of a concept: the labels nearest in meaning, which an erasure harms first."""

from __future__ import annotations

from collections.abc import Sequence

from torch.nn import functional as F

from benchmarks.suites.suite import Suite, Target
from erase.model import Denoiser


def by_distance(model: Denoiser, target: Target, targets: Sequence[Target], suite: Suite) -> list[str]:
    """The suite's other labels of the target's kind, nearest first by the cosine of the text encoder's codes."""
    gone = {other.label for other in targets}
    labels = suite.styles if target.kind == "style" else suite.objects
    labels = [label for label in labels if label not in gone and label != suite.photo]
    codes = model.encode([suite.spoken(target.label), *map(suite.spoken, labels)])
    meaning = (codes.tokens.mean(1) if codes.pooled is None else codes.pooled).float().cpu()
    # What all the words share says nothing about which are near.
    meaning = F.normalize(meaning - meaning.mean(0), dim=1)
    order = (meaning[1:] @ meaning[0]).argsort(descending=True)
    return [labels[int(place)] for place in order]
