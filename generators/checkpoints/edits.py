"""Edits from files: the studio's own, exact or compressed, and LoRAs it exported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from erase import ledger
from erase.edit import Edit
from erase.errors import BadInput
from erase.low_rank import product
from generators.checkpoints.tensors import contents, header

ABOUT, MODULES = "erase.about", "erase.modules"
# The ends of a LoRA's two names per layer: kohya's and PEFT's.
PAIRS = ((".lora_up.weight", ".lora_down.weight"), (".lora_B.weight", ".lora_A.weight"))


def lora_header(edit: Edit, modules: Mapping[str, str]) -> dict[str, str]:
    """Metadata from which `read` makes an Edit again: its provenance, and the parameter each layer means."""
    return {ABOUT: json.dumps(dict(edit.about), sort_keys=True), MODULES: json.dumps(dict(modules), sort_keys=True)}


def is_edit(path: Path) -> bool:
    """Whether a file is an edit or a LoRA rather than a model."""
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    tensors, metadata = header(path)
    return bool({"edit", MODULES} & metadata.keys()) or any(name.endswith(PAIRS[0] + PAIRS[1]) for name in tensors)


def read(path: Path) -> Edit:
    """The Edit of a file; BadInput for a LoRA that does not say which weights of which model it changes."""
    metadata = header(path)[1]
    if "edit" in metadata:
        return Edit.load(path)
    if MODULES not in metadata:
        raise BadInput(
            f"{path} is a LoRA of another program: it does not say which weights of which model it changes. Merge it "
            "into its base model there, and give the merged model."
        )
    tensors = contents(path)
    try:
        modules = json.loads(metadata[MODULES])
        return Edit({name: _delta(tensors, module) for module, name in modules.items()}, json.loads(metadata[ABOUT]))
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} is damaged ({error}); export it again.") from error


def base(edit: Edit, path: Path) -> str:
    """The model an edit file was made for, as it was named then; BadInput where the file does not say."""
    found = ledger.common(edit.about, "model")
    if found is None:
        raise BadInput(f"{path} does not say which model it was made for; wear it with the Python API, Edit.worn.")
    return found


def _delta(tensors: Mapping[str, Tensor], module: str) -> Tensor:
    for up, down in PAIRS:
        if module + up in tensors:
            first, second = tensors[module + up], tensors[module + down]
            scale = float(tensors[f"{module}.alpha"]) / len(second) if f"{module}.alpha" in tensors else 1.0
            return product(first.flatten(1), second) * scale
    raise KeyError(f"nothing for {module}")
