"""What every method owes every GAN: the weights back at any moment, same seed same edit, exact resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from erase.concept import Concept
from erase.edit import Edit
from erase.errors import BadInput
from erase.methods.registry import Method, build, method_names
from erase.methods.registry import method as method_named
from erase.model import Gan, Shot
from erase.request import Request, run_method
from erase.work import Step, Work, drain
from tests.toys.compare import same_bits, weights
from tests.toys.gan import ToyGan

ADAPT: dict[str, Any] = {
    "marked": 8, "positives": 16, "models": 2, "adapt_steps": 2, "steps": 3, "batch": 2, "fisher": 8,
}  # fmt: skip
# Knobs that make a method quick here; a method that is not listed runs with its defaults.
QUICK: dict[str, list[dict[str, Any]]] = {
    "text-unlearn": [
        {"pool": 32, "steps": 3, "batch": 6, "agreement": -1, "part": part} for part in ("synthesis", "readers")
    ]
    + [{"pool": 32, "steps": 2, "batch": 6, "agreement": -1, "editor": "mapper", "mapper_steps": 2}],
    "feature-unlearn": [{"marked": 32, "steps": 3, "batch": 4}],
    "guide": [{"seeds": "3, 5", "steps": 3, "batch": 8}],
    "adapt-unlearn": [ADAPT, {**ADAPT, "form": "ewc"}, {**ADAPT, "form": "extrapolate"}],
}
CASES = [(name, knobs) for name in method_names() if method_named(name).needs is Gan for knobs in QUICK.get(name, [{}])]
CONCEPTS = [Concept(name="bright", kind="attribute")]
KEEP = [Concept(name="hat", kind="attribute")]
NEED_CRITIC = {"adapt-unlearn"}


@pytest.fixture(params=CASES, ids=[f"{name}-{number}" for number, (name, _) in enumerate(CASES)])
def method(request: pytest.FixtureRequest) -> Method:
    name, knobs = request.param
    return build(name, None, knobs)


@pytest.fixture
def gan() -> ToyGan:
    return ToyGan()


def run(method: Method, gan: ToyGan, seed: int = 0, state: dict[str, Tensor] | None = None) -> Work[Edit]:
    return run_method(method, Request(gan, CONCEPTS, KEEP, seed=seed), state=state)


def circumstances(gan: ToyGan) -> list[object]:
    """Everything about the networks and the process, other than weights, that a method might leave changed."""
    found: list[object] = [torch.is_grad_enabled(), torch.random.get_rng_state().tolist()]
    for network in (gan.network, gan.critic):
        assert network is not None
        found += [
            [parameter.requires_grad for parameter in network.parameters()],
            [parameter.grad is None for parameter in network.parameters()],
            [id(parameter) for parameter in network.parameters()],
            [module.training for module in network.modules()],
        ]
    return found


def everything(gan: ToyGan) -> dict[str, Tensor]:
    """All tensors of both networks, buffers too: w_avg and stored noise are nobody's to change."""
    assert gan.critic is not None
    parts = {"network": gan.network, "critic": gan.critic}
    return {f"{name}.{key}": v.clone() for name, net in parts.items() for key, v in net.state_dict().items()}


def test_the_model_comes_back_and_the_pictures_change(gan: ToyGan, method: Method, tmp_path: Path) -> None:
    before, around, shots = everything(gan), circumstances(gan), [Shot(seed) for seed in range(4)]
    drawn = drain(gan.sample(shots))
    edit = drain(run(method, gan))
    assert same_bits(before, everything(gan))
    assert circumstances(gan) == around
    assert set(edit.deltas) <= {name for name, _ in gan.network.named_parameters()}
    assert all(delta.dtype == torch.float32 and bool(delta.isfinite().all()) for delta in edit.deltas.values())
    with edit.applied(gan.network):
        assert (drain(gan.sample(shots)) - drawn).abs().max() > 1e-4
    with edit.applied(gan.network, 0.0):
        assert torch.equal(drain(gan.sample(shots)), drawn)
    assert same_bits(weights(gan.network), {k.removeprefix("network."): v for k, v in before.items()
                                            if k.removeprefix("network.") in weights(gan.network)})  # fmt: skip
    about = edit.about
    assert about["knobs"] == method.model_dump(mode="json")  # type: ignore[attr-defined]
    assert [Concept(**concept) for concept in about["concepts"]] == CONCEPTS
    assert json.loads(json.dumps(about)) == about
    assert Edit.load(edit.save(tmp_path / "edit.safetensors")).about == about


def test_closing_or_failing_at_every_step_restores_every_bit(gan: ToyGan, method: Method) -> None:
    before, around = everything(gan), circumstances(gan)
    total = 0

    def count(step: Step) -> None:
        nonlocal total
        total += 1

    drain(run(method, gan), count)
    assert total >= 3
    for stop in range(1, total + 1):
        work = run(method, gan)
        for _ in range(stop):
            next(work)
        if stop % 2:
            work.close()
        else:
            with pytest.raises(RuntimeError, match="midway"):
                work.throw(RuntimeError("midway"))
        assert same_bits(before, everything(gan)), stop
        assert circumstances(gan) == around, stop


def test_same_seed_same_edit(gan: ToyGan, method: Method) -> None:
    one = drain(run(method, gan))
    torch.manual_seed(12345)  # the process's own randomness plays no part
    with torch.no_grad():  # nor does the caller's gradient mode
        assert drain(run(method, gan)).hash == one.hash
    assert drain(run(method, gan, seed=1)).hash != one.hash


def test_resuming_from_any_state_ends_in_the_same_bits(gan: ToyGan, method: Method, tmp_path: Path) -> None:
    whole = drain(run(method, gan))
    files: list[Path | None] = []

    def write(step: Step) -> None:
        files.append(tmp_path / f"{len(files)}.safetensors" if step.state and not step.stale else None)
        if step.state and files[-1]:
            save_file({name: value.contiguous() for name, value in step.state().items()}, files[-1])

    drain(run(method, gan), write)
    for number, file in enumerate(files, 1):
        if file is None:
            continue
        remaining: list[Step] = []
        resumed = drain(run(method, gan, state=load_file(file)), remaining.append)
        assert resumed.hash == whole.hash, file.name
        assert resumed.about == whole.about
        assert len(remaining) == len(files) - number, file.name  # nothing is done twice
    assert files[0]
    with pytest.raises(BadInput, match="another job"):
        drain(run(method, gan, seed=1, state=load_file(files[0])))


def test_what_it_needs_is_said_before_any_work(method: Method) -> None:
    class Other:
        name = "a-diffusion-model"

    with pytest.raises(BadInput, match=r"needs a GAN, and a-diffusion-model is not one"):
        drain(run_method(method, Request(Other(), CONCEPTS)))
    with pytest.raises(BadInput, match="Nothing to erase"):
        drain(run_method(method, Request(ToyGan(), [])))
    name = type(method).__module__.rpartition(".")[2].replace("_", "-")
    if name in NEED_CRITIC:
        work = run(method, ToyGan(critic=False))
        with pytest.raises(BadInput, match="text-unlearn, feature-unlearn"):
            next(work)
    else:
        assert drain(run(method, ToyGan(critic=False))).hash == drain(run(method, ToyGan())).hash
