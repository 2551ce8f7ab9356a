"""The noise path: what a prediction means on it, for ε and for a flow model's velocity."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from erase.noise import NoisePath

SCHEDULE = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=True)
PATHS = {"noise": NoisePath.diffusion(SCHEDULE.alphas_cumprod), "velocity": NoisePath.flow(1000)}
T = torch.tensor([3, 480, 998])


def pair() -> tuple[Tensor, Tensor]:
    return tuple(torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64))  # type: ignore[return-value]


@pytest.mark.parametrize("kind", PATHS)
def test_a_perfect_prediction_gives_back_both_ends(kind: str) -> None:
    path, (z0, noise) = PATHS[kind], pair()
    z = path.add_noise(z0, noise, T)
    said = path.target(z0, noise)
    assert (path.to_clean(said, z, T) - z0).abs().max() < 1e-9
    assert (path.to_noise(said, z, T) - noise).abs().max() < 1e-9


@pytest.mark.parametrize("kind", PATHS)
def test_a_step_with_a_perfect_prediction_stays_on_the_path(kind: str) -> None:
    path, (z0, noise) = PATHS[kind], pair()
    said = path.target(z0, noise)
    far = path.add_noise(z0, noise, torch.tensor(700))
    assert (path.step(said, far, 700, 120) - path.add_noise(z0, noise, torch.tensor(120))).abs().max() < 1e-9
    assert (path.step(said, far, 700, None) - z0).abs().max() < 1e-9


def test_a_flow_step_is_euler_s() -> None:
    path, (z, said) = PATHS["velocity"], pair()
    expected = z + (path.noise[120] - path.noise[700]) * said
    assert (path.step(said, z, 700, 120) - expected).abs().max() < 1e-12


def test_a_diffusion_step_is_ddim_s() -> None:
    scheduler = DDIMScheduler.from_config(SCHEDULE.config)
    scheduler.set_timesteps(50)
    z, said = pair()
    expected = scheduler.step(said, 701 - 1, z, eta=0.0).prev_sample
    assert (PATHS["noise"].step(said, z, 700, 680) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_times_are_where_the_sampler_spends_its_steps(shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=[1 - step / 20 for step in range(20)])
    path = NoisePath.flow(1000, shift)
    sampled = [float(path.noise[t]) for t in path.grid(20)]
    assert sampled == pytest.approx(scheduler.sigmas[:20].tolist(), abs=6e-4)
    spread = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    heard = path.noise[path.times(spread)].quantile(torch.linspace(0.05, 0.95, 19, dtype=torch.float64))
    assert heard.tolist() == pytest.approx(sorted(scheduler.sigmas[1:20].tolist()), abs=2e-3)


def test_without_a_shift_times_are_even() -> None:
    spread = torch.tensor([0.0, 0.5, 0.9999999], dtype=torch.float64)
    assert PATHS["noise"].times(spread).tolist() == [0, 500, 999]
    assert PATHS["noise"].grid(50)[:3] == [999, 979, 959]
