"""Losses, penalties, folded Adam, the average, and going on exactly where a run stopped."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from erase.gan.adversarial import critic_loss, generator_loss, path_lengths, r1_penalty
from generators.stylegan2.discriminator import Critic
from generators.stylegan2.network import Shape, StyleGenerator
from generators.stylegan2.training import (
    Recipe,
    Run,
    adam,
    average_w,
)

TINY = Shape(resolution=8, z_dim=4, w_dim=4, mapping_layers=2, widths={4: 6, 8: 4})
RECIPE = Recipe(batch=4, r1_every=2, path_every=2)


def begun(seed: int = 0) -> Run:
    torch.manual_seed(seed)
    return Run(StyleGenerator(TINY), Critic(TINY), RECIPE, seed)


def real(count: int) -> Tensor:
    return torch.linspace(-1, 1, count * 3 * 64).reshape(count, 3, 8, 8)


def test_losses_are_the_logistic_ones() -> None:
    real_logit, fake_logit = torch.tensor([2.0]), torch.tensor([-1.0])
    assert generator_loss(fake_logit).item() == pytest.approx(math.log(1 + math.e))
    assert critic_loss(real_logit, fake_logit).item() == pytest.approx(
        math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))
    )


def test_r1_of_a_linear_critic_is_half_its_squared_slope() -> None:
    slope = torch.randn(3, 8, 8)

    class Linear(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return (images * slope).sum((1, 2, 3))

    penalty = r1_penalty(Linear(), torch.randn(5, 3, 8, 8))
    torch.testing.assert_close(penalty, slope.square().sum() / 2)


def test_r1_teaches_the_critic_by_its_true_gradient() -> None:
    torch.manual_seed(3)
    critic, images = Critic(TINY).double(), torch.randn(4, 3, 8, 8).double()
    weight, place = critic.b4.conv.weight, (0, 1, 1, 1)
    (slope,) = torch.autograd.grad(r1_penalty(critic, images), weight)

    def moved(by: float) -> Tensor:
        with torch.no_grad():
            weight[place] += by
        return r1_penalty(critic, images)

    above, below = moved(1e-5), moved(-2e-5)
    assert slope[place].item() == pytest.approx(((above - below) / 2e-5).item(), rel=1e-4)


def test_path_length_of_a_linear_picture() -> None:
    basis, y = torch.randn(5, 3 * 16), torch.randn(2, 3, 4, 4)
    ws = torch.randn(2, 7, 5, requires_grad=True)
    images = (ws.sum(1) @ basis).reshape(2, 3, 4, 4)
    expected = (y.flatten(1) @ basis.T).norm(dim=1)
    torch.testing.assert_close(path_lengths(images, ws, y), expected)


def test_folded_adam_trains_as_the_unfolded_network() -> None:
    torch.manual_seed(4)
    gain = 0.01 / math.sqrt(4)
    folded = StyleGenerator(TINY).double().mapping
    unfolded = folded.fc0.weight.detach() / gain
    unfolded.requires_grad_(True)
    share = 4 / 5
    plain = torch.optim.Adam([unfolded], lr=0.002 * share, betas=(0.0, 0.99**share), eps=1e-8)
    ours = adam(folded, 0.002, 4)
    x = torch.randn(9, 4).double()
    for _ in range(20):
        for optimiser, weight in ((plain, unfolded * gain), (ours, folded.fc0.weight)):
            loss = (x @ weight.T - x.roll(1, 1)).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    assert (folded.fc0.weight - unfolded * gain).abs().max() < 1e-10
    assert (folded.fc0.weight - unfolded).abs().max() > 1e-3  # the two are not the same tensor


def test_each_step_moves_only_its_own_network() -> None:
    run = begun()
    pieces = run.pieces(real)
    for name, moves in (
        ("critic_step", run.critic), ("critic_penalty", run.critic),
        ("generator_step", run.generator), ("generator_penalty", run.generator),
    ):  # fmt: skip
        before = {
            key: copy.deepcopy(network.state_dict()) for key, network in (("g", run.generator), ("c", run.critic))
        }
        pieces[name]()
        for key, network in (("g", run.generator), ("c", run.critic)):
            same = all(torch.equal(before[key][k], v) for k, v in network.state_dict().items())
            assert same == (network is not moves), (name, key)
        assert all(p.grad is None for p in [*run.generator.parameters(), *run.critic.parameters()])


def test_the_average_forgets_half_in_its_half_life() -> None:
    run = begun()
    run.recipe = Recipe(batch=4, half_life=40)
    run.steps = 10_000  # long past the warm-up of the memory
    start = run.average.synthesis.block(4).const.clone()
    with torch.no_grad():
        for parameter in run.generator.parameters():
            parameter.add_(1.0)
    for _ in range(10):
        run.follow()
    torch.testing.assert_close(run.average.synthesis.block(4).const, start + 0.5, atol=1e-4, rtol=1e-4)


def test_a_resumed_run_ends_where_the_unbroken_one_does() -> None:
    unbroken = begun()
    pieces = unbroken.pieces(real)
    for _ in range(3):
        unbroken.step(pieces)
    state = unbroken.state()
    for _ in range(3):
        unbroken.step(pieces)

    resumed = begun(seed=9)
    resumed.restore(state)
    for _ in range(3):
        resumed.step(resumed.pieces(real))
    end, again = unbroken.state(), resumed.state()
    assert resumed.steps == 6
    assert set(end) == set(again)
    assert all(torch.equal(end[key], again[key]) for key in end)
    assert any(not torch.equal(end[key], state[key]) for key in end if key.startswith("average."))


def test_training_separates_and_averages() -> None:
    run = begun()
    fixed = average_w(run.average, 500)
    assert torch.equal(fixed, average_w(run.average, 500))
    torch.testing.assert_close(fixed, average_w(run.average, 500, seed=1), atol=0.2, rtol=0)
    losses = torch.stack([run.critic_step(real(4))["critic"] for _ in range(100)])
    assert losses[-10:].mean() < 0.8 * losses[:10].mean()
