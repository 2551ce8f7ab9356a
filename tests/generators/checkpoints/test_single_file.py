"""Single checkpoints: family, configs and words come from the file itself, and the pictures stay the same."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

import generators
from erase.errors import BadInput
from erase.model import Shot
from erase.work import drain
from generators.checkpoints import shapes, vocabulary
from generators.checkpoints.single_file import opened, prediction_type
from tests.generators import compvis
from tests.toys.pipelines import FAMILIES, pipeline

SHOTS = [Shot(1, "a cat in van gogh style"), Shot(2, "")]
SIZE = {"modelspec.resolution": "16x16"}  # a toy's picture; the shapes cannot tell it


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The toys as single files."""
    home = tmp_path_factory.mktemp("files")
    return {f: compvis.single_file(home / f"{f}.safetensors", pipeline(f), f, SIZE) for f in FAMILIES}


def resaved(source, target, *, metadata, change=lambda tensors: tensors):
    save_file(change(load_file(source)), target, metadata=metadata)
    return target


@pytest.mark.parametrize("family", FAMILIES)
def test_draws_what_the_folder_draws(files, folders, models, family):
    """Only words are borrowed from a folder; every size is inferred, and the scheduler is the family's own."""
    words = folders[family]
    model = generators.load(files[family], device="cpu", config=str(words))
    assert model.family == family
    assert torch.equal(drain(model.sample(SHOTS, steps=4)), drain(models[family].sample(SHOTS, steps=4)))


@pytest.mark.parametrize("family", FAMILIES)
def test_configs_are_inferred(files, tmp_path, folders, models, family):
    """Nothing but tokenizers in the config folder: sizes, heads, scheduler and prediction type must all be found."""
    for name in ("tokenizer", "tokenizer_2"):
        if (folders[family] / name).is_dir():
            (tmp_path / name).symlink_to(folders[family] / name)
    model = generators.load(files[family], device="cpu", config=str(tmp_path))
    assert type(model.scheduler) is type(models[family].scheduler)
    assert model.scheduler.config["prediction_type"] == ("v_prediction" if family == "sd2" else "epsilon")
    for ours, theirs in zip(model.network.parameters(), models[family].network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert (drain(model.sample(SHOTS, steps=4)) - drain(models[family].sample(SHOTS, steps=4))).abs().max() <= 1e-5


def test_a_file_may_carry_its_own_words_and_configs(files, folders, models, tmp_path):
    keys = ("tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json", "unet/config.json")
    carried = {key: (folders["sd1"] / key).read_text() for key in keys}
    sly = {"unet/../../escaped.json": "{}", "/escaped.json": "{}"}
    file = resaved(files["sd1"], tmp_path / "own.safetensors", metadata=SIZE | carried | sly)
    model = generators.load(file, device="cpu")
    assert not list(tmp_path.rglob("escaped.json"))
    assert torch.equal(drain(model.sample(SHOTS, steps=3)), drain(models["sd1"].sample(SHOTS, steps=3)))


def test_without_words_the_way_out_is_named(files):
    with pytest.raises(BadInput, match=r"not CLIP's vocabulary of 49408.*--config"):
        generators.load(files["sd1"], device="cpu")


def test_clips_own_words_come_with_open_clip():
    """Against open_clip's own tokenizer, which is another implementation."""
    import open_clip

    ours, theirs = vocabulary.clip_tokenizer(), open_clip.SimpleTokenizer()
    for text in ("A photo of Van Gogh's jellyfish, 1234!", "café  naïve\n\tß 你好", "", "don't stop"):
        ids = ours(text).input_ids
        assert theirs(text)[0][: len(ids)].tolist() == ids
    assert len(ours) == vocabulary.SIZE
    padded = vocabulary.clip_tokenizer("!")("a", padding="max_length", max_length=5).input_ids
    assert padded == [49406, 320, 49407, 0, 0]


@pytest.mark.parametrize(
    ("metadata", "markers", "expected"),
    [
        ({}, (), "v_prediction"),
        ({"modelspec.prediction_type": "epsilon"}, (), "epsilon"),
        ({"modelspec.prediction_type": "v"}, (), "v_prediction"),
        ({"modelspec.architecture": "stable-diffusion-v2-512"}, (), "epsilon"),
    ],
)
def test_what_sd2_files_predict(files, tmp_path, metadata, markers, expected):
    file = resaved(files["sd2"], tmp_path / "file.safetensors", metadata=metadata)
    assert prediction_type(opened(file)) == expected


def test_marker_tensors_of_v_prediction_trainers(files, folders, tmp_path):
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    file = resaved(files["xl"], tmp_path / "file.safetensors", metadata=SIZE, change=lambda t: t | marks)
    (tmp_path / "words").mkdir()
    for name in ("tokenizer", "tokenizer_2"):
        (tmp_path / "words" / name).symlink_to(folders["xl"] / name)
    model = generators.load(file, device="cpu", config=str(tmp_path / "words"))
    assert model.scheduler.config["prediction_type"] == "v_prediction"
    assert model.path.signal[-1] ** 2 < 1e-6
    assert drain(model.sample(SHOTS, steps=2)).isfinite().all()


def test_an_explicit_config_decides_the_prediction_type(files, folders, tmp_path):
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "tokenizer").symlink_to(folders["sd2"] / "tokenizer")
    config = json.loads((folders["sd2"] / "scheduler" / "scheduler_config.json").read_text())
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(config | {"prediction_type": "epsilon"}))
    model = generators.load(files["sd2"], device="cpu", config=str(tmp_path))
    assert model.scheduler.config["prediction_type"] == "epsilon"


