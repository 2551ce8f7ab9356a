"""Ring-A-Bell (Tsai et al., ICLR 2024, arXiv 2310.10012): prompts found in the text encoder alone.

The concept's direction is the mean difference of the encoder's states for prompts with and without it. A genetic search
over tokens looks for the prompt whose states come nearest to  state(prompt) + η · direction.  It sees the unedited text
encoder only, so one set of prompts serves every edit, and is remembered between runs.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from benchmarks.attacks.engine import AttackTarget, Candidate, usable
from benchmarks.judging import cache
from benchmarks.suites.prompts import Row, suite_rows
from erase.concept import INSTEAD
from erase.rng import stream
from erase.work import Step, Work

PAIRS = 20  # prompts with and without the concept
CHUNK = 256  # prompts the encoder reads at once


@dataclass
class Search:
    """One row's best tokens at each drawing, once the search is over."""

    row: Row
    found: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    begun: bool = False


class RingABell(BaseModel, frozen=True, extra="forbid"):
    """Searches tokens whose text states carry the concept, by a genetic algorithm, without the diffusion model."""

    paper: ClassVar[str] = "Ring-A-Bell (arXiv 2310.10012)"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"budget": 3000, "population": 200},
        "standard": {"budget": 1000, "population": 200},
        "quick": {"budget": 200, "population": 40},
    }
    added: ClassVar[int] = 0

    budget: int = Field(200, ge=1, le=1_000_000, description="generations per row")
    population: int = Field(40, ge=4, le=10_000, description="prompts alive at once; the paper keeps 200")
    length: int = Field(16, ge=1, le=75, description="tokens of a prompt")
    eta: float = Field(3.0, ge=0, le=100, description="scale of the concept's direction (η)")
    crossover: float = Field(0.5, ge=0, le=1, description="chance that a child has two parents")
    mutation: float = Field(0.25, ge=0, le=1, description="chance that one of a child's tokens is replaced")
    checks: int = Field(4, ge=1, le=100, description="test images along the way")

    def begin(self, aim: AttackTarget, row: Row) -> Search:
        """Not yet searched."""
        return Search(row)

    def advance(self, aim: AttackTarget, searches: Sequence[Search]) -> Work[list[Candidate | None]]:
        """On the first round the whole search, which no drawing influences; then one of its drawings each round."""
        for search in searches:
            if not search.begun:
                search.found = yield from self._remembered(aim, search.row)
                search.begun = True
        tries: list[Candidate | None] = []
        for search in searches:
            if not search.found:
                tries.append(None)
                continue
            spent, tokens = search.found.pop(0)
            tries.append(Candidate(search.row, aim.model.spell(tokens), spent, tokens=tokens))
        return tries

    def _remembered(self, aim: AttackTarget, row: Row) -> Work[list[tuple[int, tuple[int, ...]]]]:
        """A row's prompts from the cache, or searched and stored there."""
        name = cache.key(
            what="ring-a-bell", model=aim.model.fingerprint, dtype=str(aim.model.dtype), concept=aim.target.label,
            suite=[aim.suite.name, aim.suite.version], row=row.key, seed=aim.seed, knobs=self.model_dump(),
        )  # fmt: skip
        stored = cache.load(name)
        if stored is None:
            found = yield from self._searched(aim, row)
            # A full or read-only cache costs the next run time, not this one its prompts.
            with contextlib.suppress(OSError):
                cache.store(name, {"tokens": torch.tensor([tokens for _, tokens in found])}, [at for at, _ in found])
            return found
        return [(at, tuple(tokens)) for at, tokens in zip(stored[1], stored[0]["tokens"].tolist(), strict=True)]

    def _searched(self, aim: AttackTarget, row: Row) -> Work[list[tuple[int, tuple[int, ...]]]]:
        words, draw = usable(aim.model).cpu(), stream(aim.seed, "genes", row.key)
        length = min(self.length, aim.model.room)
        goal = states(aim, [aim.model.tokens(row.prompt)])[0] + self.eta * direction(aim)
        alive = words[torch.randint(len(words), (self.population, length), generator=draw)]
        far = distances(aim, alive, goal)
        due = {max(1, round(self.budget * (check + 1) / self.checks)) for check in range(self.checks)}
        found = []
        for generation in range(1, self.budget + 1):
            order = far.argsort(stable=True)[: self.population // 2]
            alive, far = alive[order], far[order]
            children = self._children(alive, self.population - len(alive), words, draw)
            alive, far = torch.cat([alive, children]), torch.cat([far, distances(aim, children, goal)])
            if generation in due:
                found.append((generation, tuple(alive[far.argmin()].tolist())))
            yield Step("generations", generation, self.budget, {"distance": float(far.min())})
        return found

    def _children(self, parents: Tensor, count: int, words: Tensor, draw: torch.Generator) -> Tensor:
        """One-point crossover of random parents, then a mutation of one token, each with its chance."""
        mother, father = (parents[torch.randint(len(parents), (count,), generator=draw)] for _ in range(2))
        length = parents.shape[1]
        cut = torch.randint(1, max(length, 2), (count, 1), generator=draw)
        crossed = torch.rand(count, 1, generator=draw) < self.crossover
        children = torch.where(crossed & (torch.arange(length) >= cut), father, mother)
        at = torch.randint(length, (count, 1), generator=draw)
        other = words[torch.randint(len(words), (count, 1), generator=draw)]
        changed = torch.rand(count, 1, generator=draw) < self.mutation
        return torch.where(changed & (torch.arange(length) == at), other, children)


@torch.no_grad()
def states(aim: AttackTarget, rows: Sequence[Sequence[int]]) -> Tensor:
    """The unedited text encoder's states [n token code] of token rows, on the CPU."""
    parts = []
    for start in range(0, len(rows), CHUNK):
        ids = aim.model.frame(rows[start : start + CHUNK])
        codes = aim.model.read(ids, aim.model.embed(ids)).tokens
        parts.append(codes.to(torch.promote_types(codes.dtype, torch.float32)).cpu())
    return torch.cat(parts)


def distances(aim: AttackTarget, rows: Tensor, goal: Tensor) -> Tensor:
    """The squared distance [n] of token rows [n length] to the goal [token code]."""
    return (states(aim, rows.tolist()) - goal).square().sum((1, 2))


def direction(aim: AttackTarget) -> Tensor:
    """The mean difference [token code] of the suite's sentences with the concept and with its anchor in its place."""
    named = re.compile(rf"\b{re.escape(aim.words)}\b", re.IGNORECASE)
    present = [row.prompt for row in suite_rows(aim.suite, aim.target, PAIRS)]
    absent = [" ".join(named.sub(INSTEAD[aim.target.kind], prompt).split()) for prompt in present]
    said = [states(aim, [aim.model.tokens(prompt) for prompt in prompts]) for prompts in (present, absent)]
    return (said[0] - said[1]).mean(0)
