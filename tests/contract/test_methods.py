"""What every method owes every model: the weights back at any moment, the same seed the same edit, its own slice."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from erase.concept import Concept
from erase.edit import Edit, canonical
from erase.errors import BadInput
from erase.methods.registry import Method, build, method_names
from erase.methods.registry import method as method_named
from erase.model import Denoiser, Gan
from erase.request import Request, run_method
from erase.training.slices import select
from erase.work import Step, Work, drain
from tests.toys.compare import same_bits, weights

# Knobs that make a method quick here; a method that is not listed runs with its defaults.
QUICK: dict[str, list[dict[str, Any]]] = {
    "ablate": [
        {"iterations": 2, "steps": 2, "seeds": 9, "keep_seeds": 1, "batch": 2, "templates": False, "lr": 1e-3},
        {"iterations": 2, "steps": 2, "seeds": 1, "batch": 2, "templates": False, "lr": 1e-3, "teacher": "self"},
    ],
    "doco": [
        {"iterations": 3, "warmup": 1, "steps": 2, "seeds": 2, "batch": 2, "templates": False, "lr": 1e-3},
        {
            "iterations": 2,
            "warmup": 0,
            "steps": 2,
            "seeds": 1,
            "batch": 2,
            "templates": False,
            "slice": "full",
            "sees": "latent",
            "surgery": "repo-v2",
            "optimiser": "sgd",
            "confine": "none",
        },
    ],
    "salun": [{"epochs": 1, "steps": 2, "seeds": 2, "keep_seeds": 1, "batch": 2, "templates": False, "lr": 1e-3}],
    "uce": [{}, {"rows": "tail", "templates": True}],
    "esd": [
        {"iterations": 3, "steps": 3, "seeds": 2, "templates": False, "lr": 1e-3},
        {"iterations": 2, "steps": 2, "seeds": 9, "variant": "u", "target": "anchor", "confine": "none", "lr": 1e-3},
    ],
    "advunlearn": [
        {
            "iterations": 3,
            "warmup": 1,
            "attack_steps": 2,
            "steps": 2,
            "seeds": 2,
            "templates": False,
            "retain": ("a boat", "a chair"),
            "keep_batch": 2,
            "lr": 1e-3,
        },
        {
            "iterations": 3,
            "warmup": 0,
            "attack_steps": 2,
            "steps": 2,
            "seeds": 2,
            "retain": False,
            "lr": 1e-3,
            "init": "latest",
            "train": "text",
            "update": "pgd",
            "radius": 0.1,
            "place": "mixed",
            "restarts": 2,
            "refresh": 2,
        },
    ],
}
# Methods for GANs owe the same; tests/contract/test_gan_methods.py tries them on a GAN.
CASES = [
    (name, knobs) for name in method_names() if method_named(name).needs is not Gan for knobs in QUICK.get(name, [{}])
]
CONCEPTS = [Concept(name="Van_Gogh", kind="style"), Concept(name="Cats", prompts=("cats", "a kitten"))]
KEEP = [Concept(name="Dogs"), Concept(name="painting", kind="style")]


@pytest.fixture(params=CASES, ids=[f"{name}-{number}" for number, (name, _) in enumerate(CASES)])
def method(request: pytest.FixtureRequest) -> Method:
    name, knobs = request.param
    return build(name, None, knobs)


def run(method: Method, model: Denoiser, seed: int = 0, state: dict[str, Tensor] | None = None) -> Work[Edit]:
    return run_method(method, Request(model, CONCEPTS, KEEP, seed=seed), state=state)


def circumstances(model: Denoiser) -> list[object]:
    """Everything about a network and the process, other than weights, that a method might leave changed."""
    with torch.no_grad():
        model.encode(
            [""]
        )  # the text library puts hooks of its own on a tower when that is first asked for all its layers
    return [
        [parameter.requires_grad for parameter in model.network.parameters()],
        [parameter.grad is None for parameter in model.network.parameters()],
        [id(parameter) for parameter in model.network.parameters()],
        [module.training for module in model.network.modules()],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.network.modules()],
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.random.get_rng_state().tolist(),
        dict(vars(UNet2DConditionModel)),
    ]


def test_the_model_comes_back_and_the_edit_is_its_slice(model: Denoiser, method: Method) -> None:
    before, around = weights(model.network), circumstances(model)
    edit = drain(run(method, model))
    assert same_bits(before, weights(model.network))
    assert circumstances(model) == around
    assert edit.deltas and any(bool(delta.any()) for delta in edit.deltas.values())
    assert all(delta.dtype == torch.float32 and delta.device.type == "cpu" for delta in edit.deltas.values())
    assert all(bool(delta.isfinite().all()) for delta in edit.deltas.values())
    slices = [
        set(map(canonical, select(model.network, slice)))
        for slice in ("kv", "cross", "not_cross", "full", "text", "text[0]")
    ]
    assert set(edit.deltas) in slices
    with edit.applied(model.network):
        assert not same_bits(before, weights(model.network))
    assert same_bits(before, weights(model.network))


def test_closing_at_every_step_restores_every_bit(model: Denoiser, method: Method) -> None:
    before, around = weights(model.network), circumstances(model)
    total = 0

    def count(step: Step) -> None:
        nonlocal total
        total += 1

    drain(run(method, model), count)
    assert total >= 3
    for stop in range(1, total + 1):
        work = run(method, model)
        for _ in range(stop):
            next(work)
        work.close()
        assert same_bits(before, weights(model.network)), stop
        assert circumstances(model) == around, stop


def test_an_error_midway_restores_every_bit(model: Denoiser, method: Method) -> None:
    before, around = weights(model.network), circumstances(model)

    def fail(step: Step) -> None:
        if step.done > 1:
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        drain(run(method, model), fail)
    assert same_bits(before, weights(model.network))
    assert circumstances(model) == around


def test_same_seed_same_edit(model: Denoiser, method: Method) -> None:
    one = drain(run(method, model))
    torch.manual_seed(12345)  # the process's own randomness plays no part
    with torch.no_grad():  # nor does the caller's gradient mode
        assert drain(run(method, model)).hash == one.hash
    other = drain(run(method, model, seed=1))
    assert (other.hash != one.hash) == ("seeds" in method.model_dump())  # type: ignore[attr-defined]


def test_resuming_from_any_state_ends_in_the_same_bits(model: Denoiser, method: Method, tmp_path: Path) -> None:
    whole = drain(run(method, model))
    files: list[Path | None] = []

    def write(step: Step) -> None:
        files.append(tmp_path / f"{len(files)}.safetensors" if step.state and not step.stale else None)
        if step.state and files[-1]:
            save_file(step.state(), files[-1])

    drain(run(method, model), write)
    for number, file in enumerate(files, 1):
        if file is None:
            continue
        remaining: list[Step] = []
        resumed = drain(run(method, model, state=load_file(file)), remaining.append)
        assert resumed.hash == whole.hash, file.name
        assert resumed.about == whole.about
        assert len(remaining) == len(files) - number, file.name  # nothing is done twice
    if hasattr(method, "learn"):
        assert None not in files
        with pytest.raises(BadInput, match="another job"):
            drain(run(method, model, seed=1, state=load_file(tmp_path / "0.safetensors")))
        with pytest.raises(BadInput, match="another job"):
            drain(run(method, model, state={"x": torch.zeros(1)}))


def test_one_network_is_alive_and_the_teacher_is_the_unedited_model(model: Denoiser, method: Method) -> None:
    gc.collect()  # networks of earlier tests

    def alive() -> int:
        return sum(type(thing) is UNet2DConditionModel for thing in gc.get_objects())

    before = alive()
    counts: dict[str, int] = {}
    taught: dict[str, Tensor] = {}

    def look(step: Step) -> None:
        assert torch.is_grad_enabled()  # a job that is paused at a Step does not hold the caller's gradient mode
        if step.stage not in counts:
            counts[step.stage] = alive()
        for name, values in (step.state() if step.state else {}).items():
            if step.stage == "tune" and name.startswith("teach"):
                assert torch.equal(taught.setdefault(name, values.clone()), values)

    drain(run(method, model), look)
    assert set(counts.values()) == {before}


def test_provenance_is_whole_and_plain(model: Denoiser, method: Method, tmp_path: Path) -> None:
    edit = drain(run(method, model))
    about = edit.about
    assert about["method"] in method_names()
    assert about["knobs"] == method.model_dump(mode="json")  # type: ignore[attr-defined]
    assert [Concept(**concept) for concept in about["concepts"]] == CONCEPTS
    assert [Concept(**concept) for concept in about["keep"]] == KEEP
    assert (about["seed"], about["base"], about["model"]) == (0, model.fingerprint, model.name)
    assert "torch" in about["versions"]
    assert json.loads(json.dumps(about)) == about
    assert Edit.load(edit.save(tmp_path / "edit.safetensors")).about == about


@pytest.mark.parametrize(
    ("concepts", "keep", "sentence"),
    [
        ([], [], "Nothing to erase"),
        ([{"name": "Cats"}, {"name": "cats "}], [], "erased twice"),
        ([{"name": "Cats"}], [{"name": "Kitten", "prompts": ["cats"]}], "erased and kept"),
        ([{"name": "Painting", "kind": "style"}], [], "same words"),
    ],
)
def test_contradictions_are_refused(
    toy: Denoiser, method: Method, concepts: list[dict[str, Any]], keep: list[dict[str, Any]], sentence: str
) -> None:
    make: Callable[[list[dict[str, Any]]], list[Concept]] = lambda given: [Concept(**fields) for fields in given]  # noqa: E731
    with pytest.raises(BadInput, match=sentence):
        drain(run_method(method, Request(toy, make(concepts), make(keep))))


def test_a_model_of_another_family_is_refused(method: Method) -> None:
    class Other:
        name = "a-gan"

    with pytest.raises(BadInput, match=r"needs a diffusion model, and a-gan is not one"):
        drain(run_method(method, Request(Other(), CONCEPTS)))
