"""Which weights a student may change, and how unlike two images are."""

from __future__ import annotations

import torch

from erase.gan.distillation import multiscale_l1, students
from tests.toys.gan import ToyGan


def test_students_change_the_synthesis_without_its_colours_or_the_readers_alone() -> None:
    gan = ToyGan()
    drawing = set(students(gan, "synthesis", 1e-3).deltas)
    every = {name for name, _ in gan.network.named_parameters()}
    assert {name for name in every if name.startswith("synthesis.")} - drawing == {
        name for name in every if "torgb" in name
    }
    assert not any(name.startswith("mapping.") for name in drawing)
    readers = set(students(gan, "readers", 1e-3).deltas)
    assert readers == {f"{name}.{leaf}" for name in gan.readers() for leaf in ("weight", "bias")}


def test_images_are_compared_at_three_scales() -> None:
    one, other = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    other[..., ::2] = 1.0
    other[..., 1::2] = -1.0  # nothing at the coarser scales
    torch.testing.assert_close(multiscale_l1(one, other), torch.tensor(1 / 3))
    other[:] = 0.0
    other[..., :4] = 1.0  # at all of them as much
    torch.testing.assert_close(multiscale_l1(one, other), torch.tensor(0.5))
