"""Whether a sampler of few steps says what the published one says: the same shots, drawn both ways, read by one judge.

An agreement is measured once for a model, a sampler and its steps, kept as a file beside this program, and cited by its
hash in every report that was drawn so. Without one the report says that its sampler was never checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmarks.judging.comparison import Comparison
from benchmarks.suites.suite import Suite
from erase.errors import BadInput
from erase.model import Generator

KEPT = Path(__file__).parent / "agreements"
LABELS, POINTS = 0.95, 0.015  # the least share of equal labels, and the most that UA, IRA or CRA may differ


class Sampler(BaseModel):
    """How pictures were drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    steps: int
    guidance: float


class Agreement(BaseModel):
    """Shares of equal labels over n pictures; `differences` are fast accuracies minus the reference's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    base: str
    sampler: Sampler
    reference: Sampler
    n: int
    labels: Mapping[str, float]
    differences: Mapping[str, Mapping[str, float]]

    @property
    def hash(self) -> str:
        """What reports cite."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    @property
    def holds(self) -> bool:
        """Whether the two may stand for each other."""
        gaps = [abs(gap) for by_score in self.differences.values() for gap in by_score.values()]
        return min(self.labels.values()) >= LABELS and max(gaps, default=0.0) <= POINTS

    @property
    def sentence(self) -> str:
        """What it found, for people."""
        same = ", ".join(f"{100 * share:.1f} % of {head} labels" for head, share in self.labels.items())
        gap = max((abs(gap) for each in self.differences.values() for gap in each.values()), default=0.0)
        return (
            f"{self.sampler.name} with {self.sampler.steps} steps {'agrees' if self.holds else 'does not agree'} with "
            f"{self.reference.name} with {self.reference.steps}: {same} are equal over {self.n} pictures, and UA, IRA "
            f"and CRA differ by {100 * gap:.1f} points at most"
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """One from its file; BadInput when that is none."""
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValidationError) as error:
            raise BadInput(f"{path} holds no agreement of samplers ({str(error).splitlines()[0]}).") from None


def compared(
    model: tuple[str, str], sampler: Sampler, reference: Sampler, pairs: Mapping[str, tuple[Comparison, Comparison]]
) -> Agreement:
    """The agreement of sittings drawn fast with the same cells drawn by the reference, by the name of the edit."""
    equal: dict[str, list[bool]] = {"style": [], "object": []}
    differences = {}
    for name, (fast, slow) in pairs.items():
        for head, same in equal.items():
            seen = [side.after.numbers[head].argmax(1) for side in (fast, slow)]
            same += (seen[0] == seen[1]).tolist()
        scores = [vars(side.accuracies(side.after, side.rules)) for side in (fast, slow)]
        differences[name] = {score: scores[0][score].value - scores[1][score].value for score in scores[0]}
    labels = {head: sum(same) / len(same) for head, same in equal.items()}
    n = len(equal["style"])
    return Agreement(
        model=model[0], base=model[1], sampler=sampler, reference=reference, n=n, labels=labels, differences=differences
    )


def sampler_of(model: Generator, suite: Suite) -> Sampler:
    """How a model draws a suite: what the suite leaves open is the model's own."""
    guidance = model.default_guidance if suite.guidance is None else suite.guidance  # type: ignore[attr-defined]
    return Sampler(name=suite.sampler, steps=suite.steps or model.default_steps, guidance=guidance)  # type: ignore[attr-defined]


@cache
def agreements() -> tuple[Agreement, ...]:
    """All that are kept."""
    return tuple(Agreement.read(path) for path in sorted(KEPT.glob("*.json")))


def agreement(base: str, sampler: Sampler) -> Agreement | None:
    """The one that was measured for these weights and this way of drawing."""
    return next((each for each in agreements() if (each.base, each.sampler) == (base, sampler)), None)
