"""LoRA files beyond what one loader checks: names, alpha, metadata, and the way back into the studio."""

from __future__ import annotations

import itertools
import json
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from app.models import source
from erase.edit import Edit
from erase.errors import BadInput
from erase.work import drain
from generators.checkpoints import text_encoder_edit
from generators.export.format import Asked, form
from generators.export.formats import kohya_lora
from tests.generators.exports import ABOUT, layers, random_edit, readers
from tests.toys.pipelines import FAMILIES


def written(model, edit, folder, name, **asked):
    """The tensors and metadata of a LoRA."""
    folder.mkdir(exist_ok=True)
    drain(form(name).write(model, edit, folder, Asked(**asked)))
    path = folder / str(form(name).file)
    with safe_open(path, framework="pt") as file:
        return load_file(path), file.metadata()


@pytest.mark.parametrize("family", FAMILIES)
def test_kohya_names_and_metadata(models, family, tmp_path):
    tensors, header = written(models[family], layers(models[family]), tmp_path, "kohya-lora")
    modules = {name.split(".")[0] for name in tensors}
    assert set(tensors) == {f"{m}.{end}" for m in modules for end in ("lora_down.weight", "lora_up.weight", "alpha")}
    prefixes = ("lora_unet_", "lora_te1_", "lora_te2_") if family == "xl" else ("lora_unet_", "lora_te_")
    assert all(module.startswith(prefixes) for module in modules)
    stability = [module for module in modules if re.match("lora_unet_(input|middle|output)_block", module)]
    diffusers = [module for module in modules if re.match("lora_unet_(down|mid|up)_block", module)]
    assert bool(stability) == (family == "xl")
    assert bool(diffusers) == (family != "xl")
    assert f"{prefixes[1]}text_model_encoder_layers_0_mlp_fc1" in modules
    assert f"{prefixes[1]}text_model_encoder_layers_0_self_attn_out_proj" in modules
    for module in modules:
        assert tensors[f"{module}.alpha"].shape == ()
    assert len({float(tensors[f"{module}.alpha"]) for module in modules}) == 1
    assert all(isinstance(value, str) for value in header.values())
    assert "ss_base_model_version" not in header  # a toy is none of the models that programs know by this
    assert header["ss_v2"] == str(family == "sd2")
    assert header["ss_network_module"] == "networks.lora"
    assert header["modelspec.architecture"].endswith("/lora")
    assert header["modelspec.title"].endswith("without Van Gogh")
    assert re.fullmatch("[0-9a-f]{64}", header["sshs_model_hash"])


def test_names_as_sd_scripts_writes_them(models):
    def named(parameter, family):
        return kohya_lora.module_name(parameter, models[family])

    place = "attentions.0.transformer_blocks.0.attn2.to_k.weight"
    assert named(f"unet.down_blocks.0.{place}", "sd1") == (
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    )
    # The toy has one layer per block, so its second level begins at block 3.
    assert named(f"unet.down_blocks.1.{place}", "xl") == "lora_unet_input_blocks_3_1_transformer_blocks_0_attn2_to_k"
    assert named(f"unet.mid_block.{place}", "xl") == "lora_unet_middle_block_1_transformer_blocks_0_attn2_to_k"
    layer = "text_model.encoder.layers.3.self_attn.q_proj.weight"
    assert named(f"text.{layer}", "sd2") == "lora_te_text_model_encoder_layers_3_self_attn_q_proj"
    assert named(f"text_2.{layer}", "xl") == "lora_te2_text_model_encoder_layers_3_self_attn_q_proj"


def test_silent_layers_without_which_loaders_do_not_know_the_file(models, tmp_path, monkeypatch):
    """Text: all of q, k, v and out_proj. XL: a deep block, here the toy's second, for it has no third."""
    queries = random_edit(models["sd2"], lambda name, weight: name.endswith("q_proj.weight"), 0.3)
    tensors, _ = written(models["sd2"], queries, tmp_path, "kohya-lora")
    for layer, which in itertools.product(range(2), ("q", "k", "v", "out")):
        module = f"lora_te_text_model_encoder_layers_{layer}_self_attn_{which}_proj"
        change = tensors[f"{module}.lora_up.weight"] @ tensors[f"{module}.lora_down.weight"]
        assert bool(change.any()) == (which == "q")
    monkeypatch.setattr(kohya_lora, "DEEP", 1)
    shallow = random_edit(models["xl"], lambda name, weight: name.endswith("blocks.0.attn1.to_q.weight"), 0.3)
    tensors, _ = written(models["xl"], shallow, tmp_path, "kohya-lora")
    [deep] = {name.split(".")[0] for name in tensors if "transformer_blocks_1_attn2_to_k" in name}
    assert not (tensors[f"{deep}.lora_up.weight"] @ tensors[f"{deep}.lora_down.weight"]).any()


def test_peft_names_have_one_rank(models, tmp_path):
    tensors, header = written(models["xl"], layers(models["xl"]), tmp_path, "diffusers-lora")
    assert {name.split(".")[0] for name in tensors} == {"unet", "text_encoder", "text_encoder_2"}
    assert len({len(tensor) for name, tensor in tensors.items() if name.endswith("lora_A.weight")}) == 1
    assert "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj.lora_B.weight" in tensors
    assert header["format"] == "pt"


@pytest.mark.parametrize("name", ("kohya-lora", "diffusers-lora", "edit"))
@pytest.mark.parametrize("family", FAMILIES)
def test_read_back_as_an_edit(models, family, name, tmp_path):
    edit = layers(models[family])
    written(models[family], edit, tmp_path, name, error=1e-5)
    back = text_encoder_edit.read(tmp_path / str(form(name).file))
    assert back.about == edit.about
    for parameter, delta in edit.deltas.items():
        assert back.deltas[parameter].shape == delta.shape
        assert (back.deltas[parameter] - delta).norm() <= 2e-5 * delta.norm()
    assert all(not back.deltas[parameter].any() for parameter in back.deltas.keys() - edit.deltas.keys())


def test_a_file_stands_for_its_base_wearing_it(models, tmp_path):
    edit = readers(models["sd1"])
    edit = Edit(edit.deltas, ABOUT | {"model": "pocket-sd"})
    for name in ("kohya-lora", "edit"):
        written(models["sd1"], edit, tmp_path / name, name)
        what = source(str(tmp_path / name / str(form(name).file)))
        assert (what.base, what.run) == ("pocket-sd", None)
        assert what.edit() is not None
        assert [each.about for each in what.ledger()] == [edit.about]


def test_files_that_cannot_be_worn(models, tmp_path):
    foreign = tmp_path / "foreign.safetensors"
    save_file(
        {"lora_unet_mid.lora_down.weight": torch.zeros(2, 2), "lora_unet_mid.lora_up.weight": torch.zeros(2, 2)},
        foreign,
    )
    with pytest.raises(BadInput, match="LoRA of another program"):
        source(str(foreign))
    tensors, header = written(models["sd1"], readers(models["sd1"]), tmp_path, "kohya-lora")
    first = next(name for name in tensors if name.endswith("lora_down.weight"))
    save_file({name: tensor for name, tensor in tensors.items() if name != first}, foreign, metadata=header)
    with pytest.raises(BadInput, match="is damaged"):
        source(str(foreign))
    header["erase.about"] = json.dumps({})
    save_file(tensors, foreign, metadata=header)
    with pytest.raises(BadInput, match="does not say which model"):
        source(str(foreign))
