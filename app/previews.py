"""Pictures of an erasure while it runs: what the deltas in a Step's state draw, a target and a kept neighbour."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from erase.edit import Edit, live
from erase.model import Concept, Generator, Shot
from erase.work import Work, drain

PREFIX = "delta."  # how methods name, in their state, the deltas they train
SHARE = 9  # a preview that takes a second is drawn at most every ten seconds
SENTENCE = {"style": "A painting in {} style.", "object": "A picture of {}."}


def previewed(
    work: Work[Edit], model: Generator, concepts: Sequence[Concept], keep: Sequence[Concept], every: float
) -> Work[Edit]:
    """The same work with a preview on a Step now and then; it draws with generators of its own, so no bit changes."""
    shots = [
        Shot(seed, SENTENCE.get(concept.kind, "{}").format(concept.name))
        for concept in (*concepts[:1], *keep[:1])
        for seed in (0, 1)
    ]
    known, due = dict(model.network.named_parameters()), time.monotonic() + every
    try:
        while True:
            step = next(work)
            if step.state is not None and time.monotonic() >= due:
                began = time.monotonic()
                told = {name[len(PREFIX) :]: value for name, value in step.state().items() if name.startswith(PREFIX)}
                if deltas := {name: value for name, value in told.items() if live(name, known)}:
                    with Edit(deltas, {}).worn(model.network):
                        step = replace(step, preview=drain(model.sample(shots)))
                now = time.monotonic()
                due = now + max(every, SHARE * (now - began))
            yield step
    except StopIteration as end:
        return end.value
    finally:
        work.close()
