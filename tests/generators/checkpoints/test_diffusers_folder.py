"""Diffusers folders: what is accepted, what is refused and in which words, and what a model costs unused."""

from __future__ import annotations

import json
import shutil

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

import generators
from erase.errors import BadInput
from erase.model import Shot
from erase.work import drain
from generators.checkpoints.tensors import contents, header
from tests.toys.pipelines import FAMILIES, patch_json, toy_folder

UNET = "unet/diffusion_pytorch_model.safetensors"


def rewrite(path, change):
    """Saves a weights file again with changed tensors."""
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


@pytest.fixture
def toy(tmp_path):
    """A folder of its own to damage."""
    return toy_folder(tmp_path / "toy")


@pytest.fixture
def refused():
    """The sentence a load is refused with."""

    def ask(name, **options):
        with pytest.raises(BadInput) as caught:
            generators.load(name, device="cpu", **options)
        return str(caught.value)

    return ask


def test_names_that_are_nothing(refused, tmp_path, monkeypatch):
    assert "Did you mean 'pocket-sd'" in refused("poket sd")
    assert "no file or folder" in refused(str(tmp_path / "nowhere"))
    assert "no file or folder" in refused("model.safetensors")
    assert "Unknown model ''" in refused("")
    monkeypatch.setenv("STUDIO_ASSETS", str(tmp_path))
    assert "STUDIO_ASSETS" in refused("Pocket_SD")


def test_bundled_models_are_found_under_any_spelling(toy, monkeypatch):
    toy.rename(toy.parent / "pocket-sd")
    monkeypatch.setenv("STUDIO_ASSETS", str(toy.parent))
    assert generators.load("Pocket_SD", device="cpu").name == "pocket-sd"


