"""Pictures of the work: drawn while it is done, of the model's own kind, and without a trace in what comes of it."""

from __future__ import annotations

import pytest
import torch

from app.runs.previews import previewed
from erase.concept import Concept
from erase.edit import Edit
from erase.methods.registry import build
from erase.model import Generator
from erase.request import Request, run_method
from erase.work import Work, drain
from tests.contract.test_gan_methods import ADAPT
from tests.toys.denoiser import Toy
from tests.toys.gan import ToyGan

QUICK = {
    "esd": (Toy, "style", {"iterations": 3, "batch": 2, "seeds": 2, "steps": 3}),
    "text-unlearn": (ToyGan, "attribute", {"pool": 32, "steps": 3, "batch": 6, "agreement": -1}),
    "adapt-unlearn": (ToyGan, "attribute", ADAPT),
}


@pytest.mark.parametrize("method", QUICK)
def test_previews_show_the_work_and_change_no_bit_of_it(method: str) -> None:
    made, kind, knobs = QUICK[method]
    shown: list[torch.Tensor] = []

    def erased(watched: bool) -> Edit:
        model: Generator = made()
        concepts = [Concept(name="hat", kind=kind)]
        work: Work[Edit] = run_method(build(method, None, knobs), Request(model, concepts, seed=0))
        if not watched:
            return drain(work)
        work = previewed(work, model, concepts, [Concept(name="beard", kind=kind)], every=0.0)
        return drain(work, lambda step: shown.append(step.preview) if step.preview is not None else None)

    plain, watched = erased(False), erased(True)
    assert shown and all(len(images) >= 4 and images.isfinite().all() for images in shown)
    assert plain.deltas.keys() == watched.deltas.keys()
    assert all(torch.equal(delta, watched.deltas[name]) for name, delta in plain.deltas.items())
