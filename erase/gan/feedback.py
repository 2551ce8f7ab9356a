"""Who says which of a Gan's own images show a concept: a scorer, or a person who marked seeds.

A person's clicks are a JSON file {"yes": [seeds], "no": [seeds]}, the seeds those that `Shot` draws: whoever shows a
gallery of seeds writes it, and names it as the knob `marks` of adapt-unlearn or feature-unlearn.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from erase.concept import Concept
from erase.model import BadInput, Gan
from erase.rng import number
from erase.work import Step, Work

UNSURE = 0.1  # images a scorer gives one half, give or take this, are on neither side
MOST = 50  # images looked at for each one wanted, before a concept counts as too rare
LOOKED_AT = 1024  # images from which the usual rate of a kept concept is read
CACHED = 512 * 2**20


@dataclass(frozen=True)
class Marks:
    """Seeds whose images show a concept (yes), seeds whose images do not, and who said so."""

    yes: Tensor
    no: Tensor
    by: str

    def state(self) -> dict[str, Tensor]:
        """The seeds as tensors, for a resumed job."""
        return {"yes": self.yes, "no": self.no}


def marked(
    model: Gan, concepts: Sequence[Concept], marks: str, *, yes: int, no: int, seed: int, state: Mapping[str, Tensor]
) -> Work[Marks]:
    """At most so many marked seeds of each side: from a JSON file of a person's clicks, else by the model's scorer.

    An image that shows any of the concepts is a yes. BadInput for a concept too rare to learn from.
    """
    by = f"{Path(marks).name}" if marks else model.scorer(concepts[0]).name
    if "yes" in state:
        return Marks(state["yes"], state["no"], by)
    if marks:
        clicked = clicks(Path(marks))
        return Marks(clicked["yes"][:yes], clicked["no"][:no], by)
    scorers = [model.scorer(concept) for concept in concepts]
    seen: dict[bool, list[int]] = {True: [], False: []}
    start, looked, batch = number(seed, "feedback") >> 34, int(state.get("looked", 0)), _at_once(model)
    if looked:
        seen = {side: state[f"look.{side}"].tolist() for side in seen}
    while len(seen[True]) < yes or len(seen[False]) < no:
        seeds = range(start + looked, start + looked + batch)
        with torch.no_grad():
            images = model.synthesis(model.mapping(model.latents(seeds))) / 2 + 0.5
            sure = torch.stack([scorer(images.clamp(0, 1)) for scorer in scorers]).amax(0).tolist()
        for drawn, probability in zip(seeds, sure, strict=True):
            if abs(probability - 0.5) >= UNSURE:
                seen[probability > 0.5].append(drawn)
        looked += batch
        found = min(len(seen[True]), yes) + min(len(seen[False]), no)
        yield Step("look", found, yes + no, state=partial(_looked, seen, looked))
        if looked >= MOST * (yes + no):
            names = ", ".join(concept.name for concept in concepts)
            raise BadInput(
                f"{by} sees {names!r} in {len(seen[True])} of {looked} images of {model.name}; too few to learn from."
            )
    return Marks(torch.tensor(seen[True][:yes]), torch.tensor(seen[False][:no]), by)


def _looked(seen: Mapping[bool, Sequence[int]], looked: int) -> dict[str, Tensor]:
    sides = {f"look.{side}": torch.tensor(seeds, dtype=torch.long) for side, seeds in seen.items()}
    return {**sides, "looked": torch.tensor(looked)}


def balanced(model: Gan, marks: Marks, keep: Sequence[Concept], seed: int, state: Mapping[str, Tensor]) -> Work[Marks]:
    """The same marks, the noes redrawn such that they show each kept concept as often as all the model's images do.

    Images without beards are more often women's; learning from them as they come would unlearn more than beards.
    Raking (Deming & Stephan 1940): each round multiplies the weights to meet one rate after another.
    """
    if not keep or "balanced" in state:
        return marks
    scorers, start = [model.scorer(concept) for concept in keep], number(seed, "balance") >> 34
    everyone = torch.arange(start, start + LOOKED_AT)
    parts = [*everyone.split(64), *marks.no.split(64)]
    found = list(state["shown"].split(64)) if "shown" in state else []
    for part in parts[len(found) :]:
        with torch.no_grad():
            images = (model.synthesis(model.mapping(model.latents(part.tolist()))) / 2 + 0.5).clamp(0, 1)
            found.append(torch.stack([scorer(images) > 0.5 for scorer in scorers], 1).double().cpu())
        so_far = {"shown": torch.cat(found)}
        yield Step("balance", len(found), len(parts), state=so_far.copy)
    usual, here = torch.cat(found).split((len(everyone), len(marks.no)))
    weights = raked(here, usual.mean(0))
    # Systematic sampling: each image as often as its weight says, to within one.
    places = (torch.arange(len(weights)) + 0.5) / len(weights)
    chosen = torch.searchsorted(weights.cumsum(0), places.double()).clamp(max=len(weights) - 1)
    return Marks(marks.yes, marks.no[chosen], marks.by)


def raked(shown: Tensor, rates: Tensor, rounds: int = 20) -> Tensor:
    """Weights [n], summing to one, under which the columns of `shown` [n k], 0 or 1, have these rates [k].

    A column that is all alike stays as it is.
    """
    weights = torch.full((len(shown),), 1 / len(shown), dtype=torch.float64)
    for _ in range(rounds):
        for column, rate in zip(shown.T, rates, strict=True):
            now = (weights * column).sum()
            if 0 < now < 1 and 0 < rate < 1:
                weights = weights * torch.where(column > 0, rate / now, (1 - rate) / (1 - now))
    return weights / weights.sum()


def clicks(path: Path) -> dict[str, Tensor]:
    """The marks in a JSON file {"yes": [seeds], "no": [seeds]}; BadInput for another file or fewer than 8 of a side."""
    try:
        told: Any = json.loads(path.read_text(encoding="utf-8-sig"))
        found = {side: torch.tensor(sorted(set(told[side])), dtype=torch.long) for side in ("yes", "no")}
    except FileNotFoundError:
        raise BadInput(f'There is no file of marks {path}; it holds {{"yes": [seeds], "no": [seeds]}}.') from None
    except (ValueError, KeyError, TypeError, RecursionError, RuntimeError, OSError) as error:
        raise BadInput(f'{path} holds no marks ({error}); write {{"yes": [3, 8], "no": [1, 2]}}.') from None
    both = set(found["yes"].tolist()) & set(found["no"].tolist())
    if both:
        raise BadInput(f"{path} marks seed {min(both)} as showing the concept and as not showing it.")
    for side, seeds in found.items():
        if len(seeds) < 8:
            raise BadInput(f"{path} marks {len(seeds)} seeds with {side!r}; at least 8 of each are needed.")
    return found


def _at_once(model: Gan) -> int:
    """How many pictures are drawn together: fewer where they are large."""
    return min(64, getattr(model, "at_once", 64))


def pictures(model: Gan, seeds: Tensor) -> Callable[[Tensor], Tensor]:
    """From numbers in [0, 1) [n] to that many of the seeds' images [n 3 h w] in [-1, 1], kept as bytes if they fit."""
    chosen: list[int] = seeds.tolist()

    def drawn(which: Sequence[int]) -> Tensor:
        with torch.no_grad():
            return model.synthesis(model.mapping(model.latents([chosen[i] for i in which])))

    one = drawn([0])
    if one.numel() * len(chosen) > CACHED:
        return lambda uniform: drawn((uniform * len(chosen)).long().tolist())
    parts = torch.arange(len(chosen)).split(_at_once(model))
    held = torch.cat([((drawn(part.tolist()) + 1) * 127.5).round().clamp(0, 255).byte().cpu() for part in parts])

    def picked(uniform: Tensor) -> Tensor:
        return held[(uniform * len(held)).long()].to(one) / 127.5 - 1

    return picked
