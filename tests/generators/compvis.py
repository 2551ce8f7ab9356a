"""A diffusers pipeline as one checkpoint, as tests of the reader need it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from generators.export.compvis_names import clip, open_clip, unet, vae
from tests.toys.pipelines import Family


def with_unused_layer(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """An OpenCLIP tower with one more layer, which nobody reads: what published SD 2 files hold."""
    layers = 1 + max(int(name.split(".")[2]) for name in named if "resblocks" in name)
    last = {name: tensor for name, tensor in named.items() if f"resblocks.{layers - 1}." in name}
    return named | {
        name.replace(f".{layers - 1}.", f".{layers}."): torch.zeros_like(tensor) for name, tensor in last.items()
    }


def single_file(path: Path, pipeline: Any, family: Family, metadata: Mapping[str, str] | None = None) -> Path:
    """Writes a pipeline as one checkpoint; SD 2's tower gets an unused layer."""
    parts = {
        "model.diffusion_model.": unet(pipeline.unet.config, pipeline.unet.state_dict()),
        "first_stage_model.": vae(pipeline.vae.config, pipeline.vae.state_dict()),
    }
    first = pipeline.text_encoder.state_dict()
    if family == "sd2":
        parts["cond_stage_model.model."] = with_unused_layer(open_clip(first))
    elif family == "sd1":
        parts["cond_stage_model.transformer."] = clip(first)
    else:
        parts["conditioner.embedders.0.transformer."] = clip(first)
        parts["conditioner.embedders.1.model."] = open_clip(pipeline.text_encoder_2.state_dict())
    tensors = {prefix + name: tensor.contiguous() for prefix, part in parts.items() for name, tensor in part.items()}
    save_file(tensors, path, metadata=dict(metadata or {}))
    return path
