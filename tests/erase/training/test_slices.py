"""Slices on the real Stable Diffusion 1.5 shape, built without memory on the meta device."""

from __future__ import annotations

from math import prod

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from erase.errors import BadInput
from erase.training.slices import select
from tests.toys.denoiser import Toy


@pytest.fixture(scope="module")
def sd15() -> nn.Module:
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        text = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=768,
                intermediate_size=3072,
                num_hidden_layers=12,
                num_attention_heads=12,
                projection_dim=768,
            )
        )
    return nn.ModuleDict({"unet": unet, "text": text})


def count(network: nn.Module, slice: str) -> int:
    known = dict(network.named_parameters())
    return sum(prod(known[name].shape) for name in select(network, slice))


@pytest.mark.parametrize(
    ("slice", "numbers"),
    [
        ("kv", 19_169_280),
        ("cross", 43_962_560),
        ("attention", 93_536_640),
        ("not_cross", 815_358_084),
        ("full", 859_520_964),
        ("text", 85_056_000),
        ("text[0]", 7_087_872),
        ("text[0..2]", 3 * 7_087_872),
    ],
)
def test_counts_of_stable_diffusion_1(sd15: nn.Module, slice: str, numbers: int) -> None:
    assert count(sd15, slice) == numbers


def test_whole_path_components_only(sd15: nn.Module) -> None:
    assert len(select(sd15, "kv")) == 32
    layers = {name.split(".layers.")[1].split(".")[0] for name in select(sd15, "text[1]")}
    assert layers == {"1"}  # and not 10 and 11
    assert not set(select(sd15, "cross")) & set(select(sd15, "not_cross"))
    assert not any("embedding" in name for name in select(sd15, "text"))


def test_every_reader_is_in_kv(toy: Toy) -> None:
    assert {f"{name}.weight" for name in toy.readers()} == set(select(toy.network, "kv"))


def test_a_wrong_slice_is_answered_with_the_nearest(toy: Toy) -> None:
    with pytest.raises(BadInput, match=r"'crosss'.*'cross'"):
        select(toy.network, "crosss")
    with pytest.raises(BadInput, match="holds no parameter"):
        select(toy.network, "text[7]")
