"""What is borrowed comes back, and random streams depend on their purpose alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from erase.borrow import borrowed, substituted
from erase.errors import BadInput
from erase.rng import number, stream
from tests.toys.compare import same_bits, weights
from tests.toys.denoiser import Toy


def flags(network: nn.Module) -> list[object]:
    return [
        *(parameter.requires_grad for parameter in network.parameters()),
        *(module.training for module in network.modules()),
    ]


def test_gradients_and_modes_come_back(toy: Toy) -> None:
    names = [name for name, _ in toy.network.named_parameters()]
    toy.network.train()
    toy.network["text"].eval()
    toy.network["unet"].conv_in.weight.requires_grad_(False)
    before = flags(toy.network)
    with pytest.raises(RuntimeError, match="midway"), borrowed(toy.network, train=False, grad=names[:2]):
        known = dict(toy.network.named_parameters())
        assert [name for name in names if known[name].requires_grad] == names[:2]
        assert not any(module.training for module in toy.network.modules())
        known[names[0]].sum().backward()
        raise RuntimeError("midway")
    assert flags(toy.network) == before
    assert all(parameter.grad is None for parameter in toy.network.parameters())
    with pytest.raises(BadInput, match=r"conv_inn.*conv_in"), borrowed(toy.network, grad=["unet.conv_inn.weight"]):
        pass
    assert flags(toy.network) == before


def test_substitutes_are_seen_and_gone_again(toy: Toy) -> None:
    name = "unet.conv_out.bias"
    before, leaf = weights(toy.network), torch.ones(4, requires_grad=True)
    z, t, codes = torch.zeros(1, 4, 8, 8), torch.tensor(3), toy.encode([""])
    plain = toy.predict(z, t, codes)
    with substituted(toy.network, {name: 2 * leaf}):
        changed = toy.predict(z, t, codes)
    (gradient,) = torch.autograd.grad(changed.sum(), leaf)
    assert torch.allclose(gradient, torch.full((4,), 2.0 * 64))
    assert torch.allclose(changed - plain, 2 - toy.network["unet"].conv_out.bias[None, :, None, None], atol=1e-5)
    assert torch.equal(toy.predict(z, t, codes), plain)
    assert same_bits(before, weights(toy.network))
    assert isinstance(toy.network["unet"].conv_out.bias, nn.Parameter)


def test_a_wrong_substitute_leaves_everything_in_place(toy: Toy) -> None:
    before = dict(toy.network.named_parameters())
    right, wrong = "unet.conv_in.bias", "unet.conv_out.bias"
    with (
        pytest.raises(ValueError, match="conv_out"),
        substituted(toy.network, {right: torch.ones(8), wrong: torch.ones(3)}),
    ):
        pass
    after = dict(toy.network.named_parameters())
    assert all(after[name] is before[name] for name in before)


def test_streams_are_named() -> None:
    one = torch.rand(3, generator=stream(0, "esd", "batch", 4))
    assert torch.equal(one, torch.rand(3, generator=stream(0, "esd", "batch", 4)))
    others = [(1, "esd", "batch", 4), (0, "esd", "batch", 5), (0, "esd", "batch", "4"), (0, "esdbatch", 4)]
    assert all(not torch.equal(one, torch.rand(3, generator=stream(*other))) for other in others)
    assert number(0, "teach", 1) == 6644065178838763485  # the same on every machine
