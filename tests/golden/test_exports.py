"""Every export format's files: names, shapes and bits of tensors, metadata keys; and what is read back from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from erase.edit import Edit
from erase.rng import stream
from erase.work import drain
from generators.checkpoints import text_encoder_edit
from generators.export.export import export
from generators.export.format import FORMS, Asked, form
from generators.loading import load
from tests.generators.exports import ABOUT, readers, text_layers
from tests.golden.golden import Brittle, check
from tests.golden.golden import digest as bits
from tests.golden.surface import shape
from tests.toys.gan import ToyGan
from tests.toys.pipelines import FAMILIES, Family, toy_folder

OF_DIFFUSION = tuple(name for name in FORMS if name != "gan")
TIMED = ("modelspec.date", "ss_training_started_at", "ss_training_finished_at")  # what no two exports have in common


def content(folder: Path) -> dict[str, Any]:
    """All files of a folder: of tensors a line each, of JSON the shape, of others that they are there."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors":
            found[name] = tensors(path)
        elif path.suffix == ".pt":
            held = torch.load(path, weights_only=True)
            found[name] = {key: listed(part) for key, part in held.items()}
        elif path.suffix == ".json":
            found[name] = shape(json.loads(path.read_text(encoding="utf-8")))
        else:
            found[name] = "a file"
    return found


def tensors(path: Path) -> dict[str, Any]:
    """A safetensors file: its metadata, and its tensors in short."""
    with safe_open(path, framework="pt") as file:
        held = {name: file.get_tensor(name) for name in file.keys()}
        metadata = dict(sorted((file.metadata() or {}).items()))
    keys = {key: value if len(value) < 30 and not key.endswith("hash") and key not in TIMED else "a text"
            for key, value in metadata.items()}  # fmt: skip
    return {"metadata": keys, "tensors": listed(held)}


def listed(held: Any) -> Any:
    """Tensors by name in short: how many, a digest of names, kinds and shapes, one of all bits, and the first three."""
    if not isinstance(held, dict) or not all(torch.is_tensor(part) for part in held.values()):
        return shape(held)
    names = [f"{name} {part.dtype} {tuple(part.shape)}" for name, part in sorted(held.items())]
    every = Brittle(bits("".join(bits(part) for _, part in sorted(held.items()))))
    return {"count": len(names), "names": bits("\n".join(names)), "bits": every, "first": names[:3]}


@pytest.fixture(scope="module")
def models(toys: Path) -> dict[Family, Any]:
    """A toy of each family."""
    for family in FAMILIES:
        if not (toys / family).exists():
            toy_folder(toys / family, family)
    return {family: load(str(toys / family), device="cpu") for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_format_of_diffusion_models(models: dict[Family, Any], family: Family, tmp_path: Path) -> None:
    model, found, back = models[family], {}, {}
    for name in OF_DIFFUSION:
        edit = (text_layers if name == "plugin" else readers)(model)
        (tmp_path / name).mkdir()
        facts = drain(form(name).write(model, edit, tmp_path / name, Asked()))
        found[name] = {"files": content(tmp_path / name), "facts": sorted(facts)}
        if form(name).adds and form(name).file:
            again = text_encoder_edit.read(tmp_path / name / str(form(name).file))
            back[name] = [
                len(again.deltas),
                sum(float(delta.norm()) for delta in again.deltas.values()),
                sorted(again.about),
            ]
    check(f"exports/{family}", {"written": found, "read back": back})


def test_strength_precision_and_ranks(models: dict[Family, Any], tmp_path: Path) -> None:
    model, found = models["sd1"], {}
    asked = {
        "pipeline": Asked(strength=0.5, dtype=torch.float16, variant="fp16"),
        "single-file": Asked(strength=0.5, dtype=torch.bfloat16),
        "kohya-lora": Asked(rank=3), "diffusers-lora": Asked(error=0.3, dtype=torch.float16), "edit": Asked(rank=2),
    }  # fmt: skip
    for name, how in asked.items():
        (tmp_path / name).mkdir()
        facts = drain(form(name).write(model, readers(model), tmp_path / name, how))
        found[name] = {"files": content(tmp_path / name), "facts": facts}
    check("exports/asked", found)


def test_an_exported_gan_with_its_proof(tmp_path: Path) -> None:
    gan = ToyGan()
    shapes = {name: weight.shape for name, weight in gan.network.named_parameters() if "conv" in name}
    edit = Edit({name: 0.1 * torch.randn(shape, generator=stream(0, name)) for name, shape in shapes.items()},
                {**ABOUT, "method": "text-unlearn"})  # fmt: skip
    done = {name: drain(export(gan, edit, tmp_path / name, name, strength=0.5)) for name in ("gan", "edit")}
    check("exports/gan", {
        name: {"files": content(tmp_path / name), "listed": one.files, "tolerance": one.proof.tolerance,
               "effect": one.proof.effect, "facts": sorted(one.facts)} for name, one in done.items()
    })  # fmt: skip
