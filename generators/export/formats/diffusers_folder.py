"""Writing a model as a diffusers folder that every diffusers and transformers release reads completely."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from erase.work import Step, Work
from generators.export.compvis_names import clip
from generators.export.staging import room

if TYPE_CHECKING:
    from generators.stable_diffusion.adapter import StableDiffusion


def write(
    model: StableDiffusion, folder: Path, *, dtype: torch.dtype | None = None, variant: str | None = None
) -> Work[None]:
    """Writes the model as it is now; `dtype` None keeps the loaded one, `variant` goes into the file names."""
    dtype, parts = dtype or model.dtype, _parts(model)
    room(
        folder, sum(weight.numel() * dtype.itemsize for part in parts.values() for weight in part.state_dict().values())
    )
    write_configs(model, folder, dtype)
    for done, (name, part) in enumerate(parts.items(), 1):
        stem = "model" if name.startswith("text") else "diffusion_pytorch_model"
        file = ".".join(filter(None, (stem, variant, "safetensors")))
        save_file(stored(name, part, dtype), folder / name / file, metadata={"format": "pt"})
        yield Step("write", done, len(parts))


def write_configs(model: StableDiffusion, folder: Path, dtype: torch.dtype) -> None:
    """Writes everything of a pipeline folder but the weights."""
    for name, part in _parts(model).items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_json(folder / name / "config.json", config(part, dtype))
    for place, tokenizer in enumerate(model.reading.tokenizers):
        write_tokenizer(tokenizer, folder / f"tokenizer{nth(place)}")
    (folder / "scheduler").mkdir(exist_ok=True)
    write_json(folder / "scheduler" / "scheduler_config.json", _clean(json.loads(model.scheduler.to_json_string())))
    write_json(folder / "model_index.json", _index(model))
    write_json(folder / "studio.json", {"steps": model.default_steps, "guidance": model.default_guidance})


def write_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Writes a tokenizer for every release: transformers 5 saves tokenizer.json alone, 4 reads the others."""
    tokenizer.save_pretrained(str(folder))
    tokenizer.backend_tokenizer.model.save(str(folder))


def _parts(model: StableDiffusion) -> dict[str, Any]:
    texts = {f"text_encoder{nth(place)}": text for place, text in enumerate(model.reading.texts)}
    return {"unet": model.network.unet, "vae": model.vae, **texts}


def stored(name: str, part: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """A part's weights as they are stored: contiguous, on the CPU, and text towers always with `text_model.`

    Without that prefix transformers 4 finds none of them and draws random ones after a mere warning.
    """
    weights = clip(part.state_dict()) if name.startswith("text") else part.state_dict()
    return {key: weight.detach().to("cpu", dtype).contiguous() for key, weight in weights.items()}


def config(part: Any, dtype: torch.dtype) -> dict[str, Any]:
    """A network's config as its folder holds it."""
    if isinstance(part.config, dict):  # diffusers
        return _clean(json.loads(part.to_json_string()))
    whole = json.loads(part.config.to_json_string(use_diff=False))
    return _clean({**whole, "architectures": [type(part).__name__], "dtype": str(dtype).removeprefix("torch.")})


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
            f"text_encoder{nth(place)}": ["transformers", type(model.reading.texts[place]).__name__] for place in towers
        },
        **{f"tokenizer{nth(place)}": ["transformers", "CLIPTokenizer"] for place in towers},
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


def nth(place: int) -> str:
    """What follows the name of the first or second text tower and tokenizer."""
    return "_2" if place else ""


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
