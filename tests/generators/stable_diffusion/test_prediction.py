"""Noise and v predictions, noise levels, and the rollouts that banks are made of."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import DDIMScheduler

import generators
from erase.errors import BadInput
from erase.model import Shot
from erase.work import drain
from tests.toys.pipelines import FAMILIES, patch_json, toy_folder

SHOTS = [Shot(1, "a cat"), Shot(2, "a dog in van gogh style"), Shot(3, "")]
T = torch.tensor([11, 500, 999])


@pytest.mark.parametrize("family", FAMILIES)
def test_noise_is_predicted_whatever_the_network_was_trained_for(models, family):
    model = models[family]
    z, codes = model.noise(SHOTS), model.encode([shot.prompt for shot in SHOTS])
    said = model.unet_output(z, T, codes)
    alpha = model.scheduler.alphas_cumprod.double()[T].view(-1, 1, 1, 1)
    expected = alpha.sqrt() * said + (1 - alpha).sqrt() * z if family == "sd2" else said.double()
    assert (model.predict(z, T, codes) - expected).abs().max() <= 1e-6
    assert (said - model.predict(z, T, codes)).abs().max() > 0.1 or family != "sd2"


def test_v_and_noise_describe_the_same_latents(models):
    """With v = √ᾱ·ε − √(1−ᾱ)·z0, the conversion gives back the ε that made z, to rounding in float64."""
    model = models["sd2"]
    z0, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alpha = model.scheduler.alphas_cumprod.double()[T].view(-1, 1, 1, 1)
    v = alpha.sqrt() * noise - (1 - alpha).sqrt() * z0
    assert (model.as_noise(v, model.path.add_noise(z0, noise, T), T) - noise).abs().max() <= 1e-12


@pytest.mark.parametrize("family", FAMILIES)
def test_noise_is_added_as_the_schedulers_do(models, family):
    model = models[family]
    z0, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = model.ddim().add_noise(z0, noise, T)
    assert (model.path.add_noise(z0, noise, T) - expected).abs().max() <= 1e-6
    assert (model.path.add_noise(z0[:1], noise[:1], torch.tensor(11)) - expected[:1]).abs().max() <= 1e-6


def test_times_may_be_one_for_all_and_latents_of_any_precision(models):
    model = models["sd2"]
    z, codes = model.noise(SHOTS), model.encode([shot.prompt for shot in SHOTS])
    one, each = model.predict(z, torch.tensor(500), codes), model.predict(z, torch.full((3,), 500), codes)
    assert torch.equal(one, each)
    wide = model.predict(z.double(), torch.tensor(500), codes)
    assert wide.dtype == torch.float64
    assert (wide - one).abs().max() <= 1e-5


def test_gradients_reach_the_codes_and_the_text_encoder(models):
    model = models["xl"]
    weight = model.network.text_2.text_model.embeddings.token_embedding.weight
    weight.requires_grad_(True)
    try:
        codes = model.encode(["a cat", "a cat", "a dog"])
        model.predict(model.noise(SHOTS), T, codes).square().mean().backward()
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0
    finally:
        weight.requires_grad_(False)
        weight.grad = None
    assert not any(parameter.requires_grad for parameter in model.network.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_rollout_is_deterministic_ddim_with_guidance(models, family):
    """Against diffusers' own DDIM stepping, one shot at a time."""
    model = models[family]
    walked = drain(model.trajectory(SHOTS, guidance=3.0, steps=5, batch=2))
    scheduler = DDIMScheduler.from_config(model.scheduler.config, clip_sample=False)
    scheduler.set_timesteps(5)
    assert torch.equal(walked.t, scheduler.timesteps)
    assert walked.z.shape == walked.present.shape == walked.absent.shape == (3, 5, *model.latent_shape)
    kind, absent = scheduler.config.prediction_type, model.unconditional()
    close = 1e-5 * walked.z.abs().max()  # latents of random weights grow to tens
    for row, shot in enumerate(SHOTS):
        z, codes = model.noise([shot]), model.encode([shot.prompt])
        for column, t in enumerate(scheduler.timesteps):
            assert (walked.z[row, column] - z[0]).abs().max() <= close
            with_prompt, without = model.predict(z, t, codes), model.predict(z, t, absent)
            assert (walked.present[row, column] - with_prompt[0]).abs().max() <= close
            assert (walked.absent[row, column] - without[0]).abs().max() <= close
            noise = without + 3.0 * (with_prompt - without)
            alpha = model.scheduler.alphas_cumprod[t].float()
            said = noise if kind == "epsilon" else (noise - (1 - alpha).sqrt() * z) / alpha.sqrt()
            z = scheduler.step(said, t, z, eta=0.0).prev_sample
    assert (walked.present[0] - walked.absent[0]).abs().max() > 1e-2


def test_times_are_the_published_grid(models):
    walked = drain(models["sd1"].trajectory(SHOTS[:1], steps=50))
    assert walked.t.tolist() == list(range(981, 0, -20))


def test_rollouts_do_not_depend_on_the_batch(models):
    together = drain(models["sd1"].trajectory(SHOTS, steps=4))
    alone = [drain(models["sd1"].trajectory([shot], steps=4)) for shot in SHOTS]
    for name in ("z", "present", "absent"):
        difference = getattr(together, name) - torch.cat([getattr(each, name) for each in alone])
        assert difference.abs().max() <= 1e-5 * together.z.abs().max()


def test_xl_zeroes_the_unguided_half_unless_told_otherwise(tmp_path, models):
    assert models["xl"].unconditional().tokens.abs().max() == 0
    folder = toy_folder(tmp_path / "toy", "xl")
    patch_json(folder / "model_index.json", force_zeros_for_empty_prompt=False)
    told = generators.load(folder, device="cpu")
    assert torch.equal(told.unconditional().tokens, told.encode([""]).tokens)
    assert told.unconditional().pooled.abs().max() > 0
    index = folder / "model_index.json"
    silent = {key: value for key, value in json.loads(index.read_text()).items() if "force_zeros" not in key}
    index.write_text(json.dumps(silent))
    assert generators.load(folder, device="cpu").unconditional().tokens.abs().max() == 0  # as stock diffusers does


def test_predictions_of_another_kind_are_refused(tmp_path):
    folder = toy_folder(tmp_path / "toy", "sd2")
    patch_json(folder / "scheduler" / "scheduler_config.json", prediction_type="sample")
    with pytest.raises(BadInput, match="'sample'.*epsilon, v_prediction"):
        generators.load(folder, device="cpu")