def test_a_hub_id_that_cannot_be_fetched(refused, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "could not be fetched" in refused("nobody/no-such-model")


def test_a_hub_id_is_fetched_with_diffusers(toy, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "diffusers.DiffusionPipeline.download",
        classmethod(lambda _, name, **options: asked.append((name, options)) or str(toy)),
    )
    assert generators.load("someone/some-model", device="cpu").name == "someone/some-model"
    assert asked == [("someone/some-model", {"use_safetensors": True})]


def test_folders_that_are_no_pipeline(refused, toy, tmp_path):
    assert "no model_index.json" in refused(tmp_path)
    patch_json(toy / "model_index.json", _class_name="CogView4Pipeline")
    assert "CogView4Pipeline; possible here: StableDiffusionPipeline, StableDiffusionXLPipeline" in refused(toy)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part_is_named(refused, toy, part):
    (toy / part).rename(toy / "elsewhere")
    assert part in refused(toy)


@pytest.mark.parametrize("keep", [0.5, 0.99999, 0.00001])
def test_a_truncated_file_is_named(refused, toy, keep):
    data = (toy / UNET).read_bytes()
    (toy / UNET).write_bytes(data[: int(len(data) * keep)])
    sentence = refused(toy)
    assert str(toy / UNET) in sentence
    assert "cut short" in sentence


def test_text_instead_of_weights(refused, toy):
    (toy / UNET).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n" * 9)
    assert str(toy / UNET) in refused(toy)


def test_wrong_shapes_missing_and_surplus_tensors_are_named(refused, toy):
    rewrite(toy / UNET, lambda t: t | {"conv_in.weight": t["conv_in.weight"][:5].clone()})
    assert "conv_in.weight is 5×4×3×3, it should be 32×4×3×3" in refused(toy)
    rewrite(toy / UNET, lambda t: {name: tensor for name, tensor in t.items() if name != "conv_in.weight"})
    assert f"{toy / UNET} does not fit its config: it lacks conv_in.weight" in refused(toy)
    rewrite(toy / UNET, lambda t: t | {"conv_in.weight": torch.zeros(32, 4, 3, 3), "more": torch.zeros(1)})
    assert "it holds more" in refused(toy)


def test_a_config_of_another_model(refused, toy):
    patch_json(toy / "unet" / "config.json", cross_attention_dim=48)
    assert "attn2" in refused(toy)
    patch_json(toy / "unet" / "config.json", down_block_types=["NoSuchBlock", "DownBlock2D"])
    assert "describes no model" in refused(toy)
    (toy / "unet" / "config.json").write_text("{")
    assert "not valid JSON" in refused(toy)


def test_pickled_weights_are_refused_not_opened(refused, toy):
    (toy / UNET).unlink()
    (toy / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    assert "pickle" in refused(toy)
    for suffix in (".ckpt", ".pt", ".pkl", ".bin"):
        (toy / f"model{suffix}").write_bytes(b"x")
        assert "pickle" in refused(toy / f"model{suffix}")


def test_inpainting_models_are_refused(refused, toy):
    patch_json(toy / "unet" / "config.json", in_channels=9)
    rewrite(toy / UNET, lambda t: t | {"conv_in.weight": torch.zeros(32, 9, 3, 3)})
    assert "inpainting" in refused(toy)


def test_parts_of_different_models_are_refused(refused, toy, folders):
    shutil.rmtree(toy / "text_encoder")
    shutil.copytree(folders["sd2"] / "text_encoder", toy / "text_encoder")
    assert "reads codes of 32, the text encoder writes 64" in refused(toy)


def test_options_are_checked(refused, toy):
    assert "fp32" in refused(toy, dtype="float33")
    assert "accelerator" in refused(toy, offload=True)
    assert "single .safetensors" in refused(toy, config=str(toy))
    assert "no config folder" in refused(toy, config=str(toy / "nowhere"))
    with pytest.raises(BadInput, match="Did you mean"):
        generators.load(toy, device="cude")
    with pytest.raises(BadInput, match="CUDA devices"):
        generators.load(toy, device="cuda:99")


def test_old_and_new_text_names_both_load(toy):
    """Files of transformers 4 carry `text_model.` and row numbers; those of transformers 5.6 and later neither."""
    path = toy / "text_encoder" / "model.safetensors"
    flat = generators.load(toy, device="cpu").encode(["a cat"]).tokens
    rewrite(
        path,
        lambda t: (
            {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in t.items()}
            | {"text_model.embeddings.position_ids": torch.arange(77)[None]}
        ),
    )
    prefixed = generators.load(toy, device="cpu")
    assert torch.equal(flat, prefixed.encode(["a cat"]).tokens)


def test_fingerprint_tells_weights_not_spellings(toy, folders):
    first = generators.load(toy, device="cpu").fingerprint
    assert first == generators.load(toy, device="cpu", dtype="bf16").fingerprint
    assert first != generators.load(folders["sd2"], device="cpu").fingerprint
    path = toy / "text_encoder" / "model.safetensors"
    rewrite(path, lambda t: {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in t.items()})
    assert first == generators.load(toy, device="cpu").fingerprint
    rewrite(path, lambda t: {name: tensor + 1e-3 for name, tensor in t.items()})
    assert first != generators.load(toy, device="cpu").fingerprint


def test_shards_and_variants_are_found(toy, models):
    tensors = load_file(toy / UNET)
    (toy / UNET).unlink()
    names = sorted(tensors)
    places = {name: f"diffusion_pytorch_model-0000{1 + (i % 2)}-of-00002.safetensors" for i, name in enumerate(names)}
    for shard in set(places.values()):
        save_file({name: tensors[name] for name in names if places[name] == shard}, toy / "unet" / shard)
    index = toy / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    vae = toy / "vae" / "diffusion_pytorch_model.safetensors"
    vae.rename(vae.with_name("diffusion_pytorch_model.fp16.safetensors"))
    sharded = generators.load(toy, device="cpu")
    assert sharded.fingerprint == models["sd1"].fingerprint
    shots = [Shot(1, "a cat")]
    assert torch.equal(drain(sharded.sample(shots, steps=2)), drain(models["sd1"].sample(shots, steps=2)))


def test_shards_beside_a_stale_file_are_read_as_each_library_does(toy, models):
    """diffusers reads the shards, transformers the single file."""
    for part, stem in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        file = toy / part / f"{stem}.safetensors"
        tensors = load_file(file)
        right, stale = tensors, {name: tensor + 1 for name, tensor in tensors.items()}
        save_file(right if part == "unet" else stale, toy / part / "shard.safetensors", metadata={"format": "pt"})
        save_file(stale if part == "unet" else right, file, metadata={"format": "pt"})
        index = {"weight_map": dict.fromkeys(tensors, "shard.safetensors")}
        (toy / part / f"{stem}.safetensors.index.json").write_text(json.dumps(index))
    assert generators.load(toy, device="cpu").fingerprint == models["sd1"].fingerprint
    (toy / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text('{"weight_map": [1]}')
    with pytest.raises(BadInput, match="index of shards"):
        generators.load(toy, device="cpu")


def test_of_several_variants_none_is_guessed(refused, toy):
    whole = toy / UNET
    for variant in ("fp16", "non_ema"):
        shutil.copy(whole, whole.with_name(f"diffusion_pytorch_model.{variant}.safetensors"))
    assert generators.load(toy, device="cpu")
    whole.unlink()
    assert "several variants" in refused(toy)
    whole.with_name("diffusion_pytorch_model.non_ema.safetensors").unlink()
    assert generators.load(toy, device="cpu")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"_class_name": "AutoencoderTiny"}, "has the VAE AutoencoderTiny"),
        ({"_class_name": "AsymmetricAutoencoderKL"}, "has the VAE AsymmetricAutoencoderKL"),
        ({"scaling_factor": 0}, "scaling_factor 0"),
        ({"scaling_factor": float("nan")}, "scaling_factor nan"),
        ({"scaling_factor": "large"}, "scaling_factor 'large'"),
        ({"block_out_channels": [16, 16]}, "num_channels"),
    ],
)
def test_a_vae_that_could_not_decode_is_refused_at_load(refused, toy, change, said):
    patch_json(toy / "vae" / "config.json", **change)
    assert said in refused(toy)


