"""Writing a model as a diffusers folder that every diffusers and transformers release reads completely."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from erase.edit import canonical
from erase.errors import BadInput
from erase.work import Step, Work

if TYPE_CHECKING:
    from generators.stable_diffusion import StableDiffusion


def write(
    model: StableDiffusion, folder: Path, *, dtype: torch.dtype | None = None, variant: str | None = None
) -> Work[None]:
    """Writes the model as it is now; `dtype` None keeps the loaded one, `variant` goes into the file names."""
    parts = {"unet": model.network.unet, "vae": model.vae}
    parts |= {f"text_encoder{_nth(place)}": text for place, text in enumerate(model.reading.texts)}
    dtype = dtype or model.dtype
    _room(
        folder, sum(weight.numel() * dtype.itemsize for part in parts.values() for weight in part.state_dict().values())
    )
    folder.mkdir(parents=True, exist_ok=True)
    for done, (name, part) in enumerate(parts.items(), 1):
        (folder / name).mkdir(exist_ok=True)
        stem = "model" if name.startswith("text") else "diffusion_pytorch_model"
        file = ".".join(filter(None, (stem, variant, "safetensors")))
        save_file(_weights(name, part, dtype), folder / name / file, metadata={"format": "pt"})
        _json(folder / name / "config.json", _config(part, dtype))
        yield Step("write", done, len(parts))
    for place, tokenizer in enumerate(model.reading.tokenizers):
        home = folder / f"tokenizer{_nth(place)}"
        tokenizer.save_pretrained(str(home))
        # transformers 5 writes tokenizer.json alone; the tokenizer of transformers 4 is read from these two.
        tokenizer.backend_tokenizer.model.save(str(home))
    (folder / "scheduler").mkdir(exist_ok=True)
    _json(folder / "scheduler" / "scheduler_config.json", _clean(json.loads(model.scheduler.to_json_string())))
    _json(folder / "model_index.json", _index(model))
    _json(folder / "studio.json", {"steps": model.default_steps, "guidance": model.default_guidance})


@contextmanager
def arriving(folder: Path, *, force: bool) -> Iterator[Path]:
    """A temporary sibling of `folder` that becomes it when the block ends well, and vanishes otherwise.

    Raises BadInput for a target that holds something: without `force` anything, with it anything but a pipeline. A full
    disk is BadInput too.
    """
    if folder.exists():
        _refuse_to_overwrite(folder, force)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{folder.parent} cannot be made ({error.strerror}).") from error
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.writing")
    replaced = folder.with_name(f".{folder.name}.{os.getpid()}.replaced")
    try:
        yield temporary
        if folder.exists():
            os.replace(folder, replaced)
        os.replace(temporary, folder)
    except (OSError, SafetensorError) as error:
        if replaced.exists() and not folder.exists():
            os.replace(replaced, folder)
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            raise BadInput(f"No disk space left while writing {folder}; nothing of it was kept.") from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def _refuse_to_overwrite(folder: Path, force: bool) -> None:
    if not folder.is_dir():
        raise BadInput(f"{folder} is a file; give a folder to export into.")
    if any(folder.iterdir()):
        if not force:
            raise BadInput(f"{folder} already holds something; choose another folder or replace it with --force.")
        if not (folder / "model_index.json").is_file():
            raise BadInput(
                f"{folder} holds something that is no pipeline, and --force replaces only pipelines; choose another."
            )


def _room(folder: Path, needed: int) -> None:
    home = folder
    while not home.exists():
        home = home.parent
    free = shutil.disk_usage(home).free
    if free < needed:
        raise BadInput(f"No disk space: {folder} needs {needed / 2**20:.1f} MiB, {free / 2**20:.1f} MiB are free.")


def _weights(name: str, part: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """A part's weights as they are stored: contiguous, on the CPU, and text towers always with `text_model.`

    Without that prefix transformers 4 finds none of them and draws random ones after a mere warning.
    """
    named = {_stored_name(name, key): weight.detach() for key, weight in part.state_dict().items()}
    return {key: weight.to("cpu", dtype).contiguous() for key, weight in named.items()}


def _stored_name(part: str, key: str) -> str:
    return canonical(f"text.{key}").removeprefix("text.") if part.startswith("text") else key


def _config(part: Any, dtype: torch.dtype) -> dict[str, Any]:
    if isinstance(part.config, dict):  # diffusers
        return _clean(json.loads(part.to_json_string()))
    config = json.loads(part.config.to_json_string(use_diff=False))
    return _clean({**config, "architectures": [type(part).__name__], "dtype": str(dtype).removeprefix("torch.")})


def _clean(config: dict[str, Any]) -> dict[str, Any]:
    """Without the place on this machine a config was read from."""
    return {key: value for key, value in config.items() if key != "_name_or_path"}


def _index(model: StableDiffusion) -> dict[str, Any]:
    towers = range(len(model.reading.texts))
    absent = ["feature_extractor", "image_encoder", *(["safety_checker"] if len(towers) == 1 else [])]
    return {
        "_class_name": "StableDiffusionXLPipeline" if len(towers) == 2 else "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        **model.settings,
        **({"requires_safety_checker": False} if len(towers) == 1 else {}),
        **{name: [None, None] for name in absent},
        "scheduler": ["diffusers", type(model.scheduler).__name__],
        **{
            f"text_encoder{_nth(place)}": ["transformers", type(model.reading.texts[place]).__name__]
            for place in towers
        },
        **{f"tokenizer{_nth(place)}": ["transformers", "CLIPTokenizer"] for place in towers},
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


def _nth(place: int) -> str:
    return "_2" if place else ""


def _json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
