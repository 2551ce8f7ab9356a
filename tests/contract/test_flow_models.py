"""What works on a Stable Diffusion works on a flow transformer, which offers the same: every method, every attack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.attacks.engine import AttackTarget, chase
from benchmarks.attacks.registry import build as build_attack
from benchmarks.probes.base import Seen
from benchmarks.suites.prompts import Row
from benchmarks.suites.suite import Target
from erase.concept import Concept
from erase.edit import Edit
from erase.methods.registry import build, method, method_names
from erase.model import Denoiser
from erase.request import Request, run_method
from erase.work import Step, drain
from generators.flow.adapter import FlowTransformer
from generators.loading import load
from tests.benchmarks.doubles import TINY
from tests.toys.compare import same_bits, weights
from tests.toys.flow import folder

CONCEPT = Concept(name="Van Gogh", kind="style", anchor="photo")
KEEP = [Concept(name="dog", kind="object")]
# Of each method that trains, as little as shows that it does.
FEW: dict[str, dict[str, Any]] = {
    "uce": {},
    "nullspace": {},
    "esd": {"iterations": 2, "steps": 2, "seeds": 1, "lr": 1e-3},
    "ablate": {"iterations": 2, "steps": 2, "seeds": 1, "lr": 1e-3},
    "salun": {"epochs": 1, "steps": 2, "seeds": 1, "lr": 1e-3},
    "doco": {"iterations": 3, "warmup": 1, "steps": 2, "seeds": 2, "lr": 1e-3},
    "advunlearn": {"iterations": 2, "steps": 2, "seeds": 1, "attack_steps": 2, "lr": 1e-3},
}
TRIED: dict[str, dict[str, Any]] = {
    "unlearndiffatk": {"budget": 4, "iterations": 2, "tokens": 2, "lr": 0.1},
    "hard-prompt": {"budget": 4, "check": 2, "tokens": 2, "lr": 3.0},
    "inversion": {"budget": 4, "images": 3, "pictures_per_step": 2, "checks": 2, "lr": 0.5},
    "random": {"budget": 2},
    "seed-search": {"budget": 2},
    "paraphrase": {"budget": 3, "near": 2},
    "inpaint": {"budget": 2, "steps": 4},
    "completion": {"budget": 2, "steps": 21},
}


class Blind:
    """A probe that never sees the concept, so that an attack spends its whole budget."""

    name, version, sha256 = "blind", "1", "1" * 64
    held_out = {"style": 1.0}
    styles, objects = TINY.styles, TINY.objects

    def __call__(self, images: Tensor) -> Seen:
        seen = torch.zeros(len(images), len(self.styles))
        seen[:, 0] = 1
        return Seen(seen, torch.ones(len(images), len(self.objects)), images.flatten(1)[:, :4])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("flows")


@pytest.fixture(scope="module", params=["flux-schnell", "sd3"])
def model(request: pytest.FixtureRequest, place: Path) -> FlowTransformer:
    loaded = load(folder(request.param, place), device="cpu", dtype="fp32")
    assert isinstance(loaded, FlowTransformer)
    return loaded


def test_every_method_for_diffusion_models_is_tried_here() -> None:
    assert set(FEW) == {name for name in method_names() if method(name).needs is Denoiser}


@pytest.mark.parametrize("name", FEW)
def test_a_method_edits_a_flow_transformer(name: str, model: FlowTransformer) -> None:
    before, steps = weights(model.network), []
    edit = drain(run_method(build(name, None, FEW[name]), Request(model, [CONCEPT], KEEP)), steps.append)
    assert same_bits(before, weights(model.network))
    assert edit.about["base"] == model.fingerprint and any(delta.abs().max() > 0 for delta in edit.deltas.values())
    assert all(delta.isfinite().all() for delta in edit.deltas.values())
    last = [step for step in steps if step.loss]
    assert not last or all(torch.tensor(list(step.loss.values())).isfinite().all() for step in last)


@pytest.mark.parametrize("name", TRIED)
def test_an_attack_searches_a_flow_transformer(name: str, model: FlowTransformer) -> None:
    readers = {f"{name}.weight": layer.weight for name, layer in model.readers().items()}
    draws = torch.Generator().manual_seed(0)
    edit = Edit({key: 0.3 * torch.randn(weight.shape, generator=draws) for key, weight in readers.items()}, {})
    rows = [Row("0", "a cat in Van Gogh style", 100), Row("1", "dog in Van Gogh style", 101)]
    aim = AttackTarget(model, edit, 1.0, Target("style", "Van_Gogh"), TINY, Blind(), 0)
    for row in rows:
        aim.clean[row] = drain(model.latents([row.shot]))[0]
    found: dict[str, tuple[int, Any]] = {}
    steps: list[Step] = []

    def keep(each: Any, hit: bool) -> None:
        found[each.row.case] = (each.tries, each.last)

    drain(chase(build_attack(name, None, TRIED[name]), aim, rows, keep, 4), steps.append)
    assert set(found) == {"0", "1"} and steps
    assert all(tries >= 1 and last is not None for tries, last in found.values())
