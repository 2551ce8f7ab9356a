"""What tests of attacks share: the toy model as a target, and a probe that says what the test wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.attacks.engine import AttackTarget
from benchmarks.probes.base import Seen
from benchmarks.suites.prompts import Row
from benchmarks.suites.suite import Target
from erase.edit import Edit
from erase.model import Denoiser
from erase.work import drain
from tests.benchmarks.doubles import TINY

GOGH = Target("style", "Van_Gogh")


class Says:
    """A probe that sees Van Gogh where `shows` says so, told how many pictures it has read before, and the picture."""

    name, version, sha256 = "says", "1", "1" * 64
    held_out = {"style": 1.0}
    styles, objects = TINY.styles, TINY.objects

    def __init__(self, shows: Callable[[int, Tensor], bool] = lambda number, image: False) -> None:
        self.shows, self.shown = shows, 0

    def __call__(self, images: Tensor) -> Seen:
        seen = torch.zeros(len(images), len(self.styles))
        for place, image in enumerate(images):
            seen[place, self.styles.index("Van_Gogh") if self.shows(self.shown, image) else 0] = 1
            self.shown += 1
        return Seen(seen, torch.ones(len(images), len(self.objects)), images.flatten(1)[:, :4])


def rows(count: int) -> list[Row]:
    """Prompts that all name Van Gogh, each with its own seed."""
    things = ("cats", "dogs", "a green sea", "one tower by night")
    return [Row(str(n), f"{things[n % len(things)]} in Van Gogh style", 100 + n) for n in range(count)]


def aim_at(model: Denoiser, some: Sequence[Row], edit: Edit | None = None, **changes: object) -> AttackTarget:
    """An aim whose clean pictures are the model's own."""
    aim = AttackTarget(model, edit, 1.0, GOGH, TINY, Says(), **changes)  # type: ignore[arg-type]
    for row in some:
        aim.clean[row] = drain(model.latents([row.shot]))[0]
    return aim
