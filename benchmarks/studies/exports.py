"""Every export format: sizes, ranks, errors, differences and seconds of a closed form, a text encoder's and a GAN's
erasure, each export proven before it counts."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from erase.concept import Concept, Kind
from erase.errors import BadInput
from erase.methods.registry import build
from erase.model import Shot
from erase.request import Request, run_method
from erase.work import Work
from generators import load
from generators.export.export import export
from generators.export.format import FORMS, Asked, refusal
from generators.export.verify import Unproven

if TYPE_CHECKING:
    from generators.stable_diffusion.adapter import StableDiffusion


@dataclass(frozen=True)
class Variation:
    """One row: a format and what is asked of it."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The format and its options as they are typed."""
        return " ".join((self.name, *(f"--{option} {value}" for option, value in self.options.items())))


@dataclass(frozen=True)
class Erasure:
    """What is exported: a method with knobs, a concept, and the rows to make of it."""

    method: str
    knobs: Mapping[str, Any]
    concept: Concept
    variations: Sequence[Variation]


CLOSED = (
    Variation("pipeline"), Variation("pipeline", {"dtype": "fp16"}), Variation("single-file"),
    Variation("single-file", {"dtype": "fp16"}), Variation("kohya-lora"), Variation("kohya-lora", {"error": 0.1}),
    Variation("kohya-lora", {"error": 0.001, "dtype": "fp32"}), Variation("diffusers-lora"), Variation("edit"),
    Variation("edit", {"dtype": "fp16"}), Variation("edit", {"error": 0.01, "dtype": "fp16"}),
    Variation("edit", {"size": 0.25, "dtype": "fp16"}),
)  # fmt: skip
ENCODER = (
    Variation("plugin"), Variation("plugin", {"dtype": "fp16"}), Variation("kohya-lora", {"error": 0.15}),
    Variation("diffusers-lora", {"error": 0.15}), Variation("edit"),
    Variation("edit", {"error": 0.05, "dtype": "fp16"}),
)  # fmt: skip
GAN = (
    Variation("gan"), Variation("gan", {"dtype": "fp16"}), Variation("edit"),
    Variation("edit", {"error": 0.05, "dtype": "fp16"}),
)  # fmt: skip
# Long enough to change the pictures; how well they erase is measured elsewhere.
SHORT_ADVUNLEARN = {"iterations": 40, "warmup": 5, "attack_steps": 3, "seeds": 4, "keep_batch": 1, "steps": 8}
SHORT_TEXT_UNLEARN = {"steps": 20, "pool": 64}


class Row(BaseModel):
    """What one export weighs and misses; pixel differences are of values in [0, 1], to the model wearing the edit."""

    model_config = ConfigDict(frozen=True)

    bytes: int
    seconds: float
    max_difference: float
    mean_difference: float
    max_latent_difference: float | None
    effect: float
    tolerance: str
    ranks: tuple[int, int] | None = None
    error: float | None = None
    spectral_error: float | None = None


class Part(BaseModel):
    """The rows of one erasure by title, the formats that cannot carry it and why, and what was erased of what."""

    model_config = ConfigDict(frozen=True)

    note: str
    rows: Mapping[str, Row]
    refused: Mapping[str, str]


class Exports(BaseModel):
    """One part for each erasure."""

    model_config = ConfigDict(frozen=True)

    parts: tuple[Part, ...]


def exports(model: StableDiffusion, concept: str, kind: Kind, *, seed: int = 0) -> Work[Exports]:
    """A concept erased by a closed form and from the text encoder of a diffusion model, and glasses from pocket-gan."""
    erased = Concept(name=concept, kind=kind)
    gan = load("pocket-gan", device=model.device.type)
    plan: list[tuple[Any, Erasure]] = [
        (model, Erasure("uce", {}, erased, CLOSED)),
        (model, Erasure("advunlearn", SHORT_ADVUNLEARN, erased, ENCODER)),
        (gan, Erasure("text-unlearn", SHORT_TEXT_UNLEARN, Concept(name="Glasses", kind="attribute"), GAN)),
    ]
    found = []
    for each, erasure in plan:
        found.append((yield from _of(each, erasure, seed)))
    return Exports(parts=tuple(found))


def _of(model: Any, erasure: Erasure, seed: int) -> Work[Part]:
    """One erasure in all its variations, written into a folder that is removed again."""
    concept = erasure.concept
    method = build(erasure.method, concept.kind if erasure.method == "uce" else None, erasure.knobs)
    edit = yield from run_method(method, Request(model, [concept], seed=seed))  # type: ignore[attr-defined]
    shots = [Shot(seed + number, concept.phrases[0]) for number in range(2)]
    rows: dict[str, Row] = {}
    whys = {name: refusal(name, edit, Asked()) for name in FORMS}
    refused = {name: why for name, why in whys.items() if why is not None}
    with TemporaryDirectory() as home:
        for number, variation in enumerate(erasure.variations):
            out = Path(home, str(number))
            try:
                made = yield from export(model, edit, out, variation.name, shots=shots, **variation.options)
            except (BadInput, Unproven) as error:
                refused[variation.title] = str(error)
                continue
            rows[variation.title] = Row(
                bytes=made.bytes, seconds=made.seconds, max_difference=made.proof.max_difference,
                mean_difference=made.proof.mean_difference, max_latent_difference=made.proof.max_latent_difference,
                effect=made.proof.effect, tolerance=made.proof.tolerance, ranks=made.facts.get("ranks"),
                error=made.facts.get("error"), spectral_error=made.facts.get("spectral_error"),
            )  # fmt: skip
            shutil.rmtree(out)
    effect = max(row.effect for row in rows.values())
    return Part(
        note=f"{concept.name} from {model.name} with {erasure.method} ({len(edit.deltas)} tensors, "
        f"{edit.storage_bytes / 1e6:.2f} MB), which changes {len(shots)} pictures by {effect:.2g} on average",
        rows=rows,
        refused=refused,
    )


def table(found: Exports) -> str:
    """A Markdown table for each erasure."""
    return "\n\n".join(_table(part) for part in found.parts)


def _table(found: Part) -> str:
    lines = [
        f"{found.note}:",
        "",
        "| format | size | ranks | weights missed | pixels: largest difference | mean | latents: largest | seconds |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for title, row in found.rows.items():
        ranks = "" if row.ranks is None else "–".join(map(str, dict.fromkeys(row.ranks)))
        error = "0" if row.error is None else f"{row.error:.2%}"
        latent = "" if row.max_latent_difference is None else f"{row.max_latent_difference:.2g}"
        lines.append(
            f"| `{title}` | {row.bytes / 1e6:.2f} MB | {ranks} | {error} | {row.max_difference:.2g} | "
            f"{row.mean_difference:.2g} | {latent} | {row.seconds:.0f} |"
        )
    return "\n".join(
        [*lines, *([""] if found.refused else []), *(f"`{name}`: {why}" for name, why in found.refused.items())]
    )
