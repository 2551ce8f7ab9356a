"""A generator and a critic of two numbers each in training: every gradient written out by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from erase.gan.adversarial import GanSettings, GanTrainer
from erase.rng import stream
from tests.toys.gan import ToyGan

A, B, C, D = 0.7, -1.3, 0.4, 0.9  # the generator's numbers, and the critic's
SIDE = 2
PIXELS = 3 * SIDE * SIDE


class Pair(nn.Module):
    """Two numbers by name, and what is made of them."""

    def __init__(self, one: str, other: str, values: tuple[float, float], made: Callable[..., Tensor]) -> None:
        super().__init__()
        self.names, self.made = (one, other), made
        for name, value in zip(self.names, values, strict=True):
            self.register_parameter(name, nn.Parameter(torch.tensor(value)))

    def forward(self, *given: Tensor) -> Tensor:
        return self.made(*(getattr(self, name) for name in self.names), *given)


class Two:
    """w = a·z, all pixels b·w plus noise; the critic says c·mean + d·mean square. What was drawn stays in `drawn`."""

    z_dim, device = 1, torch.device("cpu")
    gains, critic_gains = {"a": 1.0, "b": 1.0}, {"c": 1.0, "d": 1.0}

    def __init__(self) -> None:
        self.network = Pair("a", "b", (A, B), lambda a, b, z: b * (a * z))
        self.critic = Pair("c", "d", (C, D), lambda c, d, x: c * x.mean((1, 2, 3)) + d * x.square().mean((1, 2, 3)))
        self.drawn: list[dict[str, Any]] = []

    def mapping(self, z: Tensor) -> Tensor:
        return (self.network.a * z)[:, None]

    def fresh_noise(self, count: int, rng: torch.Generator) -> list[Tensor]:
        noise = torch.randn(count, 3, SIDE, SIDE, generator=rng)
        self.drawn.append({"noise": noise, "then": rng.get_state()})
        return [noise]

    def synthesis(self, ws: Tensor, noise: list[Tensor]) -> Tensor:
        images = (self.network.b * ws[:, 0, :, None, None] + 0.1 * noise[0]).expand(-1, 3, SIDE, SIDE)
        self.drawn[-1] |= {"w": ws[:, 0, 0].detach(), "x": images.detach()}
        return images


def real(chosen: Tensor) -> Tensor:
    return (chosen[:, None, None, None] + torch.linspace(-1, 1, PIXELS).view(1, 3, SIDE, SIDE)).detach()


def trained(number: int, more: Any = None, **settings: float) -> tuple[Two, dict[str, list[Mapping[str, Tensor]]]]:
    """The gradients of each network's steps in one step of the pair, which leave the numbers as they are."""
    gan = Two()
    asked = {"lr": 0.1, "batch": 4, "half_life": 4, "r1": 0.5, "path": 3.0, **settings}
    pair = GanTrainer(gan, real, GanSettings(**asked), ("test",), 0)  # type: ignore[arg-type]
    seen: dict[str, list[Mapping[str, Tensor]]] = {"generator": [], "critic": []}
    for side in seen:
        getattr(pair, side).descend = seen[side].append
    pair.step(number, more)
    return gan, seen


def said(x: Tensor) -> Tensor:
    return C * x.mean((1, 2, 3)) + D * x.square().mean((1, 2, 3))


def test_the_critic_climbs_on_real_pictures_and_falls_on_fakes() -> None:
    gan, seen = trained(1)
    x, y = real(torch.rand(4, generator=stream(0, "test", 1))), gan.drawn[0]["x"]
    # d/dD of softplus(−D) is −σ(−D), of softplus(D) it is σ(D); dD/dc is the mean, dD/dd the mean square.
    on_real, on_fake = -torch.sigmoid(-said(x)), torch.sigmoid(said(y))
    (gradient,) = seen["critic"]
    expected = [(on_real * power(x)).mean() + (on_fake * power(y)).mean() for power in (mean, mean_square)]
    torch.testing.assert_close(torch.stack([gradient["c"], gradient["d"]]), torch.stack(expected))


def test_r1_is_taken_on_real_pictures_and_makes_up_for_the_steps_without_it() -> None:
    _, seen = trained(16)
    x = real(torch.rand(4, generator=stream(0, "test", 16)))
    slope = C + 2 * D * x  # times 1/P, by each pixel
    gradient = seen["critic"][1]
    weight = 0.5 * 16 / PIXELS**2
    torch.testing.assert_close(gradient["c"], weight * slope.sum((1, 2, 3)).mean())
    torch.testing.assert_close(gradient["d"], weight * (slope * 2 * x).sum((1, 2, 3)).mean())
    assert [len(trained(number)[1]["critic"]) for number in (0, 1, 15, 16)] == [2, 1, 1, 2]
    assert len(trained(0, r1=0.0)[1]["critic"]) == 1


