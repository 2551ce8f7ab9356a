"""Files that are no model, or another one than their names promise, are named; nothing is dropped without a word."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

import generators
from erase.errors import BadInput
from generators.checkpoints import text_encoder_edit
from generators.checkpoints.single_file import TOWERS, UNET, VAE, opened
from tests.generators import compvis
from tests.toys.pipelines import FAMILIES, pipeline

SIZE = {"modelspec.resolution": "16x16"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The toys as single files."""
    home = tmp_path_factory.mktemp("files")
    return {f: compvis.single_file(home / f"{f}.safetensors", pipeline(f), f, SIZE) for f in FAMILIES}


def beside(source, target, **more):
    """The file again with more tensors; their names have dots for double underscores."""
    tensors = {name.replace("__", "."): tensor for name, tensor in more.items()}
    save_file(load_file(source) | tensors, target, metadata=SIZE)
    return target


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["lora_unet_mid.hada_w1_a", "lora_unet_mid.hada_w1_b"], "LoHa"),
        (["lora_unet_mid.lokr_w1", "lora_unet_mid.lokr_w2_a"], "LoKr"),
        (["lora_unet_mid.lora_down.weight", "lora_unet_mid.lora_up.weight", "lora_unet_mid.dora_scale"], "DoRA"),
        (["unet.mid.lora_A.weight", "unet.mid.lora_magnitude_vector"], "DoRA"),
        (["lora_unet_mid.lora_down.weight", "lora_unet_mid.lora_up.weight"], "a LoRA"),
        (["unet.mid.processor.to_k_lora.down.weight"], "a LoRA"),
        (["control_model.input_blocks.0.0.weight"], "ControlNet"),
        (["controlnet_cond_embedding.conv_in.weight", "down_blocks.0.resnets.0.conv1.weight"], "ControlNet"),
        (["ip_adapter.1.to_k_ip.weight", "image_proj.proj.weight"], "IP-Adapter"),
        (["emb_params"], "textual inversion"),
        (["clip_g", "clip_l"], "textual inversion"),
        (["<my_style>"], "textual inversion"),
        (["encoder.conv_in.weight", "decoder.conv_in.weight"], "VAE alone"),
        (["first_stage_model.encoder.conv_in.weight"], "VAE alone"),
        (["text_model.embeddings.token_embedding.weight"], "text encoder alone"),
        (["down_blocks.0.resnets.0.conv1.weight"], "U-Net alone"),
        (["model.diffusion_model.input_blocks.0.0.weight"], "U-Net alone"),
    ],
)
def test_what_is_no_model_is_named(tmp_path, names, kind):
    path = tmp_path / "file.safetensors"
    save_file({name: torch.zeros(2, 2) for name in names}, path)
    with pytest.raises(BadInput, match=rf"{kind}.*\. (Merge|Give|Load|It)"):
        generators.load(path, device="cpu")
    if any("lora_up" in name for name in names):  # it looks like an edit, and is read as one
        with pytest.raises(BadInput, match=rf"{kind}.*does not say which weights"):
            text_encoder_edit.read(text_encoder_edit.place(path))


@pytest.mark.parametrize(
    ("family", "marks", "said"),
    [
        ("xl", ("edm_vpred__sigma_max",), "CosXL"),
        ("xl", ("edm_mean", "edm_std"), "Playground"),
        ("sd2", ("noise_augmentor__data_mean",), "unCLIP"),
        ("sd1", ("control_model__zero",), "ControlNet"),
        ("sd1", ("scaled_fp8",), "quantised"),
        ("sd1", ("model.diffusion_model.out.2.scale_weight",), "quantised"),
        ("sd1", ("model.diffusion_model.out.2.adapter",), "holds model.diffusion_model.out.2.adapter in its U-Net"),
    ],
)
def test_relatives_and_quantised_files_are_refused(files, folders, tmp_path, family, marks, said):
    odd = beside(files[family], tmp_path / "odd.safetensors", **{mark: torch.zeros(1) for mark in marks})
    with pytest.raises(BadInput, match=said):
        generators.load(odd, device="cpu", config=str(folders[family]))


def test_whole_numbers_as_weights_are_refused(files, folders, tmp_path):
    name = "model.diffusion_model.out.2.weight"
    weight = (load_file(files["sd1"])[name] * 100).to(torch.int8)
    with pytest.raises(BadInput, match="quantised: model.diffusion_model.out.2.weight"):
        generators.load(
            beside(files["sd1"], tmp_path / "i.safetensors", **{name: weight}), device="cpu", config=str(folders["sd1"])
        )


def test_a_file_without_vae_and_a_refiner_are_named(files, tmp_path):
    whole = load_file(files["sd1"])
    save_file({name: part for name, part in whole.items() if not name.startswith(VAE)}, tmp_path / "no.safetensors")
    with pytest.raises(BadInput, match="without its VAE"):
        opened(tmp_path / "no.safetensors")
    first, second = (prefix for prefix, _ in TOWERS["xl"])
    parts = {name: part for name, part in load_file(files["xl"]).items() if not name.startswith(first)}
    refiner = {name.replace(second, "conditioner.embedders.0.model."): part for name, part in parts.items()}
    save_file(refiner, tmp_path / "refiner.safetensors")
    with pytest.raises(BadInput, match="refiner"):
        opened(tmp_path / "refiner.safetensors")


def test_assumptions_and_what_is_left_out_are_said(files, folders, tmp_path):
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "tokenizer").symlink_to(folders["sd2"] / "tokenizer")
    extra = beside(
        files["sd2"], tmp_path / "more.safetensors", strange__part=torch.zeros(1), model_ema__x=torch.ones(1)
    )
    assumed, left_out = generators.load(extra, device="cpu", config=str(tmp_path / "words")).notes
    assert "v at 768 px is assumed" in assumed
    assert "1 tensors" in left_out and "strange.part" in left_out
    (tmp_path / "words" / "scheduler").symlink_to(folders["sd2"] / "scheduler")
    assert generators.load(files["sd2"], device="cpu", config=str(tmp_path / "words")).notes == ()
    save_file(
        load_file(files["sd2"]), tmp_path / "said.safetensors", metadata=SIZE | {"modelspec.prediction_type": "v"}
    )
    assert generators.load(tmp_path / "said.safetensors", device="cpu", config=str(folders["sd2"])).notes == ()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_has_the_fingerprint_of_its_folder(files, folders, models, tmp_path, family):
    """Row numbers and temperatures that some files carry do not count."""
    first = TOWERS[family][0][0]
    idle = {f"{first}logit_scale": torch.zeros(1)}
    if family != "sd2":
        idle[f"{first}text_model.embeddings.position_ids"] = torch.arange(77)[None]
    file = beside(files[family], tmp_path / "file.safetensors", **idle)
    assert generators.load(file, device="cpu", config=str(folders[family])).fingerprint == models[family].fingerprint
    name = UNET + "out.2.bias"
    other = beside(files[family], tmp_path / "other.safetensors", **{name: load_file(files[family])[name] + 1})
    assert generators.load(other, device="cpu", config=str(folders[family])).fingerprint != models[family].fingerprint
