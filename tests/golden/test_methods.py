"""Every method's edit on tiny models: each of its knobs turned once on the toy, some on a toy Stable Diffusion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from erase.concept import Concept
from erase.edit import Edit
from erase.errors import BadInput
from erase.methods.registry import build, method, method_names
from erase.model import Gan
from erase.request import Request, run_method
from erase.work import Step, drain
from generators.loading import load
from tests.golden.golden import Brittle, check, digest
from tests.golden.variations import turned
from tests.toys.denoiser import Toy
from tests.toys.gan import ToyGan
from tests.toys.pipelines import toy_folder

ROLLOUTS: dict[str, Any] = {"steps": 2, "seeds": 2, "templates": False, "lr": 1e-3}
# Knobs that make a method quick here, two sets where one hides what another needs; others run with their defaults.
QUICK: dict[str, list[dict[str, Any]]] = {
    "ablate": [{**ROLLOUTS, "iterations": 2, "keep_seeds": 1, "batch": 2}],
    "doco": [
        {**ROLLOUTS, "iterations": 3, "warmup": 1, "batch": 2, "keep_seeds": 1, "match": 2.0},
        {**ROLLOUTS, "iterations": 2, "warmup": 0, "batch": 2, "slice": "full", "sees": "latent",
         "surgery": "repo-v2", "optimiser": "sgd", "confine": "none"},
    ],
    "salun": [{**ROLLOUTS, "epochs": 1, "keep_seeds": 1, "batch": 2}],
    "uce": [{}],
    "esd": [{**ROLLOUTS, "iterations": 2}],
    "advunlearn": [
        {**ROLLOUTS, "iterations": 3, "warmup": 1, "attack_steps": 2, "retain": ("a boat", "a chair"), "keep_batch": 2},
        {**ROLLOUTS, "iterations": 3, "warmup": 0, "attack_steps": 2, "retain": False, "init": "latest",
         "train": "text", "update": "pgd", "radius": 1.5e-3, "place": "mixed", "restarts": 2, "refresh": 2},
    ],
    "nullspace": [{}],
    "text-unlearn": [
        {"pool": 32, "steps": 3, "batch": 6, "agreement": -1},
        {"pool": 32, "steps": 2, "batch": 6, "agreement": -1, "editor": "mapper", "mapper_steps": 2},
    ],
    "feature-unlearn": [{"marked": 32, "steps": 3, "batch": 5}],
    "guide": [{"seeds": "3, 5", "steps": 2, "batch": 9}],
    "adapt-unlearn": [
        {"marked": 8, "positives": 8, "models": 2, "adapt_steps": 1, "steps": 2, "batch": 4, "fisher": 8},
        {"marked": 8, "positives": 8, "models": 1, "adapt_steps": 2, "steps": 9, "batch": 4, "fisher": 8,
         "form": "ewc", "worn": 0.5},
    ],
}  # fmt: skip
# Of a second set only these are turned; of the first all.
TURNED = {
    "doco": ("surgery", "sees", "optimiser", "strength"),
    "advunlearn": ("radius", "place", "restarts", "init", "refresh", "draws"),
    "text-unlearn": ("mapper_steps", "lr"),
    "adapt-unlearn": ("ewc", "fisher", "worn", "half_life", "backwards", "alpha", "push", "r1", "path"),
}
# Thresholds in their losses let a rounding grow: elsewhere only what they change is compared, not how much.
SENSITIVE = {"text-unlearn"}
CASES = [(name, number) for name in method_names() for number in range(len(QUICK.get(name, [{}])))]
OF_DIFFUSION = [(name, number) for name, number in CASES if method(name).needs is not Gan]
CONCEPTS = [Concept(name="Van_Gogh", kind="style"), Concept(name="Cats", prompts=("cats", "a kitten"))]
KEEP = [Concept(name="Dogs"), Concept(name="painting", kind="style")]
GAN_CONCEPTS = [Concept(name="bright", kind="attribute")]
GAN_KEEP = [Concept(name="hat", kind="attribute")]


def erased(
    name: str, knobs: dict[str, Any], model: Any, concepts: Sequence[Concept], keep: Sequence[Concept], seed: int = 0
) -> tuple[Edit, list[Step]]:
    """What a method makes of a model, and the Steps it took; the one place that knows how a method is called."""
    steps: list[Step] = []
    return drain(run_method(build(name, None, knobs), Request(model, concepts, keep, seed=seed)), steps.append), steps


def told(name: str, knobs: dict[str, Any], model: Any, seed: int = 0) -> Any:
    """An edit in full: deltas, what it says, losses of every Step; `refused` where knobs do not fit together."""
    gan = isinstance(model, ToyGan)
    concepts, keep = (GAN_CONCEPTS, GAN_KEEP) if gan else (CONCEPTS, KEEP)
    try:
        edit, steps = erased(name, knobs, model, concepts, keep, seed)
    except BadInput:
        return "refused"
    losses = [list(step.loss.values()) for step in steps if step.loss]
    about = dict(edit.about) | {"versions": sorted(edit.about["versions"]), "base": Brittle(edit.about["base"])}
    deltas = dict(sorted(edit.deltas.items()))
    whole = {"hash": Brittle(edit.hash), "deltas": deltas, "losses": losses, "about": about}
    if name in SENSITIVE:
        whole |= {"deltas": {key: [list(d.shape), Brittle(d)] for key, d in deltas.items()}, "losses": Brittle(losses)}
        return whole | {"size": Brittle(_size(edit))}
    return whole | {"size": _size(edit)}


def in_short(full: Any) -> Any:
    """An edit in a line: its hash, its names, how much it changes, and the losses' bits."""
    if full == "refused":
        return full
    return [full["hash"], digest(" ".join(full["deltas"])), full["size"], Brittle(digest(str(full["losses"])))]


def _size(edit: Edit) -> float:
    return sum(float(delta.double().square().sum()) for delta in edit.deltas.values()) ** 0.5


@pytest.mark.parametrize(("name", "number"), CASES, ids=lambda value: str(value))
def test_every_knob_of_a_method(name: str, number: int) -> None:
    kind, base = method(name), QUICK.get(name, [{}])[number]
    make = ToyGan if kind.needs is Gan else Toy
    full = {said: told(name, knobs, make()) for said, knobs in turned(kind, base, TURNED[name] if number else None)}
    full["seed=1"] = told(name, base, make(), seed=1)
    check(f"methods/{name}-{number}", {"base": full["base"], "turned": {k: in_short(v) for k, v in full.items()}})


@pytest.mark.parametrize(("name", "number"), OF_DIFFUSION, ids=lambda value: str(value))
def test_on_a_stable_diffusion(name: str, number: int, toys: Path) -> None:
    if not (toys / "sd1").exists():
        toy_folder(toys / "sd1", "sd1")
    model = load(str(toys / "sd1"), device="cpu")
    check(f"methods/sd1-{name}-{number}", in_short(told(name, QUICK.get(name, [{}])[number], model)))
