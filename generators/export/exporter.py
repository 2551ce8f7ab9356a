"""An edited model in a format other programs open: written, opened in a clean process, compared, and then called so."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import torch

from erase.edit import Edit
from erase.errors import BadInput, match
from erase.model import Shot
from erase.work import Step, Work
from generators.export import card as cards
from generators.export.arrive import CARD, arriving, is_file
from generators.export.form import FORMS, GAN, Asked, Facts, Form, Place, form, refusal
from generators.export.proof import Proof, prove

if TYPE_CHECKING:
    from generators.stable_diffusion import StableDiffusion

OPTIONS = ("variant", "error", "rank")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Exported:
    """What was written where, what its proof found, and what the format says of itself (ranks, errors)."""

    form: str
    path: Path
    files: tuple[str, ...]
    bytes: int
    proof: Proof
    facts: Facts
    seconds: float

    @property
    def max_difference(self) -> float:
        """The largest difference of a pixel in [0, 1] to the worn edit."""
        return self.proof.max_difference

    @property
    def max_latent_difference(self) -> float:
        """The largest difference of a final latent."""
        return self.proof.max_latent_difference


def export(
    model: StableDiffusion,
    edit: Edit | None,
    out: str | Path,
    name: str = "pipeline",
    *,
    strength: float = 1.0,
    dtype: str | None = None,
    variant: str | None = None,
    error: float | None = None,
    rank: int | None = None,
    force: bool = False,
    report: Mapping[str, Any] | None = None,
    attacks: Mapping[str, Mapping[str, Any]] | None = None,
    shots: Sequence[Shot] | None = None,
) -> Work[Exported]:
    """Writes the edit at a strength in a format, opens it with stock libraries alone and compares `shots`.

    `out` is a folder, or for formats of one file a name ending in .safetensors. `dtype` is fp32, bf16 or fp16, None
    keeps what there is. `report` and `attacks` are the JSON of `judge` and `attack` for the card. What is written
    appears whole or not at all. Raises BadInput for a format that cannot carry the edit, a target that holds something,
    an edit of another model or a full disk, and Unproven if the pictures differ.
    """
    started, out, edit = time.perf_counter(), Path(out).expanduser(), edit or Edit({}, {})
    name = match(name, (*FORMS, GAN), "export format")
    asked = asked_of(name, strength, dtype, variant, error, rank)
    if (why := refusal(name, edit, asked)) is not None:
        raise BadInput(why)
    if name == GAN:
        raise BadInput("A GAN is written by generators.export.gan.export_gan.")
    kind = form(name)
    if kind.adds:  # the strength is in what is written
        edit, asked = _at(edit, strength), replace(asked, strength=1.0)
    compared = list(shots) if shots is not None else [Shot(0, cards.spoken(edit.about))]
    with arriving(out, force=force, file=kind.file) as folder:
        facts = yield from kind.write(model, edit, folder, asked)
        yield Step("written", 1, 1)
        proof = yield from prove(model, edit, asked, name, kind, folder, compared)
        (folder / "proof.json").write_text(json.dumps(asdict(proof), indent=2) + "\n", encoding="utf-8")
        text = cards.card(
            edit.about, report, attacks or {}, licence=model.licence,
            recipe=kind.recipe(_place(model, edit, out, kind, asked)),
        )  # fmt: skip
        stored = cards.Stored(name, strength, _dtype_name(asked, model, edit, kind), variant, facts)
        proven = cards.proof_section(asdict(proof), stored)
        (folder / CARD).write_text(f"{text.rstrip()}\n\n{proven}", encoding="utf-8")
    files = [out] if is_file(out) else sorted(path for path in out.rglob("*") if path.is_file())
    return Exported(
        form=name,
        path=out,
        files=tuple(path.name if is_file(out) else path.relative_to(out).as_posix() for path in files),
        bytes=sum(path.stat().st_size for path in files),
        proof=proof,
        facts=facts,
        seconds=time.perf_counter() - started,
    )


def _at(edit: Edit, strength: float) -> Edit:
    """The edit at a strength, still about what it erases."""
    scaled = edit * strength
    return edit if strength == 1 else Edit(scaled.deltas, {**edit.about, "parents": scaled.about["parents"]})


def asked_of(
    name: str, strength: float, dtype: str | None, variant: str | None, error: float | None, rank: int | None
) -> Asked:
    """What is asked for, checked; BadInput for values that cannot be meant and options the format does not have."""
    if dtype is not None and dtype not in DTYPES:
        raise BadInput(f"Unknown dtype {dtype!r}. Possible: {', '.join(DTYPES)}.")
    if not math.isfinite(strength):
        raise BadInput(f"The strength should be a number, usually between 0 and 1, not {strength}.")
    if error is not None and not 0 < error < 1:
        raise BadInput(f"The error is a share of the edit between 0 and 1, such as 0.01, not {error:g}.")
    if rank is not None and rank < 1:
        raise BadInput(f"The rank should be at least 1, not {rank}.")
    known = form(name).options if name in FORMS else OPTIONS
    for option, value in (("variant", variant), ("error", error), ("rank", rank)):
        if value is not None and option not in known:
            raise BadInput(f"{name} has no --{option}; it takes {', '.join(f'--{each}' for each in known) or 'none'}.")
    if error is not None and rank is not None:
        raise BadInput("Give --error or --rank, not both: each decides the other.")
    if "lora" in name and find_spec("peft") is None:
        raise BadInput("diffusers loads LoRAs with the package peft, which is not here; `pip install peft`.")
    return Asked(strength, DTYPES[dtype] if dtype else None, variant, error, rank)


def _place(model: StableDiffusion, edit: Edit, out: Path, kind: Form, asked: Asked) -> Place:
    return Place(
        path=out.name if is_file(out) or kind.file is None else f"{out.name}/{kind.file}",
        base=PurePath(model.name).name,
        prompt=cards.spoken(edit.about),
        xl=model.family == "xl",
        v_prediction=model.scheduler.config.get("prediction_type") == "v_prediction",
        variant=asked.variant,
    )


def _dtype_name(asked: Asked, model: StableDiffusion, edit: Edit, kind: Form) -> str:
    own = {delta.dtype for delta in edit.deltas.values()} if kind.adds and kind.file else {model.dtype}
    return ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in ({asked.dtype} if asked.dtype else own)))
