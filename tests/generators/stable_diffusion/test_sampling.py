"""The adapter draws what stock diffusers draws, whatever else is in the batch."""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    HeunDiscreteScheduler,
)

import generators
from erase.errors import BadInput
from erase.model import Shot
from erase.work import drain
from generators.stable_diffusion import sampling
from tests.toys.pipelines import FAMILIES, toy_folder

SHOTS = [Shot(3, "a cat in van gogh style"), Shot(2**40, "a dog"), Shot(5, ""), Shot(3, "an image of a person")]


def stock(folder, shots, *, steps, guidance, scheduler=None, output="pt"):
    """What the stock pipeline draws, one generator per image."""
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    if scheduler is not None:
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    return pipeline(
        prompt=[shot.prompt for shot in shots],
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=[torch.Generator("cpu").manual_seed(shot.seed) for shot in shots],
        output_type=output,
    ).images


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("guidance", [5.0, 0.5])
def test_equals_the_stock_pipeline(folders, models, family, guidance):
    ours = drain(models[family].sample(SHOTS, steps=5, guidance=guidance))
    theirs = stock(folders[family], SHOTS, steps=5, guidance=guidance)
    assert ours.shape == (4, 3, 16, 16)
    assert ours.dtype == torch.float32
    assert (ours - theirs).abs().max() <= 1e-5
    assert (ours[0] - ours[1]).abs().max() > 0.05  # another seed, another picture
    assert (ours[0] - ours[3]).abs().max() > 0.05  # another prompt, another picture


@pytest.mark.parametrize(
    "scheduler", [EulerAncestralDiscreteScheduler, HeunDiscreteScheduler, DPMSolverMultistepScheduler, DDIMScheduler]
)
@pytest.mark.parametrize("family", ["sd2", "xl"])
def test_equals_the_stock_pipeline_with_other_samplers(folders, family, scheduler):
    """Ancestral samplers draw noise at every step, from each shot's own stream; Heun calls the network twice a step."""
    model = generators.load(folders[family], device="cpu")
    model.scheduler = scheduler.from_config(model.scheduler.config)
    ours = drain(model.sample(SHOTS, steps=4, guidance=4.0))
    theirs = stock(folders[family], SHOTS, steps=4, guidance=4.0, scheduler=scheduler)
    assert (ours - theirs).abs().max() <= 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shot_does_not_depend_on_its_batch(models, family):
    model = models[family]
    together = drain(model.sample(SHOTS, steps=4))
    pairs = drain(model.sample(SHOTS[::-1], steps=4, batch=3)).flip(0)
    alone = torch.cat([drain(model.sample([shot], steps=4)) for shot in SHOTS])
    assert (together - alone).abs().max() <= 1e-5
    assert (together - pairs).abs().max() <= 1e-5


def test_one_step_per_call_of_the_network_and_gradients_stay_on(models):
    model, calls = models["sd2"], []
    hook = model.network.unet.register_forward_hook(lambda *_: calls.append(1))
    try:
        steps = []
        for step in model.sample(SHOTS, steps=3, batch=2):
            steps.append(step)
            assert torch.is_grad_enabled()
    finally:
        hook.remove()
    assert [step.done for step in steps if step.stage == "sample"] == [1, 2, 3, 4, 5, 6]
    assert {step.total for step in steps if step.stage == "sample"} == {6}
    assert len(calls) == 6


def test_drawing_leaves_the_scheduler_and_the_global_generator_alone(models):
    model = models["sd1"]
    before, state = dict(model.scheduler.__dict__), torch.get_rng_state()
    drain(model.sample(SHOTS[:1], steps=2))
    assert model.scheduler.__dict__ == before
    assert torch.equal(torch.get_rng_state(), state)


def test_no_shots_and_no_steps(models):
    assert drain(models["sd1"].sample([])).shape == (0, 3, 16, 16)
    with pytest.raises(BadInput, match="at least one step"):
        drain(models["sd1"].sample(SHOTS, steps=0))


def test_recommended_steps_and_guidance_are_the_defaults(tmp_path, models):
    assert (models["sd1"].default_steps, models["sd1"].default_guidance) == (50, 7.5)
    assert (models["xl"].default_steps, models["xl"].default_guidance) == (50, 5.0)
    folder = toy_folder(tmp_path / "toy")
    (folder / "studio.json").write_text('{"steps": 2, "guidance": 4.0}')
    model = generators.load(folder, device="cpu")
    assert torch.equal(drain(model.sample(SHOTS)), drain(model.sample(SHOTS, steps=2, guidance=4.0)))


def test_attention_in_slices_gives_the_same_pictures(folders, models):
    sliced = generators.load(folders["sd1"], device="cpu", attention_slicing=True)
    assert "Sliced" in str(set(sliced.network.unet.attn_processors.values()))
    difference = drain(sliced.sample(SHOTS, steps=3)) - drain(models["sd1"].sample(SHOTS, steps=3))
    assert difference.abs().max() <= 1e-5


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_draws_nearly_the_same(folders, models, dtype):
    half = generators.load(folders["sd1"], device="cpu", dtype=dtype)
    assert {parameter.dtype for parameter in half.network.parameters()} == {half.dtype} != {torch.float32}
    images = drain(half.sample(SHOTS, steps=3))
    assert images.dtype == torch.float32
    assert (images - drain(models["sd1"].sample(SHOTS, steps=3))).abs().mean() < 0.05


@pytest.mark.gpu
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("offload", [False, True])
def test_on_an_accelerator(folders, models, family, offload):
    model = generators.load(folders[family], device="cuda", dtype="fp32", offload=offload)
    difference = drain(model.sample(SHOTS, steps=3)) - drain(models[family].sample(SHOTS, steps=3))
    assert difference.abs().max() <= 1e-2
    if offload:
        assert {parameter.device.type for parameter in model.network.parameters()} == {"cpu"}


@pytest.mark.parametrize("family", FAMILIES)
def test_given_codes_are_read_in_place_of_the_prompts(models, family):
    model = models[family]
    unnamed = [Shot(shot.seed) for shot in SHOTS]
    with torch.no_grad():
        codes = model.encode([shot.prompt for shot in SHOTS])
    asked = drain(model.latents(SHOTS, steps=2))
    assert torch.equal(drain(model.latents(unnamed, steps=2, codes=codes)), asked)
    assert not torch.equal(drain(model.latents(unnamed, steps=2)), asked)


def test_large_latents_are_drawn_a_few_at_once(models, monkeypatch):
    model = models["sd1"]
    shots = [Shot(seed, "a cat") for seed in range(5)]
    whole = drain(model.latents(shots, steps=2))
    monkeypatch.setattr(sampling, "LATENTS_AT_ONCE", 2 * model.latent_shape[1] * model.latent_shape[2])
    sizes: list[int] = []
    with model.network.unet.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0]))):
        latents = drain(model.latents(shots, steps=2))
        drain(model.trajectory(shots, steps=1))
    assert set(sizes) == {4, 2}  # twice as many with guidance
    torch.testing.assert_close(latents, whole, atol=1e-4, rtol=1e-4)
