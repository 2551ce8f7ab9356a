"""Pictures of an erasure while it runs: what the deltas in a Step's state draw, of two concepts or of seeds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from erase.concept import Concept
from erase.edit import Edit, live
from erase.model import Generator, Shot
from erase.work import Step, Work, drain, map_steps

HEADS = ("delta.", "average.")  # how methods name, in their state, the deltas they train, or a GAN's average
SHARE = 9  # a preview that takes a second is drawn at most every ten seconds
SENTENCE = {"style": "A painting in {} style.", "object": "A picture of {}."}


def previewed(
    work: Work[Edit], model: Generator, concepts: Sequence[Concept], keep: Sequence[Concept], every: float
) -> Work[Edit]:
    """The same work with a preview on a Step now and then; it draws with generators of its own, so no bit changes."""
    shots = _shots(model, concepts, keep)
    known, due = dict(model.network.named_parameters()), time.monotonic() + every

    def with_preview(step: Step) -> Step:
        nonlocal due
        if step.state is None or time.monotonic() < due:
            return step
        began = time.monotonic()
        if deltas := _deltas(step.state(), known):
            with Edit(deltas, {}).applied(model.network):
                step = replace(step, preview=drain(model.sample(shots)))
        now = time.monotonic()
        due = now + max(every, SHARE * (now - began))
        return step

    return (yield from map_steps(work, with_preview))


def _deltas(state: Mapping[str, Tensor], known: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    told = {name.removeprefix(head): part for name, part in state.items() for head in HEADS if name.startswith(head)}
    return {name: part for name, part in told.items() if live(name, known)}


def _shots(model: Generator, concepts: Sequence[Concept], keep: Sequence[Concept]) -> list[Shot]:
    if hasattr(model, "synthesis"):  # a GAN, to which words mean nothing
        return [Shot(seed) for seed in range(8)]
    told = [SENTENCE.get(concept.kind, "{}").format(concept.name) for concept in (*concepts[:1], *keep[:1])]
    return [Shot(seed, sentence) for sentence in told for seed in (0, 1)]
