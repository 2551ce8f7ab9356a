"""Flow transformers, of the real classes with random weights: drawn as by stock diffusers, and erased from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from erase.concept import Concept
from erase.errors import BadInput
from erase.methods.registry import build
from erase.model import Shot
from erase.request import Request, run_method
from erase.work import drain
from generators.flow.adapter import FlowTransformer
from generators.loading import load
from tests.toys.flow import FLOWS, LENGTH, Family, folder, stock

SHOTS = [Shot(3, "a cat in van gogh style"), Shot(5, "a photo of a dog")]
CONCEPT = Concept(name="Van Gogh", kind="style", anchor="photo")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("flows")


def opened(family: Family, place: Path) -> FlowTransformer:
    model = load(folder(family, place), device="cpu", dtype="fp32")
    assert isinstance(model, FlowTransformer)
    return model


def drawn(pipe: Any, shots: list[Shot], guidance: float, steps: int = 4) -> torch.Tensor:
    """What the stock pipeline draws."""
    flux = type(pipe).__name__ == "FluxPipeline"
    true = flux and not pipe.transformer.config.guidance_embeds
    given = {"true_cfg_scale": guidance, "negative_prompt": [""] * len(shots)} if true else {"guidance_scale": guidance}
    return pipe(
        [shot.prompt for shot in shots], height=16, width=16, num_inference_steps=steps, output_type="pt",
        generator=[torch.Generator().manual_seed(shot.seed) for shot in shots],
        max_sequence_length=LENGTH if pipe.components.get("text_encoder_3") or flux else 256, **given,
    ).images.float()  # fmt: skip


@pytest.mark.parametrize("family", FLOWS)
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_it_draws_what_the_stock_pipeline_draws(family: Family, guidance: float, place: Path) -> None:
    model = opened(family, place)
    ours = drain(model.sample(SHOTS, steps=4, guidance=guidance))
    theirs = drawn(stock(folder(family, place)), SHOTS, guidance)
    assert (ours - theirs).abs().max() < 1e-5
    assert (ours[0] - ours[1]).abs().max() > 1e-2


@pytest.mark.parametrize("family", FLOWS)
def test_a_prediction_is_the_velocity_of_the_path(family: Family, place: Path) -> None:
    model = opened(family, place)
    z, codes = model.noise(SHOTS), model.encode([shot.prompt for shot in SHOTS])
    t = torch.tensor([120, 999])
    both = model.predict(z, t, codes)
    level = (t + 1).float() / 1000
    assert torch.allclose(both, model.velocity(z, level, codes), atol=1e-6)
    assert torch.allclose(both[:1], model.predict(z[:1], t[0], codes[:1]), atol=1e-5)


@pytest.mark.parametrize("family", FLOWS)
def test_a_rollout_takes_the_sampler_s_steps(family: Family, place: Path) -> None:
    model = opened(family, place)
    walked = drain(model.trajectory(SHOTS, guidance=4.0, steps=4))
    assert torch.equal(walked.z[:, 0], model.noise(SHOTS).cpu())
    guided = walked.present if model.embeds_guidance else walked.absent + 4.0 * (walked.present - walked.absent)
    last = walked.z[:, -1] - model.path.noise[int(walked.t[-1])].float() * guided[:, -1]
    drawn_ = drain(model.latents(SHOTS, steps=4, guidance=4.0 if not model.embeds_guidance else 3.5))
    assert (last - drawn_).abs().max() < 0.05 * drawn_.abs().max()


@pytest.mark.parametrize("family", FLOWS)
def test_given_word_vectors_are_read_as_the_words_are(family: Family, place: Path) -> None:
    model = opened(family, place)
    prompts = ["a cat in van gogh style", "dog"]
    ids = model.frame([model.tokens(prompt) for prompt in prompts])
    codes, again = model.encode(prompts), model.read(ids, model.embed(ids))
    assert torch.equal(codes.tokens, again.tokens)
    assert codes.pooled is not None and again.pooled is not None and torch.equal(codes.pooled, again.pooled)
    moved = model.embed(ids).detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(model.read(ids, moved).tokens.square().sum(), moved)
    assert (slope[:, model.opening].abs().amax(1) > 0).all()
    assert model.room == ids.shape[1] - model.opening - 1


@pytest.mark.parametrize("family", FLOWS)
@pytest.mark.parametrize("space", ["sequence", "pooled"])
def test_rows_of_the_concept_are_paired_with_the_anchor_s(family: Family, space: str, place: Path) -> None:
    model = opened(family, place)
    for rows in ("last", "tail", "all"):
        pair = model.contrast(CONCEPT, rows, ("{}", "a cat in {} style"), space)
        assert pair.present.shape == pair.absent.shape and pair.present.isfinite().all()
        if space == "pooled":
            assert len(pair.present) == 2
            expected = model.encode(["a cat in Van Gogh style"]).pooled
            assert expected is not None and torch.allclose(pair.present[1], expected[0], atol=1e-6)
    one = model.contrast(CONCEPT, "last", ("{}",), "sequence")
    more = model.contrast(CONCEPT, "tail", ("{}",), "sequence")
    assert len(more.present) > len(one.present)


def test_all_sub_tokens_of_the_concept_are_keys_where_codes_see_what_follows(place: Path) -> None:
    model = opened("flux-dev", place)
    text = "a cat in Van Gogh style"
    count = len(model.tokens(text))
    first = len(model.tokens("a cat in"))
    pair = model.contrast(CONCEPT, "tail", ("a cat in {} style",), "sequence")
    codes = model.encode([text]).tokens[0]
    assert torch.equal(pair.present[: count - first], codes[first:count])
    anchor = model.encode(["a cat in photo style"]).tokens[0]
    subject = len(model.tokens("Van Gogh"))
    assert torch.equal(pair.absent[0], anchor[first]) and torch.equal(pair.absent[subject], anchor[first + 1])


@pytest.mark.parametrize("family", FLOWS)
@pytest.mark.parametrize("method", ["uce", "nullspace"])
def test_a_closed_form_moves_both_spaces_and_leaves_what_every_image_reads(
    family: Family, method: str, place: Path
) -> None:
    model = opened(family, place)
    knobs = {"rest": "all", "beta": 1e-4} if method == "nullspace" else {"damping": 1e-4, "hold": 1e4}
    edit = drain(run_method(build(method, None, knobs), Request(model, [CONCEPT])))
    assert set(edit.deltas) == {f"{name}.weight" for name in model.readers()} and len(edit.deltas) == 2
    for space in model.spaces:
        pair, resting = model.contrast(CONCEPT, "last", ("{}",), space), model.resting_codes(space)
        for name, reader in model.readers(space).items():
            before, goal, rest = reader(pair.present), reader(pair.absent), reader(resting)
            with edit.applied(model.network):
                assert (reader(pair.present) - goal).norm() < 0.35 * (before - goal).norm(), (name, space)
                assert (reader(resting) - rest).norm() < 0.05 * rest.norm(), (name, space)
    assert set(edit.about["spaces"]) == set(model.spaces)


@pytest.mark.parametrize("family", ["flux-schnell", "sd3"])
@pytest.mark.parametrize(("method", "knobs"), [
    ("esd", {"iterations": 2, "steps": 2, "seeds": 1}),
    ("ablate", {"iterations": 2, "steps": 2, "seeds": 1}),
])  # fmt: skip
def test_a_trained_eraser_learns_on_the_native_prediction(
    family: Family, method: str, knobs: dict[str, Any], place: Path
) -> None:
    model = opened(family, place)
    edit = drain(run_method(build(method, None, knobs), Request(model, [CONCEPT])))
    assert edit.deltas and all(name.startswith("transformer.") for name in edit.deltas)
    assert any(delta.abs().max() > 0 for delta in edit.deltas.values())


@pytest.mark.parametrize("family", FLOWS)
def test_a_saved_folder_is_opened_by_stock_diffusers(family: Family, place: Path, tmp_path: Path) -> None:
    model = opened(family, place)
    edit = drain(run_method(build("uce"), Request(model, [CONCEPT])))
    with edit.applied(model.network):
        model.save(tmp_path / "saved")
        ours = drain(model.sample(SHOTS, steps=3, guidance=3.5))
    theirs = drawn(stock(tmp_path / "saved"), SHOTS, 3.5, steps=3)
    assert (ours - theirs).abs().max() < 1e-5
    again = load(tmp_path / "saved", device="cpu", dtype="fp32")
    assert again.fingerprint != model.fingerprint
    assert torch.equal(ours, drain(again.sample(SHOTS, steps=3, guidance=3.5)))


def test_a_component_of_another_kind_is_refused(place: Path, tmp_path: Path) -> None:
    model = opened("flux-schnell", place)
    model.save(tmp_path / "saved")
    index = tmp_path / "saved" / "model_index.json"
    index.write_text(index.read_text().replace('"T5EncoderModel"', '"UMT5EncoderModel"'))
    with pytest.raises(BadInput, match="text_encoder_2 is a UMT5EncoderModel"):
        load(tmp_path / "saved", device="cpu")