def test_folders_for_pictures_to_begin_with_have_the_same_parts(refused, toy, models, folders, tmp_path):
    patch_json(toy / "model_index.json", _class_name="StableDiffusionImg2ImgPipeline")
    assert generators.load(toy, device="cpu").fingerprint == models["sd1"].fingerprint
    refiner = shutil.copytree(folders["xl"], tmp_path / "refiner")
    patch_json(refiner / "model_index.json", _class_name="StableDiffusionXLImg2ImgPipeline")
    assert generators.load(refiner, device="cpu").family == "xl"
    shutil.rmtree(refiner / "text_encoder")
    assert "refiner" in refused(refiner)


@pytest.mark.parametrize(
    ("scheduler", "few"),
    [
        ({"_class_name": "LCMScheduler"}, True),
        ({"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}, True),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}, False),
        (
            {
                "_class_name": "EulerDiscreteScheduler",
                "timestep_spacing": "trailing",
                "prediction_type": "v_prediction",
                "rescale_betas_zero_snr": True,
            },
            False,
        ),
    ],
)
def test_models_for_few_steps_are_drawn_in_few(toy, scheduler, few):
    patch_json(toy / "scheduler" / "scheduler_config.json", **scheduler)
    model = generators.load(toy, device="cpu")
    assert (model.default_steps, model.default_guidance) == ((4, 1.0) if few else (50, 7.5))
    assert [f"{toy} has the scheduler" in note for note in model.notes] == [True] * few
    (toy / "studio.json").write_text('{"steps": 2, "guidance": 3.0}')
    said = generators.load(toy, device="cpu")
    assert (said.default_steps, said.default_guidance, said.notes) == (2, 3.0, ())


def test_autoencoders_from_before_2023_load(toy, models):
    """Their attention is called query, key, value and proj_attn."""
    new_names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def age(tensors):
        aged = {}
        for name, tensor in tensors.items():
            for new, old in new_names.items():
                name = name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
            aged[name] = tensor
        assert aged.keys() != tensors.keys()
        return aged

    rewrite(toy / "vae" / "diffusion_pytorch_model.safetensors", age)
    latents = models["sd1"].noise([Shot(1)])
    assert torch.equal(generators.load(toy, device="cpu").decode(latents), models["sd1"].decode(latents))


def test_the_vae_is_not_touched_before_it_is_needed(toy):
    vae = toy / "vae" / "diffusion_pytorch_model.safetensors"
    vae.write_bytes(vae.read_bytes()[:1000])
    model = generators.load(toy, device="cpu")
    drain(model.latents([Shot(1, "a cat")], steps=1))
    with pytest.raises(BadInput, match="vae"):
        drain(model.sample([Shot(1, "a cat")], steps=1))


def test_weights_are_mapped_not_read_and_never_written_back(tmp_path):
    path = tmp_path / "big.safetensors"
    save_file({f"part{i}": torch.ones(4, 2**20) for i in range(6)}, path)  # 96 MiB
    before = psutil.Process().memory_info().rss
    tensors = contents(path)
    assert psutil.Process().memory_info().rss - before < 24 * 2**20
    tensors["part0"].add_(1)
    assert contents(path)["part0"].max() == 1
    assert len(header(path)[0]) == 6


def test_licences_are_read_from_the_card_and_never_guessed(toy):
    assert generators.load(toy, device="cpu").licence is None
    (toy / "README.md").write_text("---\ntags:\n- x\nlicense: creativeml-openrail-m\n---\n# Model\nlicense: mit\n")
    assert generators.load(toy, device="cpu").licence == "creativeml-openrail-m"


@pytest.mark.parametrize("family", FAMILIES)
def test_families_are_recognised(models, family):
    assert models[family].family == family


def test_what_decides_a_picture_beside_the_weights_is_known(toy):
    first = generators.load(toy, device="cpu")
    assert generators.load(toy, device="cpu", dtype="bf16").drawing == first.drawing
    before, weights = {first.drawing}, first.fingerprint
    patch_json(toy / "unet" / "config.json", sample_size=16)
    before.add(generators.load(toy, device="cpu").drawing)
    patch_json(toy / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    before.add(generators.load(toy, device="cpu").drawing)
    patch_json(toy / "scheduler" / "scheduler_config.json", _class_name="DDIMScheduler")
    before.add(generators.load(toy, device="cpu").drawing)
    patch_json(toy / "vae" / "config.json", scaling_factor=0.5)
    before.add(generators.load(toy, device="cpu").drawing)
    vae = toy / "vae" / "diffusion_pytorch_model.safetensors"
    rewrite(vae, lambda t: {name: tensor + 1e-3 for name, tensor in t.items()})
    before.add(generators.load(toy, device="cpu").drawing)
    assert len(before) == 6
    assert generators.load(toy, device="cpu").fingerprint == weights
