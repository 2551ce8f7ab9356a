"""Edits from what was exported: edit files, exact or compressed, LoRAs, and text encoders less those of their base."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from erase import provenance
from erase.edit import Edit, canonical, check_about
from erase.errors import BadInput, reading
from erase.low_rank import check_products, product
from generators.checkpoints import foreign
from generators.checkpoints.tensors import contents, header

ABOUT, MODULES = "erase.about", "erase.modules"
# The ends of a LoRA's two names per layer: kohya's and PEFT's.
PAIRS = ((".lora_up.weight", ".lora_down.weight"), (".lora_B.weight", ".lora_A.weight"))


def lora_header(edit: Edit, modules: Mapping[str, str]) -> dict[str, str]:
    """Metadata from which `read` makes an Edit again: its provenance, and the parameter each layer means."""
    return {ABOUT: json.dumps(dict(edit.about), sort_keys=True), MODULES: json.dumps(dict(modules), sort_keys=True)}


def place(path: Path) -> Path | None:
    """Where an exported edit lies: the path itself, or the file in a folder; None where there is none.

    A folder of text encoders is an edit as a whole.
    """
    with reading(path, "an export"):
        return _place(path)


def _place(path: Path) -> Path | None:
    if not path.is_dir():
        return path if _is_edit(path) else None
    if (path / "model_index.json").is_file():
        return None
    held = [file for file in path.glob("*.safetensors") if _is_edit(file)]
    if len(held) == 1:
        return held[0]
    return path if any(ABOUT in header(file)[1] for file in _towers(path).values()) else None


def _is_edit(path: Path) -> bool:
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    tensors, metadata = header(path)
    return bool({"edit", MODULES} & metadata.keys()) or any(name.endswith(PAIRS[0] + PAIRS[1]) for name in tensors)


def read(path: Path) -> Edit:
    """The Edit at a `place`; BadInput for a LoRA that does not say which weights of which model it changes."""
    with reading(path, "an edit"):
        return _read(path)


def _read(path: Path) -> Edit:
    if path.is_dir():
        return _difference(path)
    stored, metadata = header(path)
    if "edit" in metadata:
        return Edit.load(path)
    if MODULES not in metadata:
        kind, way = foreign.adapter(stored) or ("a LoRA", foreign.MERGE)
        raise BadInput(
            f"{path} is {kind} of another program: it does not say which weights of which model it changes. {way}"
        )
    tensors = contents(path)
    try:
        modules, about = json.loads(metadata[MODULES]), json.loads(metadata[ABOUT])
        check_about(about, path)
        pairs = [_pair(tensors, module) for module in modules]
        check_products([(up.flatten(1), down) for up, down in pairs])
        deltas = {name: _delta(tensors, module) for module, name in modules.items()}
        edit = Edit(deltas, about)
        if edit.unfinite is not None:
            raise BadInput(f"It holds NaN or infinity in {edit.unfinite}; such an edit draws nothing.")
        return edit
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(f"{path} is damaged ({error}); export it again.") from error


def base(edit: Edit, path: Path) -> str:
    """The model an edit file was made for, as it was named then; BadInput where the file does not say."""
    found = provenance.common_value(edit.about, "model")
    if found is None:
        raise BadInput(f"{path} does not say which model it was made for; apply it with the Python API, Edit.applied.")
    return found


def _towers(folder: Path) -> dict[str, Path]:
    """The text encoders of a folder by the part of a model they replace."""
    files = {"text": folder / "model.safetensors"} if (folder / "config.json").is_file() else {
        "text": folder / "text_encoder" / "model.safetensors", "text_2": folder / "text_encoder_2" / "model.safetensors"
    }  # fmt: skip
    return {part: file for part, file in files.items() if file.is_file()}


def _difference(folder: Path) -> Edit:
    """What text encoders have that those of their base do not, at the dtype they are stored in."""
    from generators.loading import load  # late, for it imports what reads models

    towers = _towers(folder)
    about = json.loads(next(metadata[ABOUT] for file in towers.values() if ABOUT in (metadata := header(file)[1])))
    model = load(base(Edit({}, about), folder), device="cpu", dtype="fp32")
    before = {canonical(name): weight.detach() for name, weight in model.network.named_parameters()}
    deltas = {}
    for part, file in towers.items():
        for name, weight in contents(file).items():
            old = before.get(f"{part}.{name}")
            if old is None or old.shape != weight.shape:
                raise BadInput(f"{folder} holds another text encoder than {model.name}, which it says it was made for.")
            delta = weight.float() - old.to(weight.dtype).float()
            if delta.any():
                deltas[f"{part}.{name}"] = delta
    return Edit(deltas, about)


def _delta(tensors: Mapping[str, Tensor], module: str) -> Tensor:
    first, second = _pair(tensors, module)
    scale = float(tensors[f"{module}.alpha"]) / len(second) if f"{module}.alpha" in tensors else 1.0
    return product(first.flatten(1), second) * scale


def _pair(tensors: Mapping[str, Tensor], module: str) -> tuple[Tensor, Tensor]:
    for up, down in PAIRS:
        if module + up in tensors:
            return tensors[module + up], tensors[module + down]
    raise KeyError(f"nothing for {module}")
