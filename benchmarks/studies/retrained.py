"""The gold standard: pocket-sd's U-Net trained without a style and an object, which shows what perfect forgetting is.

It is kept as an edit of pocket-sd, so that judge, attacks and probes take it as they take every erasure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.studies.common import Round
from benchmarks.suites.suite import Suite, Target
from erase.edit import Edit
from erase.errors import BadInput, plain
from erase.work import Step, Work
from generators.pocket.train.retrained import PLACE

NAME = "retrained"


@dataclass(frozen=True)
class Retrained(Round):
    """A line of tables beside those of methods: what stands in for an erasure was never taught the target."""

    method: str = NAME
    place: Path = PLACE
    kin: ClassVar[bool] = False

    @cached_property
    def whole(self) -> Edit:
        """What the U-Net has instead of the bundled one's weights."""
        return Edit.load(self.place)

    @property
    def unseen(self) -> tuple[str, ...]:
        """The labels it was never shown."""
        return tuple(self.whole.about["without"])

    def preset_for(self, target: Target) -> str | None:
        """None: it is one edit, whatever the target."""
        return None

    def resolved(self, target: Target) -> dict[str, Any]:
        """Its one knob: what it never saw."""
        return {"without": list(self.unseen)}

    def suite(self, suite: Suite, target: Target) -> Suite:
        """The suite, its grid filled with other labels where it would show one that was not seen either."""
        others = {label for label in self.unseen if label != target.label}

        def seen(labels: Sequence[str]) -> tuple[str, ...]:
            return tuple(label for label in labels if label not in others)

        found = suite.model_copy(update={
            "first_styles": seen(suite.first_styles), "first_objects": seen(suite.first_objects),
            "neighbours": {label: seen(near) for label, near in suite.neighbours.items()},
        })  # fmt: skip
        if shown := others & {label for cell in found.shots([target.label]) for label in (cell.style, cell.object)}:
            raise BadInput(
                f"{suite.name} shows {', '.join(sorted(shown))} among what should be kept, which this U-Net never saw "
                "either; take a suite with a smaller grid, such as pocket-canvas-quick."
            )
        return found

    def edit(self, model: Any, suite: Suite, target: Target) -> Work[Edit]:
        """Itself; BadInput for a target that it was taught, and for a model that it does not belong to."""
        if target.label not in self.unseen:
            raise BadInput(
                f"The retrained U-Net was taught {target.label}; it stands for forgetting {' and '.join(self.unseen)}. "
                "`python -m generators.pocket.train unet retrained --without NAME` trains another."
            )
        if self.whole.about["base"] != model.fingerprint:
            raise BadInput(f"The retrained U-Net belongs to the bundled pocket-sd, and {model.name} is not that.")
        yield Step("load", 1, 1)
        return self.whole


def round_of(text: str, settings: Sequence[str] = (), **options: Any) -> Round:
    """`Round.read`, which takes the name of the gold standard too."""
    return Retrained(**options) if plain(text) == NAME else Round.read(text, settings, **options)
