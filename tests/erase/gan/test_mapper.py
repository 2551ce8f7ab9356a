"""StyleCLIP's latent mapper: its step and its loss, written out."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from erase.gan.distillation import drawn_codes, layered
from erase.gan.mapper import Lesson
from erase.rng import stream
from tests.toys.gan import Pixels, ToyGan


def test_a_step_of_the_mapper_is_styleclip_s() -> None:
    gan, eye = ToyGan(), Pixels()
    w = drawn_codes(gan, range(20))
    words = torch.randn(12, generator=stream(0, "words"))
    lesson = Lesson(gan, eye, w, words, 3)
    told = lesson.one(5)
    codes = w[torch.randint(20, (8,), generator=stream(3, "mapper", 5))]
    x = codes / codes.square().mean(1, keepdim=True).sqrt()
    layers = [layer for layer in lesson.mapper.parts[0] if hasattr(layer, "weight")]  # type: ignore[arg-type]
    assert len(layers) == 4 and len(lesson.mapper.parts) == 1  # this network has no middle and no fine layers
    for layer in layers:
        x = F.leaky_relu(x @ layer.weight.T + layer.bias, 0.2)
    move = 0.1 * x[:, None]
    with torch.no_grad():
        seen = eye.images(gan.synthesis(layered(gan, codes) + move) / 2 + 0.5)
    loss = (1 - seen @ F.normalize(words, dim=0)).mean()
    torch.testing.assert_close(torch.tensor(told["words"]), loss)
    torch.testing.assert_close(torch.tensor(told["near"]), 0.8 * move.square().mean(), rtol=1e-4, atol=1e-9)