def test_licence_and_fingerprint(files, folders, tmp_path):
    file = resaved(files["sd1"], tmp_path / "file.safetensors", metadata=SIZE | {"modelspec.license": "mit"})
    model = generators.load(file, device="cpu", config=str(folders["sd1"]))
    assert model.licence == "mit"
    assert model.fingerprint == generators.load(files["sd1"], device="cpu", config=str(folders["sd1"])).fingerprint
    changed = resaved(
        files["sd1"], tmp_path / "other.safetensors", metadata=SIZE,
        change=lambda t: {name: tensor * 1.001 for name, tensor in t.items()},
    )  # fmt: skip
    assert generators.load(changed, device="cpu", config=str(folders["sd1"])).fingerprint != model.fingerprint


def test_files_that_are_no_checkpoint(files, folders, tmp_path):
    lora = tmp_path / "lora.safetensors"
    save_file({"lora_unet_mid.lora_down.weight": torch.zeros(2, 2)}, lora)
    with pytest.raises(BadInput, match="is a LoRA, not a whole model"):
        generators.load(lora, device="cpu")
    half = resaved(
        files["sd1"], tmp_path / "half.safetensors", metadata=SIZE,
        change=lambda t: {name: tensor for name, tensor in t.items() if "first_stage" not in name},
    )  # fmt: skip
    with pytest.raises(BadInput, match="without its VAE"):
        generators.load(half, device="cpu")
    data = files["sd1"].read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInput, match="cut short"):
        generators.load(tmp_path / "cut.safetensors", device="cpu")
    bent = resaved(
        files["sd1"], tmp_path / "bent.safetensors", metadata=SIZE,
        change=lambda t: t | {"model.diffusion_model.out.0.weight": torch.zeros(7)},
    )  # fmt: skip
    with pytest.raises(BadInput, match="conv_norm_out.weight is 7, it should be 32"):
        generators.load(bent, device="cpu", config=str(folders["sd1"]))
    with pytest.raises(BadInput, match="not a config folder"):
        generators.load(files["sd1"], device="cpu", config=str(tmp_path))


# The published configs, and what their files leave open.
SD1 = {
    "cross_attention_dim": 768, "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3, "layers_per_block": 2,
    "use_linear_projection": False, "transformer_layers_per_block": 1, "in_channels": 4, "out_channels": 4,
    "sample_size": 64,
}  # fmt: skip
SD2 = SD1 | {
    "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True,
    "sample_size": 96, "upcast_attention": True,
}  # fmt: skip
XL = {key: value for key, value in SD2.items() if key != "upcast_attention"} | {
    "cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20], "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "sample_size": 128,
    "transformer_layers_per_block": [1, 2, 10], "addition_embed_type": "text_time",
    "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip


@pytest.mark.parametrize(("family", "config"), [("sd1", SD1), ("sd2", SD2), ("xl", XL)])
def test_published_unets_are_recognised_from_their_shapes(family, config):
    with torch.device("meta"):
        extra = {"addition_time_embed_dim": 256} if family == "xl" else {}
        state = UNet2DConditionModel(**config, **extra).state_dict()
    named = {name: tuple(tensor.shape) for name, tensor in compvis.unet(config, state).items()}
    assert shapes.unet_config(named, family, config["sample_size"]) == config


def test_published_text_towers_are_recognised_from_their_shapes():
    published = CLIPTextConfig(
        vocab_size=49408, hidden_size=1280, intermediate_size=5120, num_hidden_layers=32,
        num_attention_heads=20, max_position_embeddings=77, hidden_act="gelu", projection_dim=1280,
    )  # fmt: skip
    with torch.device("meta"):
        state = CLIPTextModelWithProjection(published).state_dict()
    named = {name: tuple(x.shape) for name, x in compvis.open_clip(state).items()}
    found = shapes.open_clip_config(named, layers=32).to_dict()
    for key in ("hidden_size", "intermediate_size", "num_attention_heads", "hidden_act", "projection_dim"):
        assert found[key] == published.to_dict()[key]


def test_the_writer_of_these_tests_names_things_as_published(files):
    """A few names and shapes from real checkpoints, so that writer and reader cannot agree on a common mistake."""
    with safe_open(files["sd1"], framework="pt") as file:
        names = set(file.keys())
    assert "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight" in names
    # An upsampler after a block without attention.
    assert "model.diffusion_model.output_blocks.1.1.conv.weight" in names
    assert "model.diffusion_model.middle_block.1.proj_in.weight" in names
    assert "first_stage_model.decoder.up.0.block.0.nin_shortcut.weight" in names
    assert load_file(files["sd1"])["first_stage_model.encoder.mid.attn_1.q.weight"].shape == (64, 64, 1, 1)
    assert "cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight" in names
    second = load_file(files["sd2"])
    assert second["cond_stage_model.model.transformer.resblocks.2.attn.in_proj_weight"].shape == (192, 64)
    assert "conditioner.embedders.1.model.text_projection" in load_file(files["xl"])
