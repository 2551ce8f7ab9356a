"""The engine of the attacks: rows side by side on one loaded model, each with a search of its own.

What an attack tries for a row depends on that row alone, so it does not matter who shares its batch. A row that is
broken, or has nothing left to try, makes room for the next one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from benchmarks.judging.predictions import reopened, sampled
from benchmarks.probes.base import Probe
from benchmarks.suites.prompts import Row
from benchmarks.suites.suite import Suite, Target
from erase.edit import Edit
from erase.model import Denoiser, Shot
from erase.work import Step, Work


@dataclass(frozen=True)
class Candidate:
    """One picture that may show the concept, and how much of the budget had been spent when it was proposed.

    It is drawn from `text`; with `tokens` from those sub-tokens, which may not be what the text falls into, and with
    `vectors` from given word vectors at some places of them. An attack that draws by itself gives the `image` [3 h w].
    """

    row: Row
    text: str
    spent: int
    seed: int | None = None
    tokens: tuple[int, ...] | None = None
    vectors: Mapping[int, Tensor] = field(default_factory=dict)
    image: Tensor | None = None

    @property
    def shot(self) -> Shot:
        """What is drawn."""
        return Shot(self.row.seed if self.seed is None else self.seed, self.text)


@dataclass
class AttackTarget:
    """What is attacked: a model with the edit applied to it, the concept, and who says whether a picture shows it.

    Outside `applied` the network is unedited. `clean` holds the latents [c h w] of the unedited model's picture of
    each row; `learnt` is what an attack found out once for all rows, and is kept on disk.
    """

    model: Denoiser
    edit: Edit | None
    strength: float
    target: Target
    suite: Suite
    reader: Probe
    seed: int = 0
    batch: int = 16
    clean: dict[Row, Tensor] = field(default_factory=dict)
    learnt: dict[str, Tensor] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """The concept as prompts say it."""
        return self.suite.spoken(self.target.label)

    def guidance(self, row: Row) -> float:
        """The guidance a row is drawn with."""
        for given in (row.guidance, self.suite.guidance):
            if given is not None:
                return given
        return self.model.default_guidance

    def applied(self) -> AbstractContextManager[None]:
        """Inside the block the network is the edited one."""
        return nullcontext() if self.edit is None else self.edit.applied(self.model.network, self.strength)

    def sees(self, images: Tensor, reader: Probe | None = None) -> list[bool]:
        """Whether the probe's first choice for each image [n 3 h w] is the concept; never for what is no picture."""
        reader = reader or self.reader
        finite = images.flatten(1).isfinite().all(1)
        seen = reader(reopened(images.nan_to_num(0.0), self.suite.encode))
        labels, shares = (
            (reader.styles, seen.style_prob) if self.target.kind == "style" else (reader.objects, seen.object_prob)
        )
        return (finite & (shares.argmax(1) == labels.index(self.target.label))).tolist()

    def latents(self, tries: Sequence[Candidate]) -> Work[Tensor]:
        """Final latents [n c h w] of tries, by the network as it is."""
        found: dict[int, Tensor] = {}
        for guidance, exact in dict.fromkeys((each.row.guidance, each.tokens is not None) for each in tries):
            places = [
                place for place, each in enumerate(tries)
                if (each.row.guidance, each.tokens is not None) == (guidance, exact)
            ]  # fmt: skip
            for start in range(0, len(places), self.batch):
                chunk = places[start : start + self.batch]
                some = [tries[place] for place in chunk]
                with sampled(self.model, self.suite):
                    drawn = yield from self.model.latents(
                        [each.shot for each in some],
                        steps=self.suite.steps,
                        guidance=self.guidance(some[0].row),
                        batch=self.batch,
                        codes=self._codes(some) if exact else None,
                    )
                found |= dict(zip(chunk, drawn, strict=True))
        return torch.stack([found[place] for place in range(len(tries))])

    def draw(self, tries: Sequence[Candidate]) -> Work[Tensor]:
        """Images [n 3 h w] in [0, 1] of tries, by the network as it is; those the attack drew itself are passed on."""
        images = [each.image for each in tries]
        open_ = [place for place, image in enumerate(images) if image is None]
        if open_:
            latents = yield from self.latents([tries[place] for place in open_])
            for place, image in zip(open_, self.decode(latents), strict=True):
                images[place] = image
        return torch.stack([image for image in images if image is not None])

    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents, a batch at a time."""
        return torch.cat([self.model.decode(piece) for piece in latents.split(self.batch)])

    @torch.no_grad()
    def _codes(self, tries: Sequence[Candidate]) -> Any:
        ids = self.model.frame([each.tokens or () for each in tries])
        vectors = self.model.embed(ids).clone()
        for row, each in enumerate(tries):
            for place, vector in each.vectors.items():
                vectors[row, self.model.opening + place] = vector.to(vectors)
        return self.model.read(ids, vectors)


Presets = dict[str, dict[str, Any]]


def budgets(*, paper: int, standard: int, quick: int) -> Presets:
    """The presets of an attack of which nothing but the budget differs."""
    return {"paper": {"budget": paper}, "standard": {"budget": standard}, "quick": {"budget": quick}}


class Attack(Protocol):
    """What an attack file defines; its fields are its knobs, and `presets` are budgets with names."""

    paper: ClassVar[str]
    presets: ClassVar[Presets]
    added: ClassVar[int] | int  # tokens put beside a prompt's own, so that rows which are too long can be refused

    @property
    def budget(self) -> int:
        """What may be spent on a row: optimiser steps, generations or pictures."""
        ...

    def begin(self, aim: AttackTarget, row: Row) -> Any:
        """The search for one row, not yet begun; cheap."""
        ...

    def advance(self, aim: AttackTarget, searches: Sequence[Any]) -> Work[list[Candidate | None]]:
        """Takes each search one round further, to its next try; None when it has nothing left."""
        ...


def following(searches: Sequence[Iterator[Candidate]]) -> Work[list[Candidate | None]]:
    """The next try of each row, for attacks that need no network to think of one."""
    yield from ()
    return [next(search, None) for search in searches]


def usable(model: Denoiser) -> Tensor:
    """The tokens an attack may use: a start or an end amid the prompt would cut it short."""
    words = [number for number in range(len(model.vocabulary)) if number not in model.specials]
    return torch.tensor(words, device=model.device)


@dataclass
class PromptState:
    """A row, its search, and how far it came."""

    row: Row
    search: Any
    tries: int = 0
    seconds: float = 0.0
    last: Candidate | None = None
    image: Tensor | None = None


def chase(
    attack: Attack, aim: AttackTarget, rows: Sequence[Row], found: Callable[[PromptState, bool], None], batch: int
) -> Work[None]:
    """Attacks rows until each is broken or out of tries; `found` hears of every row once, as soon as it is decided."""
    waiting, active = deque(rows), []
    while waiting or active:
        while waiting and len(active) < batch:
            row = waiting.popleft()
            active.append(PromptState(row, attack.begin(aim, row)))
        began = time.perf_counter()
        tries = yield from attack.advance(aim, [each.search for each in active])
        asked = [(each, one) for each, one in zip(active, tries, strict=True) if one is not None]
        images, hits = torch.empty(0), []
        if asked:
            with aim.applied():
                images = yield from aim.draw([one for _, one in asked])
            hits = aim.sees(images)
        for each in active:
            each.seconds += (time.perf_counter() - began) / len(active)
        broken = set()
        for (each, one), image, hit in zip(asked, images, hits, strict=True):
            each.tries, each.last, each.image = each.tries + 1, one, image
            if hit:
                broken.add(id(each))
        ended = [one is None for one in tries]
        for each, out in zip(active, ended, strict=True):
            if out or id(each) in broken:
                found(each, id(each) in broken)
        active = [each for each, out in zip(active, ended, strict=True) if not out and id(each) not in broken]
        yield Step("attack", len(rows) - len(waiting) - len(active), len(rows))
