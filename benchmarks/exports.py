"""Every export format of one erasure: sizes, ranks, errors, differences and seconds, each proven in a clean process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from erase.methods import build
from erase.model import Concept, Kind, Shot
from erase.work import Work
from generators.export.exporter import export
from generators.export.form import FORMS, Asked, refusal

if TYPE_CHECKING:
    from generators.stable_diffusion import StableDiffusion


@dataclass(frozen=True)
class Variation:
    """One row: a format and what is asked of it."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The format and its options as they are typed."""
        return " ".join((self.name, *(f"--{option} {value}" for option, value in self.options.items())))


VARIATIONS = (
    Variation("pipeline"), Variation("pipeline", {"dtype": "fp16"}), Variation("single-file"),
    Variation("single-file", {"dtype": "fp16"}), Variation("kohya-lora"), Variation("kohya-lora", {"error": 0.1}),
    Variation("kohya-lora", {"error": 0.001, "dtype": "fp32"}), Variation("diffusers-lora"), Variation("edit"),
    Variation("edit", {"dtype": "fp16"}), Variation("edit", {"error": 0.01, "dtype": "fp16"}),
)  # fmt: skip


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


class Exports(BaseModel):
    """The rows by title, the formats that cannot carry this edit and why, and what was erased of what."""

    model_config = ConfigDict(frozen=True)

    note: str
    rows: Mapping[str, Row]
    refused: Mapping[str, str]


def exports(
    model: StableDiffusion, concept: str, kind: Kind, *, seed: int = 0, variations: Sequence[Variation] = VARIATIONS
) -> Work[Exports]:
    """Erases a concept with UCE and exports the edit in every variation, into a folder that is removed again."""
    erased = Concept(name=concept, kind=kind)
    method = build("uce", kind if kind in ("style", "object") else None)
    edit = yield from method.erase(model, [erased], seed=seed)  # type: ignore[attr-defined]
    shots = [Shot(seed + number, erased.phrases[0]) for number in range(2)]
    rows: dict[str, Row] = {}
    with TemporaryDirectory() as home:
        for number, variation in enumerate(variations):
            if refusal(variation.name, edit, Asked()) is None:
                out = Path(home, str(number))
                made = yield from export(model, edit, out, variation.name, shots=shots, **variation.options)
                rows[variation.title] = Row(
                    bytes=made.bytes, seconds=made.seconds, max_difference=made.proof.max_difference,
                    mean_difference=made.proof.mean_difference, max_latent_difference=made.proof.max_latent_difference,
                    effect=made.proof.effect, tolerance=made.proof.tolerance, ranks=made.facts.get("ranks"),
                    error=made.facts.get("error"), spectral_error=made.facts.get("spectral_error"),
                )  # fmt: skip
    whys = {name: refusal(name, edit, Asked()) for name in FORMS}
    return Exports(
        note=f"{concept} from {model.name} with uce ({len(edit.deltas)} tensors, {edit.storage_bytes} bytes); "
        f"{len(shots)} pictures compared on {model.device.type} in {str(model.dtype).removeprefix('torch.')}; seconds "
        "include the proof in a clean process",
        rows=rows,
        refused={name: why for name, why in whys.items() if why is not None},
    )


def table(found: Exports) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| format | size | ranks | weights missed | largest pixel difference | mean | seconds |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    for title, row in found.rows.items():
        ranks = "" if row.ranks is None else "–".join(map(str, dict.fromkeys(row.ranks)))
        error = "0" if row.error is None else f"{row.error:.2%}"
        lines.append(
            f"| `{title}` | {row.bytes / 1e6:.2f} MB | {ranks} | {error} | {row.max_difference:.2g} | "
            f"{row.mean_difference:.2g} | {row.seconds:.0f} |"
        )
    lines += ["", f"{found.note}.", *(f"`{name}`: {why}" for name, why in found.refused.items())]
    return "\n".join(lines)
