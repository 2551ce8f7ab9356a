"""A StyleGAN2's weights in safetensors, with shape and provenance in the header; half precision on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from erase.files import replace
from generators.stylegan2.discriminator import Critic
from generators.stylegan2.io.layouts import check_shape
from generators.stylegan2.network import Shape, StyleGenerator

FORMAT = "1"
N = TypeVar("N", bound=nn.Module)


def write(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Writes tensors as they are and a JSON header, all or nothing."""
    with replace(path, durable=False) as part:
        save_file({key: value.contiguous().cpu() for key, value in tensors.items()}, part, {"about": json.dumps(about)})


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header; ValueError where the header is not ours."""
    with safe_open(path, framework="pt") as file:
        about = (file.metadata() or {}).get("about")
        if about is None:
            raise ValueError(f"{path} has no 'about' header: it was not written by this studio. Convert it first.")
        return {key: file.get_tensor(key) for key in file.keys()}, json.loads(about)


def save(
    path: Path, network: StyleGenerator | Critic, about: Mapping[str, Any], dtype: torch.dtype = torch.float16
) -> None:
    """Writes either network, in float16 unless asked otherwise."""
    kind = "generator" if isinstance(network, StyleGenerator) else "critic"
    header = {
        "format": FORMAT,
        "family": "stylegan2",
        "kind": kind,
        "shape": network.shape.model_dump(),
        "folded": True,
    }
    write(path, {key: value.to(dtype) for key, value in network.state_dict().items()}, dict(about) | header)


def load_generator(path: Path) -> tuple[StyleGenerator, dict[str, Any]]:
    """The generator in float32 and eval mode, and its header; ValueError where the file holds something else."""
    tensors, about = _of_kind(path, "generator")
    shape = Shape.model_validate(about["shape"])
    check_shape(shape, tensors, StyleGenerator)
    return _filled(StyleGenerator(shape), tensors), about


def load_critic(path: Path) -> tuple[Critic, dict[str, Any]]:
    """The critic in float32 and eval mode, and its header; ValueError where the file holds something else."""
    tensors, about = _of_kind(path, "critic")
    shape = Shape.model_validate(about["shape"])
    check_shape(shape, tensors, Critic)
    return _filled(Critic(shape), tensors), about


def _of_kind(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, about = read(path)
    if about.get("kind") != kind:
        raise ValueError(f"{path} holds a {about.get('kind', 'different network')}, not a {kind}.")
    return tensors, about


def _filled(network: N, tensors: Mapping[str, Tensor]) -> N:
    network.load_state_dict({key: value.float() for key, value in tensors.items()})
    return network.eval()
