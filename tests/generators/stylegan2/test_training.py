"""Losses, penalties, folded Adam, the average, and going on exactly where a run stopped."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from erase.gan.adversarial import critic_loss, generator_loss, path_lengths, r1_penalty
from generators.stylegan2 import training
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


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[nn.Module, Tensor]]:
    """Each network with the loss of its step, which is not made."""
    seen: list[tuple[nn.Module, Tensor]] = []
    monkeypatch.setattr(training, "_update", lambda network, optimiser, loss: seen.append((network, loss)))
    return seen


def again(run: Run, before: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The pictures and ws that a run drew first after this state of its draws."""
    run.draws.set_state(before)
    return run.fakes(count, torch.float32)


def test_the_critic_is_taught_real_from_fake(steps: list[tuple[nn.Module, Tensor]]) -> None:
    run, shown = begun(), real(4)
    before = run.draws.get_state()
    run.critic_step(shown)
    fakes, _ = again(run, before, 4)
    told, fooled = run.critic(shown), run.critic(fakes)
    expected = (1 + (-told).exp()).log().mean() + (1 + fooled.exp()).log().mean()
    (network, loss), *more = steps
    assert network is run.critic and not more
    torch.testing.assert_close(loss, expected)
    leaves = list(run.critic.parameters())
    for one, other in zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(one, other)


def test_r1_of_a_run_is_on_real_pictures_and_for_all_steps_of_its_interval(
    steps: list[tuple[nn.Module, Tensor]],
) -> None:
    run, shown = begun(), real(4).requires_grad_(True)
    run.recipe = Recipe(batch=4, r1=0.3, r1_every=5)
    run.critic_penalty(shown)
    (slope,) = torch.autograd.grad(run.critic(shown).sum(), shown)
    ((network, loss),) = steps
    assert network is run.critic
    torch.testing.assert_close(loss, 0.3 * 5 * slope.square().sum() / 4 / 2)


def test_the_generator_is_taught_to_pass_for_real(steps: list[tuple[nn.Module, Tensor]]) -> None:
    run = begun()
    for beside in (None, lambda generator: generator.synthesis.block(4).const.square().sum()):
        run.beside = beside
        before = run.draws.get_state()
        run.generator_step()
        fakes, _ = again(run, before, 4)
        expected = (1 + (-run.critic(fakes)).exp()).log().mean() + (beside(run.generator) if beside else 0)
        network, loss = steps.pop()
        assert network is run.generator
        torch.testing.assert_close(loss, expected)


def test_path_length_of_a_run_is_for_all_steps_of_its_interval(steps: list[tuple[nn.Module, Tensor]]) -> None:
    run = begun()
    run.recipe = Recipe(batch=4, path=1.5, path_every=3)
    run.path_mean.fill_(0.2)
    before = run.draws.get_state()
    run.generator_penalty()
    fakes, ws = again(run, before, 2)
    y = torch.randn(fakes.shape, generator=run.draws) / 8
    (slope,) = torch.autograd.grad((fakes * y).sum(), ws)
    lengths = slope.square().sum(2).mean(1).sqrt()
    mean = 0.99 * 0.2 + 0.01 * lengths.mean()
    ((network, loss),) = steps
    assert network is run.generator
    torch.testing.assert_close(loss, 1.5 * 3 * (lengths - mean).square().mean())
    torch.testing.assert_close(run.path_mean, mean)


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