def test_the_generator_falls_where_its_pictures_pass_for_real_and_along_what_is_added() -> None:
    gan, seen = trained(1, lambda deltas: {"more": 5 * deltas["a"] - 2 * deltas["b"]})
    w, x = gan.drawn[1]["w"], gan.drawn[1]["x"]
    z = w / A
    by_picture = -torch.sigmoid(-said(x)) * (C + 2 * D * x).mean((1, 2, 3))  # dL/dx summed over pixels, times n
    (gradient,) = seen["generator"]
    torch.testing.assert_close(gradient["a"], (by_picture * B * z).mean() + 5)
    torch.testing.assert_close(gradient["b"], (by_picture * w).mean() - 2)


def test_the_path_penalty_makes_up_for_the_steps_without_it() -> None:
    gan, seen = trained(8)
    assert len(gan.drawn[2]["x"]) == 2  # half a batch
    then = torch.Generator()
    then.set_state(gan.drawn[2]["then"])
    y = torch.randn(2, 3, SIDE, SIDE, generator=then) / SIDE
    along = y.sum((1, 2, 3)).abs()
    lengths = abs(B) * along
    away = lengths - 0.01 * lengths.mean()  # the mean so far is nothing, and a hundredth of the way to this one
    gradient = seen["generator"][1]
    torch.testing.assert_close(gradient["b"], 3.0 * 8 * (2 * away * along * -1.0).mean())
    assert float(gradient["a"]) == 0.0
    assert [len(trained(number)[1]["generator"]) for number in (0, 1, 7, 8)] == [2, 1, 1, 2]


def test_the_first_path_length_is_the_mean_of_the_first_step() -> None:
    gan, seen = trained(0)
    then = torch.Generator()
    then.set_state(gan.drawn[2]["then"])
    along = (torch.randn(2, 3, SIDE, SIDE, generator=then) / SIDE).sum((1, 2, 3)).abs()
    away = abs(B) * (along - along.mean())
    torch.testing.assert_close(seen["generator"][1]["b"], -3.0 * 8 * (2 * away * along).mean())


def test_the_average_is_half_way_after_its_half_life() -> None:
    gan = Two()
    pair = GanTrainer(gan, real, GanSettings(0.1, 4, 4, 0.0, 0.0), ("test",), 0)  # type: ignore[arg-type]

    def moved(gradients: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for delta in pair.generator.deltas.values():
                delta.fill_(1.0)

    pair.generator.descend = moved  # type: ignore[method-assign]
    shares = []
    for number in range(4):
        pair.step(number)
        shares.append(float(pair.average["a"]))
    assert shares == pytest.approx([1 - 0.5 ** (number / 4) for number in (1, 2, 3, 4)])
    assert shares[-1] == pytest.approx(0.5) == pytest.approx(float(pair.average["b"]))


def test_the_critic_sees_the_generator_as_it_has_become() -> None:
    gan = Two()
    pair = GanTrainer(gan, real, GanSettings(0.1, 4, 4, 0.0, 0.0), ("test",), 0)  # type: ignore[arg-type]
    with torch.no_grad():
        pair.generator.deltas["a"].fill_(1.0)
    pair.step(0)
    first = torch.randn(2, 4, 1, generator=_after_the_real_ones())[0, :, 0]
    torch.testing.assert_close(gan.drawn[0]["w"], (A + 1) * first)
    assert float(gan.network.a.detach()) == pytest.approx(A)


def test_fakes_mix_the_styles_of_two_codes_at_a_layer() -> None:
    gan, mixed = ToyGan(), 0
    pair = GanTrainer(gan, real, GanSettings(0.1, 4, 4, 0.0, 0.0), ("test",), 0)
    for number in range(6):
        with torch.no_grad():
            _, ws = pair.fakes(stream(0, "fakes", number), 2)
            one, other = gan.mapping(torch.randn(2, 2, 6, generator=stream(0, "fakes", number)).flatten(0, 1)).chunk(2)
        own = [bool(torch.equal(ws[:, layer], one[:, layer])) for layer in range(ws.shape[1])]
        second = [bool(torch.equal(ws[:, layer], other[:, layer])) for layer in range(ws.shape[1])]
        assert own[0] and own == sorted(own, reverse=True)
        assert second == [not first for first in own]
        mixed += not all(own)
    assert mixed >= 4


def _after_the_real_ones() -> torch.Generator:
    rng = stream(0, "test", 0)
    torch.rand(4, generator=rng)
    return rng


def mean(x: Tensor) -> Tensor:
    return x.mean((1, 2, 3))


def mean_square(x: Tensor) -> Tensor:
    return x.square().mean((1, 2, 3))
