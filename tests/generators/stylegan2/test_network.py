"""The networks against StyleGAN2 as it is written down: per-sample weights, explicit filters, explicit groups."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.stylegan2.discriminator import Conv, Critic, with_spread
from generators.stylegan2.io import files
from generators.stylegan2.network import (
    Shape,
    StyleConv,
    StyleGenerator,
    blur_kernel,
    gains,
    latents,
    noise_maps,
)

TINY = Shape(resolution=16, z_dim=6, w_dim=5, mapping_layers=2, widths={4: 8, 8: 7, 16: 4})


@pytest.fixture
def generator() -> StyleGenerator:
    torch.manual_seed(0)
    generator = StyleGenerator(TINY).requires_grad_(False)
    for conv in generator.synthesis.convs():
        conv.noise_strength.fill_(0.3)
        conv.bias.normal_()
    return generator


def fir(x: Tensor, kernel: Tensor, up: int, pad: tuple[int, int]) -> Tensor:
    """Zeros between samples, padding, then one true convolution per channel."""
    n, c, h, w = x.shape
    spaced = x.new_zeros(n, c, h * up, w * up)
    spaced[:, :, ::up, ::up] = x
    padded = F.pad(spaced, (*pad, *pad))
    return F.conv2d(padded.flatten(0, 1)[:, None], kernel.flip(0, 1)[None, None]).unflatten(0, (n, c))[:, :, 0]


def by_sample(conv: StyleConv, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
    """The paper's form: every sample has demodulated weights of its own."""
    out = []
    for k in range(len(x)):
        style = conv.affine(w[k])
        weight = conv.weight * style[None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if conv.up:
            y = F.conv_transpose2d(x[k : k + 1], weight.transpose(0, 1), stride=2)
            y = fir(y, blur_kernel() * 4, 1, (1, 1))
        else:
            y = F.conv2d(x[k : k + 1], weight, padding=1)
        y = y + conv.noise_strength * noise + conv.bias[:, None, None]
        out.append(F.leaky_relu(y, 0.2) * 2**0.5)
    return torch.cat(out)


@pytest.mark.parametrize("up", [True, False])
def test_shared_convolution_equals_per_sample_weights(up: bool) -> None:
    torch.manual_seed(1)
    conv = StyleConv(5, 6, 7, 16, up=up, clamp=None)
    nn.init.normal_(conv.bias)
    nn.init.constant_(conv.noise_strength, 0.5)
    x, w = torch.randn(3, 6, 8 if up else 16, 8 if up else 16), torch.randn(3, 5)
    torch.testing.assert_close(
        conv(x, w, conv.noise_const), by_sample(conv, x, w, conv.noise_const), atol=2e-5, rtol=1e-4
    )


@pytest.mark.parametrize("size", [3, 1])
def test_strided_convolution_filters_first(size: int) -> None:
    torch.manual_seed(2)
    conv, x = Conv(5, 6, size, down=True, bias=False), torch.randn(2, 5, 16, 16)
    pad = 2 if size == 3 else 1
    expected = F.conv2d(fir(x, blur_kernel(), 1, (pad, pad)), conv.weight, stride=2)
    torch.testing.assert_close(conv(x), expected, atol=1e-5, rtol=1e-4)


def test_running_image_is_upsampled_by_the_filter(generator: StyleGenerator) -> None:
    synthesis = generator.synthesis
    ws = generator.mapping(latents([3], TINY.z_dim))
    x = synthesis.block(4).const[None]
    image: Tensor | None = None
    for k, resolution in enumerate(TINY.resolutions):
        block = synthesis.block(resolution)
        if block.conv0 is not None:
            x = by_sample(block.conv0, x, ws[:, 2 * k - 1], block.conv0.noise_const)
        x = by_sample(block.conv1, x, ws[:, 2 * k], block.conv1.noise_const)
        rgb = block.torgb(x, ws[:, 2 * k + 1])
        image = rgb if image is None else rgb + fir(image, blur_kernel() * 4, 2, (2, 1))
    torch.testing.assert_close(synthesis(ws), image, atol=1e-4, rtol=1e-3)


def test_shapes_and_nvlabs_names(generator: StyleGenerator) -> None:
    assert TINY.num_ws == 6
    assert generator(latents(range(3), 6)).shape == (3, 3, 16, 16)
    assert Critic(TINY)(torch.randn(5, 3, 16, 16)).shape == (5,)
    names = {name.removeprefix("synthesis.b16.") for name in generator.state_dict() if "b16" in name}
    conv = {"weight", "bias", "affine.weight", "affine.bias", "noise_strength", "noise_const"}
    expected = {f"{c}.{n}" for c in ("conv0", "conv1") for n in conv}
    assert names == expected | {f"torgb.{n}" for n in ("weight", "bias", "affine.weight", "affine.bias")}
    assert {"mapping.fc1.bias", "mapping.w_avg", "synthesis.b4.const"} <= set(generator.state_dict())
    below = {name.split(".", 1)[1] for name in Critic(TINY).state_dict() if name.startswith("b16.")}
    assert below == {
        "fromrgb.weight",
        "fromrgb.bias",
        "conv0.weight",
        "conv0.bias",
        "conv1.weight",
        "conv1.bias",
        "skip.weight",
    }
    assert set(gains(generator)) == {name for name, _ in generator.named_parameters()}


def test_real_size_fits_the_shipped_budget() -> None:
    shape = Shape()
    count = sum(p.numel() for network in (StyleGenerator(shape), Critic(shape)) for p in network.parameters())
    assert count * 2 < 14e6


def test_a_seed_draws_its_image_in_any_batch(generator: StyleGenerator) -> None:
    together = generator(latents(range(7), 6))
    alone = generator(latents([4], 6))
    torch.testing.assert_close(together[4:5], alone, atol=1e-5, rtol=1e-5)
    assert (together[4] - together[5]).abs().max() > 0.05
    ws = generator.mapping(latents([4, 5], 6))
    seeded = generator.synthesis(ws, noise_maps(generator.synthesis, [40, 41]))
    again = generator.synthesis(ws[1:], noise_maps(generator.synthesis, [41]))
    torch.testing.assert_close(seeded[1:], again, atol=1e-5, rtol=1e-5)
    assert (seeded - generator.synthesis(ws, "const")).abs().max() > 0.01
    assert (generator.synthesis(ws, "none") - generator.synthesis(ws, "const")).abs().max() > 0.01


def test_no_truncation_left_is_one_face(generator: StyleGenerator) -> None:
    generator.mapping.w_avg.normal_()
    average = generator(latents(range(3), 6), psi=0.0)
    torch.testing.assert_close(average[0], average[2])
    half = generator.mapping(latents([1], 6), psi=0.5)
    full = generator.mapping(latents([1], 6))
    torch.testing.assert_close(half, (full + generator.mapping.w_avg) / 2)


def test_demodulation_cancels_the_scale_of_a_layer(generator: StyleGenerator) -> None:
    before = generator(latents([0], 6))
    generator.synthesis.block(8).conv1.weight.mul_(5)
    torch.testing.assert_close(generator(latents([0], 6)), before, atol=1e-4, rtol=1e-4)
    generator.synthesis.block(8).torgb.weight.mul_(5)
    assert (generator(latents([0], 6)) - before).abs().max() > 0.1


def test_spread_groups_are_strided() -> None:
    x = torch.randn(6, 2, 4, 4)
    out = with_spread(x, 4)  # six samples: groups of three, sample j in group j mod 2
    for j in range(6):
        mates = x[[i for i in range(6) if i % 2 == j % 2]]
        spread = (mates.var(0, unbiased=False) + 1e-8).sqrt().mean()
        torch.testing.assert_close(out[j, 2], spread.expand(4, 4))
    assert out[0, 2, 0, 0] != out[1, 2, 0, 0]


def test_files_come_back_with_their_header(generator: StyleGenerator, tmp_path: Path) -> None:
    path = tmp_path / "new" / "generator.safetensors"
    files.save(path, generator, {"steps": 3})
    loaded, about = files.load_generator(path)
    assert about["steps"] == 3
    assert loaded.shape == TINY
    torch.testing.assert_close(loaded(latents([1], 6)), generator(latents([1], 6)), atol=0.02, rtol=0.02)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with pytest.raises(ValueError, match="not a critic"):
        files.load_critic(path)
