"""Exports of flow transformers, each opened by stock diffusers in a clean process."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from erase.concept import Concept
from erase.edit import Edit
from erase.errors import BadInput
from erase.methods.registry import build
from erase.request import Request, run_method
from erase.work import drain
from generators.checkpoints.text_encoder_edit import read
from generators.export.export import Exported, export
from generators.export.format import Asked, refusal
from generators.flow.adapter import FlowTransformer
from generators.loading import load
from tests.toys.flow import Family, folder

CONCEPT = Concept(name="Van Gogh", kind="style", anchor="photo")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("flows")


def erased(family: Family, place: Path) -> tuple[FlowTransformer, Edit]:
    model = load(folder(family, place), device="cpu", dtype="fp32")
    assert isinstance(model, FlowTransformer)
    return model, drain(run_method(build("uce"), Request(model, [CONCEPT])))


@pytest.mark.parametrize(
    ("family", "form"),
    [
        ("flux-dev", "edit"),
        ("flux-schnell", "pipeline"),
        ("flux-schnell", "kohya-lora"),
        ("sd3", "diffusers-lora"),
        ("sd3-no-t5", "pipeline"),
    ],
)
def test_stock_diffusers_draws_what_the_edited_model_draws(
    family: Family, form: str, place: Path, tmp_path: Path
) -> None:
    model, edit = erased(family, place)
    made: Exported = drain(export(model, edit, tmp_path / "out", form))
    assert made.proof.effect > 1e-3
    exact = form in ("edit", "pipeline")
    assert made.max_difference < (1e-4 if exact else 0.25 * made.proof.effect + 0.05)
    if form == "kohya-lora":
        names = {name.partition(".")[0] for name in load_file(tmp_path / "out" / "lora.safetensors")}
        assert names == {"lora_unet_txt_in", "lora_unet_vector_in_in_layer"}
        again = read(tmp_path / "out" / "lora.safetensors")
        assert set(again.deltas) == set(edit.deltas)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "height=16" in card and "num_inference_steps=4" in card


def test_formats_that_cannot_hold_a_transformer_say_which_can(place: Path, tmp_path: Path) -> None:
    model, edit = erased("sd3", place)
    for form in ("single-file", "plugin"):
        said = refusal(form, edit, Asked())
        assert said is not None and "pipeline, kohya-lora, diffusers-lora, edit" in said
        with pytest.raises(BadInput, match="flow transformer"):
            drain(export(model, edit, tmp_path / form, form))
    with pytest.raises(BadInput, match="Stable Diffusion 3 has no names of kohya's"):
        drain(export(model, edit, tmp_path / "kohya", "kohya-lora"))
    assert not list(tmp_path.iterdir())


def test_layers_that_others_hold_fused_are_refused_by_name(place: Path, tmp_path: Path) -> None:
    model, _ = erased("flux-schnell", place)
    name = "transformer.transformer_blocks.0.attn.add_k_proj.weight"
    delta = dict(model.network.named_parameters())[name].detach() * 0.1
    with pytest.raises(BadInput, match="hold transformer_blocks.0.attn.add_k_proj fused"):
        drain(export(model, Edit({name: delta}, {}), tmp_path / "out", "kohya-lora"))
