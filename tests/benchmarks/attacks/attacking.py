"""What tests of attacks share: the toy model as a target, and a probe that says what the test wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.attacks.engine import AttackTarget
from benchmarks.probes.base import Seen
from benchmarks.suites.prompts import Row
from benchmarks.suites.suite import Target
from erase.edit import Edit
from erase.model import Codes, Denoiser, Shot
from erase.noise import NoisePath
from erase.rng import stream
from erase.work import Work, drain
from tests.benchmarks.doubles import TINY
from tests.toys.denoiser import Toy

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


def shaken(toy: Toy, size: float = 0.05) -> Edit:
    """An edit that changes every cross-attention a little."""
    names = [f"{name}.weight" for name in toy.readers()]
    shapes = dict(toy.network.named_parameters())
    deltas = {name: size * torch.randn(shapes[name].shape, generator=stream(0, name)) for name in names}
    return Edit(deltas, {"method": "shaken", "concepts": [{"name": "Van Gogh"}]})


@dataclass(frozen=True)
class Asked:
    """One call of a denoiser: latents, a time for each, codes, whether an edit was on, and its answer."""

    z: Tensor
    times: list[int]
    codes: Tensor
    edited: bool
    said: Tensor


class ListeningPath(NoisePath):
    """A path that tells what it is to add noise to."""

    def __init__(self, signal: Tensor, noise: Tensor, note: Callable[[Tensor, Tensor, Tensor], None]) -> None:
        super().__init__(signal, noise)
        object.__setattr__(self, "note", note)

    def add_noise(self, z0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        self.note(z0, noise, t)  # type: ignore[attr-defined]
        return super().add_noise(z0, noise, t)


class Listener(Toy):
    """A toy that keeps what it is asked: pictures to be noised, predictions, and shots to be drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.path = ListeningPath(self.path.signal, self.path.noise, self.noted)
        self._plain = next(iter(self.readers().values())).weight.detach().clone()
        self.forget()

    def forget(self) -> None:
        self.noised: list[tuple[Tensor, Tensor, list[int]]] = []
        self.asked: list[Asked] = []
        self.drawn: list[tuple[Sequence[Shot], bool, Tensor]] = []

    @property
    def edited(self) -> bool:
        return not torch.equal(next(iter(self.readers().values())).weight, self._plain)

    def noted(self, z0: Tensor, noise: Tensor, t: Tensor) -> None:
        self.noised.append((z0, noise, t.expand(len(z0)).tolist()))

    def predict(self, z: Tensor, t: Tensor, codes: Codes) -> Tensor:
        said = super().predict(z, t, codes)
        times = t.expand(len(z)).tolist()
        self.asked.append(Asked(z.detach(), times, codes.tokens.detach(), self.edited, said.detach()))
        return said

    def latents(self, shots: Sequence[Shot], **how: Any) -> Work[Tensor]:
        edited = self.edited
        found = yield from super().latents(shots, **how)
        self.drawn.append((shots, edited, found))
        return found
