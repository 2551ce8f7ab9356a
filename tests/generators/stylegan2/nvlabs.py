"""Pickles as NVlabs' repositories write them, made without their code: modules that travel with their source."""

from __future__ import annotations

import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class Persistent:
    """A module whose reduction names `torch_utils.persistence`, as the decorated classes of the ADA repository do."""

    def __init__(self, kind: str, tensors: Mapping[str, Tensor], source: str, **kwargs: Any) -> None:
        inner: dict[str, dict[str, Tensor]] = {}
        own: dict[str, Tensor] = {}
        for name, value in tensors.items():
            first, dot, rest = name.partition(".")
            (inner.setdefault(first, {}) if dot else own)[rest or first] = value
        buffers = {name: own.pop(name) for name in list(own) if name in ("w_avg", "noise_const", "resample_filter")}
        self.source, self.kind = source, kind
        self.state = {
            "training": False,
            "_parameters": OrderedDict((name, torch.nn.Parameter(value)) for name, value in own.items()),
            "_buffers": OrderedDict(buffers),
            "_modules": OrderedDict((name, Persistent("Layer", part, source)) for name, part in inner.items()),
            "_non_persistent_buffers_set": set(),
            "_init_args": (),
            "_init_kwargs": kwargs,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        meta = {"type": "class", "version": 6, "module_src": self.source, "class_name": self.kind, "state": self.state}
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,)


def write(path: Path, content: Any) -> Path:
    """Pickles with the names of NVlabs' modules standing for what a reader must provide."""
    module = types.ModuleType("torch_utils.persistence")

    def _reconstruct_persistent_obj(meta: Any) -> Any:
        raise AssertionError("the official loader would run module_src here")

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    added = {"torch_utils": types.ModuleType("torch_utils"), "torch_utils.persistence": module}
    sys.modules.update(added)
    try:
        path.write_bytes(pickle.dumps(content))
    finally:
        for name in added:
            del sys.modules[name]
    return path


def snapshot(path: Path, generator: Mapping[str, Tensor], critic: Mapping[str, Tensor], source: str = "") -> Path:
    """A training snapshot: G, D, G_ema and what came with them."""
    kwargs = {"c_dim": 0, "synthesis_kwargs": {"conv_clamp": 256}, "epilogue_kwargs": {"mbstd_group_size": 8}}
    return write(
        path,
        {
            "training_set_kwargs": {"path": "faces.zip"},
            "augment_pipe": None,
            "G": Persistent("Generator", generator, source, **kwargs),
            "G_ema": Persistent("Generator", generator, source, **kwargs),
            "D": Persistent("Discriminator", critic, source, **kwargs),
        },
    )
