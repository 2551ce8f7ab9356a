"""An edited model in a format other programs open: written, opened in a clean process, compared, and then called so."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import torch

from erase.edit import Edit
from erase.errors import BadInput, match
from erase.model import Shot
from erase.work import Step, Work
from generators.export import card as cards
from generators.export.format import FORMS, OF_FLOWS, OF_GANS, Asked, Facts, Form, Place, form, refusal
from generators.export.formats import gan
from generators.export.modelspec import predicts_v
from generators.export.published import is_published
from generators.export.staging import CARD, PROOF, arriving, is_file
from generators.export.verify import Proof, prove
from generators.flow.adapter import FlowTransformer
from generators.stable_diffusion.adapter import StableDiffusion
from generators.stylegan2.adapter import SeededGan, StyleGan

if TYPE_CHECKING:
    from generators.export.format import Model, Painter

# How files end that people know; a folder of such a name would only mislead.
FILES = (
    ".safetensors",
    ".ckpt",
    ".pt",
    ".pth",
    ".pkl",
    ".bin",
    ".gguf",
    ".onnx",
    ".zip",
    ".json",
    ".txt",
    ".md",
    ".png",
)
OPTIONS = ("variant", "error", "rank", "size")
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
    left_out: tuple[str, ...] = ()  # parts of the base that a merged model comes without

    @property
    def max_difference(self) -> float:
        """The largest difference of a pixel in [0, 1] to the applied edit."""
        return self.proof.max_difference

    @property
    def max_latent_difference(self) -> float | None:
        """The largest difference of a final latent; a GAN has none."""
        return self.proof.max_latent_difference


class Options(TypedDict, total=False):
    """The fields of Asked as a user gives them: `dtype` is fp32, bf16 or fp16."""

    strength: float
    dtype: str | None
    variant: str | None
    error: float | None
    rank: int | None
    size: float | None


@dataclass(frozen=True)
class Evidence:
    """What the model card cites: the JSON of `judge`, and that of each `attack` by its name."""

    report: Mapping[str, Any] | None = None
    attacks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def export(
    model: Model,
    edit: Edit | None,
    out: str | Path,
    name: str = "pipeline",
    *,
    force: bool = False,
    evidence: Evidence = Evidence(),
    shots: Sequence[Shot] | None = None,
    **options: Unpack[Options],
) -> Work[Exported]:
    """Writes the edit at a strength in a format, opens it with stock libraries alone and compares `shots`.

    `out` is a folder, or for formats of one file a name ending in .safetensors (gan: or .pt). `dtype` is fp32, bf16 or
    fp16, None keeps what there is; Asked describes `options`. What is written appears whole or not at all. Raises
    BadInput for a format that cannot carry the edit, a target that holds something, an edit of another model or a full
    disk, and Unproven if the pictures differ.
    """
    started, out, edit = time.perf_counter(), Path(out).expanduser(), edit or Edit({}, {})
    name = match(name, FORMS, "export format")
    asked = replace(asked_of(name, **options), title=out.stem if is_file(out) else out.name)
    strength = asked.strength
    if (why := _refusal(model, edit, name, asked, out)) is not None:
        raise BadInput(why)
    kind = form(name)
    if kind.adds:  # the strength is in what is written
        edit, asked = _at(edit, strength), replace(asked, strength=1.0)
    left_out = () if kind.adds else getattr(model, "left_out", ())
    with arriving(out, force=force, file=kind.files.get(out.suffix)) as folder:
        facts = yield from kind.write(model, edit, folder, asked)
        yield Step("written", 1, 1)
        if isinstance(model, StyleGan):
            proof = yield from gan.prove(model, edit, asked, kind, folder, shots or ())
        else:
            compared = list(shots) if shots is not None else [Shot(0, cards.spoken(edit.about))]
            proof = yield from prove(model, edit, asked, name, kind, folder, compared)
        (folder / PROOF).write_text(json.dumps(asdict(proof), indent=2) + "\n", encoding="utf-8")
        text = cards.card(
            edit.about, evidence.report, evidence.attacks, licence=model.licence or None,
            gan=isinstance(model, StyleGan), left_out=left_out,
            recipe=kind.recipe(_place(model, edit, out, kind, asked)),
        )  # fmt: skip
        stored = cards.Stored(name, strength, _dtype_name(asked, model, edit, kind), asked.variant, facts)
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
        left_out=left_out,
    )


def _at(edit: Edit, strength: float) -> Edit:
    """The edit at a strength, still about what it erases."""
    scaled = edit * strength
    return edit if strength == 1 else Edit(scaled.deltas, {**edit.about, "parents": scaled.about["parents"]})


def _refusal(model: Model, edit: Edit, name: str, asked: Asked, out: Path) -> str | None:
    """Why this model cannot be exported so, or there."""
    if isinstance(model, SeededGan) and not isinstance(model, StyleGan):
        return (
            f"{model.name} is not a StyleGAN2, and no export format holds another GAN; the edit is in the run's folder."
        )
    if isinstance(model, StyleGan) and name not in OF_GANS:
        return f"{model.name} is a GAN, which goes out as {' or '.join(OF_GANS)}."
    if isinstance(model, FlowTransformer) and name not in OF_FLOWS:
        return f"{model.name} is a flow transformer, which goes out as {', '.join(OF_FLOWS)}."
    if isinstance(model, FlowTransformer) and model.family == "sd3" and name == "kohya-lora":
        return "Stable Diffusion 3 has no names of kohya's; export diffusers-lora, edit or pipeline."
    if not isinstance(model, StyleGan) and name == "gan":
        return f"{model.name} is a diffusion model; gan is for generators."
    if out.suffix in FILES and out.suffix not in form(name).files:
        written = " or ".join([*(f"a name ending in {suffix}" for suffix in form(name).files), "a folder"])
        return f"{out}: {name} is not written as {out.suffix}; give {written}."
    base = Path(model.name).expanduser()
    if base.exists() and out.exists() and base.samefile(out):
        return f"{out} is the base model itself, which the edit needs; choose another place."
    return refusal(name, edit, asked)


def asked_of(
    name: str,
    strength: float = 1.0,
    dtype: str | None = None,
    variant: str | None = None,
    error: float | None = None,
    rank: int | None = None,
    size: float | None = None,
) -> Asked:
    """What is asked for, checked; BadInput for values that cannot be meant and options the format does not have."""
    if dtype is not None and dtype not in DTYPES:
        raise BadInput(f"Unknown dtype {dtype!r}. Possible: {', '.join(DTYPES)}.")
    if not math.isfinite(strength):
        raise BadInput(f"The strength should be a number, usually between 0 and 1, not {strength}.")
    if error is not None and not 0 < error < 1:
        raise BadInput(f"The error is a share of the edit between 0 and 1, such as 0.01, not {error:g}.")
    if variant is not None and not re.fullmatch(r"\w[\w-]{0,31}", variant):
        raise BadInput(f"The variant {variant!r} becomes part of file names; letters, digits and dashes make one.")
    if rank is not None and rank < 1:
        raise BadInput(f"The rank should be at least 1, not {rank}.")
    if size is not None and not 0 < size < math.inf:
        raise BadInput(f"The size is in megabytes, such as 5, not {size:g}.")
    known = form(name).options if name in FORMS else OPTIONS
    for option, value in (("variant", variant), ("error", error), ("rank", rank), ("size", size)):
        if value is not None and option not in known:
            raise BadInput(f"{name} has no --{option}; it takes {', '.join(f'--{each}' for each in known) or 'none'}.")
    if sum(value is not None for value in (error, rank, size)) > 1:
        raise BadInput("Give one of --error, --rank and --size, not more: each decides the others.")
    if "lora" in name and find_spec("peft") is None:
        raise BadInput("diffusers loads LoRAs with the package peft, which is not here; `pip install peft`.")
    return Asked(strength, DTYPES[dtype] if dtype else None, variant, error, rank, size)


def _place(model: Model, edit: Edit, out: Path, kind: Form, asked: Asked) -> Place:
    return Place(
        path=cards.quoted(out.name if is_file(out) or kind.file is None else f"{out.name}/{kind.file}"),
        base=cards.quoted(PurePath(model.name).name),
        prompt=cards.quoted(cards.spoken(edit.about)),
        kind="gan" if isinstance(model, StyleGan) else model.family,
        published=is_published(model),
        v_prediction=not isinstance(model, StyleGan) and predicts_v(model),
        variant=asked.variant,
        call="" if isinstance(model, StyleGan) else _spoken_call(model),
    )


def _spoken_call(model: Painter) -> str:
    """The arguments of a pipeline's call beyond the prompt; a Stable Diffusion needs none."""
    given = {} if isinstance(model, StableDiffusion) else model.stock_call(model.default_guidance)
    steps = {"num_inference_steps": model.default_steps} if given else {}
    return "".join(f", {name}={value!r}" for name, value in (steps | given).items())


def _dtype_name(asked: Asked, model: Model, edit: Edit, kind: Form) -> str:
    whole = torch.float32 if isinstance(model, StyleGan) else model.dtype
    own = {delta.dtype for delta in edit.deltas.values()} if kind.adds and kind.file else {whole}
    return ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in ({asked.dtype} if asked.dtype else own)))
