"""StyleGAN2 as the studio loads it: from every kind of file, one picture per seed, readable by the methods."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import generators
from erase.concept import Concept
from erase.errors import BadInput
from erase.model import Denoiser, Gan, Shot, require
from erase.work import Step, drain
from generators.stylegan2 import adapter
from generators.stylegan2.io import checkpoint
from tests.generators.stylegan2.test_checkpoints import WRITERS, made
from tests.toys.gan import SHAPE, ToyGan


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_loads_by_its_path(name: str, tmp_path: Path) -> None:
    WRITERS[name](made(SHAPE), tmp_path / name)
    model = generators.load(tmp_path / name, device="cpu")
    assert model.network is not None and hasattr(model, "critic")
    shots = [Shot(seed) for seed in range(5)]
    images = drain(model.sample(shots, batch=2))
    assert images.shape == (5, 3, 8, 8) and float(images.min()) >= 0 and float(images.max()) <= 1
    torch.testing.assert_close(drain(model.sample(shots[3:4])), images[3:4], atol=1e-5, rtol=1e-5)
    assert (images[0] - images[1]).abs().max() > 0.01
    require(model, Gan, "a method")
    with pytest.raises(BadInput, match="needs a diffusion model"):
        require(model, Denoiser, "esd")


def test_what_is_saved_is_what_was_loaded(tmp_path: Path) -> None:
    gan = ToyGan()
    gan.save(tmp_path / "gan")
    again = generators.load(tmp_path / "gan", device="cpu")
    assert again.fingerprint == gan.fingerprint and again.name == "toy-gan"
    with torch.no_grad():
        gan.network.synthesis.block(4).const[0] += 1
    del gan.__dict__["fingerprint"]
    assert again.fingerprint != gan.fingerprint


def test_truncation_and_mixing_move_between_seeds() -> None:
    gan = ToyGan()
    gan.network.mapping.w_avg.copy_(gan.mapping(gan.latents(range(100)))[:, 0].mean(0))
    shots = [Shot(1), Shot(2)]
    average = drain(gan.sample(shots, psi=0.0))
    torch.testing.assert_close(average[0], average[1])
    one, two = gan.mapping(gan.latents([1])), gan.mapping(gan.latents([2]))
    mixed = gan.mixed([1], [2], 2)
    assert torch.equal(mixed[:, :2], one[:, :2]) and torch.equal(mixed[:, 2:], two[:, 2:])
    noise = gan.fresh_noise(2, torch.Generator().manual_seed(0))
    assert [len(maps) for maps in noise] == [2, 2, 2]
    assert (gan.synthesis(one.expand(2, -1, -1), noise)[0] - gan.synthesis(one)[0]).abs().max() > 1e-3


def test_it_draws_from_seeds_alone() -> None:
    with pytest.raises(BadInput, match="seeds alone"):
        drain(ToyGan().sample([Shot(1, "a face")]))


def test_contrast_sorts_codes_by_what_is_seen() -> None:
    gan = ToyGan()
    found = gan.contrast(Concept(name="bright", kind="attribute"))
    scorer = gan.scorer(Concept(name="bright"))
    with torch.no_grad():
        seen = [
            scorer(gan.synthesis(w[:, None].expand(-1, SHAPE.num_ws, -1)) / 2 + 0.5)
            for w in (found.present, found.absent)
        ]
    assert bool((seen[0] > 0.5).all()) and bool((seen[1] < 0.5).all())


def test_readers_are_all_the_styles() -> None:
    gan = ToyGan()
    assert set(gan.readers()) == {
        f"synthesis.{layer}.affine" for layer in ("b4.conv1", "b4.torgb", "b8.conv0", "b8.conv1", "b8.torgb")
    }
    assert set(gan.gains) == {name for name, _ in gan.network.named_parameters()}


def test_a_gan_nobody_has_eyes_for_says_what_to_do(tmp_path: Path) -> None:
    checkpoint.write_folder(made(SHAPE), tmp_path / "gan")
    model = generators.load(tmp_path / "gan", device="cpu")
    with pytest.raises(BadInput, match="mark some of its seeds"):
        model.scorer(Concept(name="hat", kind="attribute"))  # type: ignore[union-attr]
    with pytest.raises(BadInput, match="half precision"):
        generators.load(tmp_path / "gan", device="cpu", dtype="fp16")
    with pytest.raises(BadInput, match="carries its own shape"):
        generators.load(tmp_path / "gan", device="cpu", config=tmp_path)
    (tmp_path / "gan" / "critic.safetensors").write_bytes(b"cut")
    with pytest.raises(BadInput, match="no whole StyleGAN2"):
        generators.load(tmp_path / "gan", device="cpu")


def test_large_pictures_are_drawn_a_few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ToyGan()
    shots = [Shot(seed) for seed in range(7)]
    whole = drain(model.sample(shots, batch=32))
    monkeypatch.setattr(adapter, "PIXELS_AT_ONCE", 3 * model.shape.resolution**2)
    steps: list[Step] = []
    images = drain(model.sample(shots, batch=32), steps.append)
    assert [step.done for step in steps] == [3, 6, 7]
    torch.testing.assert_close(images, whole, atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(adapter, "PIXELS_AT_ONCE", 1)
    assert model.at_once == 1
