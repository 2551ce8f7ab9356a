"""An erasure of the text encoder through every format and back into the studio, worn or opened as a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import generators
from app.models import source
from erase.concept import Concept
from erase.edit import Edit
from erase.errors import BadInput
from erase.methods.registry import build
from erase.model import Shot
from erase.request import Request, run_method
from erase.work import drain
from generators.export import verify
from generators.export.export import export
from generators.export.format import form
from tests.generators import exports
from tests.generators.exports import ABOUT

SHOTS = [Shot(1, "a cat in van gogh style")]
STEPS = 3
KNOBS = {
    "iterations": 3, "warmup": 1, "attack_steps": 1, "seeds": 1, "keep_batch": 1, "steps": 3, "lr": 0.05,
    "templates": False, "retain": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, models: Any) -> None:
    """Few steps, and stock libraries in this process."""
    monkeypatch.setattr(verify, "_stock", exports.here)
    for model in models.values():
        monkeypatch.setattr(model, "default_steps", STEPS)


@pytest.fixture(scope="module")
def erased(models: Any) -> Edit:
    method: Any = build("advunlearn", None, KNOBS)
    return drain(run_method(method, Request(models["sd1"], [Concept(name="van gogh", kind="style")], seed=0)))


def drawn(model: Any, edit: Edit | None = None, strength: float = 1.0) -> torch.Tensor:
    with (edit or Edit({}, {})).applied(model.network, strength):
        return drain(model.sample(SHOTS, steps=STEPS))


def opened(path: Path) -> torch.Tensor:
    """What a MODEL|RUN argument of this name draws."""
    found = source(str(path))
    return drawn(generators.load(found.base, device="cpu"), found.edit())


@pytest.mark.parametrize("name", ["pipeline", "single-file", "plugin", "edit"])
def test_advunlearn_goes_out_and_comes_back(models: Any, erased: Edit, name: str, tmp_path: Path) -> None:
    model = models["sd1"]
    exported = drain(export(model, erased, tmp_path / "out", name, strength=0.5, shots=SHOTS))
    assert exported.max_difference <= 1e-5
    half = drawn(model, erased, 0.5)
    assert (half - drawn(model)).abs().mean() > 0.005
    assert (half - drawn(model, erased)).abs().mean() > 0.005
    assert (opened(tmp_path / "out") - half).abs().max() <= 1e-5
    card = (tmp_path / "out" / "README.md").read_text()
    for piece in ("van gogh", "`advunlearn`", str(erased.about["base"]), "at strength 0.5"):
        assert piece in card
    if form(name).adds:
        back = source(str(tmp_path / "out")).edit()
        assert back is not None and back.about["parents"][0]["about"]["method"] == "advunlearn"


@pytest.mark.parametrize("name", ["kohya-lora", "diffusers-lora", "gan"])
def test_what_cannot_carry_advunlearn_says_so_before_writing(
    models: Any, erased: Edit, name: str, tmp_path: Path
) -> None:
    assert any(parameter.endswith("layer_norm1.bias") for parameter in erased.deltas)
    why = "gan is for generators" if name == "gan" else "no biases, norms or embeddings.*edit, pipeline, .*plugin"
    with pytest.raises(BadInput, match=why):
        drain(export(models["sd1"], erased, tmp_path / "out", name, shots=SHOTS))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["single-file", "kohya-lora", "edit"])
def test_a_single_file_comes_back_under_any_name(models: Any, name: str, tmp_path: Path) -> None:
    model, target = models["sd1"], tmp_path / "Größe [1] ☂" / "mein Modell.safetensors"
    edit = exports.random_edit(model, lambda parameter, weight: "attn2.to_v" in parameter, 0.3)
    edit = Edit(edit.deltas, ABOUT | {"model": model.name})
    drain(export(model, edit, target, name, shots=SHOTS))
    apart = (opened(target) - drawn(model, edit)).abs().max()
    assert apart <= (0.05 if name == "kohya-lora" else 1e-5)


def test_the_text_encoders_of_xl_come_back(models: Any, tmp_path: Path) -> None:
    model = models["xl"]
    edit = exports.text_layers(model)
    edit = Edit(edit.deltas, ABOUT | {"model": model.name})
    drain(export(model, edit, tmp_path / "out", "plugin", dtype="bf16", shots=SHOTS))
    back = source(str(tmp_path / "out")).edit()
    assert back is not None and back.about == edit.about
    assert set(back.deltas) == set(edit.deltas)
    for name, delta in edit.deltas.items():
        assert (back.deltas[name] - delta).norm() <= 0.05 * delta.norm()  # bf16 rounds


def test_a_text_encoder_of_another_model_is_refused(models: Any, tmp_path: Path) -> None:
    model = models["xl"]
    edit = Edit(exports.text_layers(model).deltas, ABOUT | {"model": models["sd2"].name})
    drain(export(model, edit, tmp_path / "out", "plugin", shots=SHOTS))
    with pytest.raises(BadInput, match="another text encoder than"):
        source(str(tmp_path / "out"))


@pytest.mark.parametrize("name", ["pipeline", "single-file", "kohya-lora", "diffusers-lora", "edit"])
def test_bf16_in_every_format(models: Any, name: str, tmp_path: Path) -> None:
    model = models["sd2"]
    edit = Edit(exports.closed_form(model).deltas, ABOUT | {"model": model.name})
    exported = drain(export(model, edit, tmp_path / "out", name, dtype="bf16", shots=SHOTS))
    assert 0 < exported.proof.mean_difference <= 0.05
    assert "bfloat16" in (tmp_path / "out" / "README.md").read_text()
    assert (opened(tmp_path / "out") - drawn(model, edit)).abs().mean() <= 0.05


def test_the_base_is_never_replaced(models: Any, folders: Any) -> None:
    with pytest.raises(BadInput, match="is the base model itself"):
        drain(export(models["sd1"], None, folders["sd1"], "pipeline", force=True, shots=SHOTS))
