"""A StyleGAN2 from any file the studio reads, and back: our folders, NVlabs' pickles and tensors, rosinality's .pt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from erase.errors import BadInput
from generators.checkpoints.tensors import contents, header
from generators.stylegan2.discriminator import Critic
from generators.stylegan2.io import files, layouts
from generators.stylegan2.io.pickles import Record, flattened, network_tensors, read_pkl, read_pt
from generators.stylegan2.network import Shape, StyleGenerator
from generators.stylegan2.training import average_w

GENERATOR, CRITIC = "generator.safetensors", "critic.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """Both networks, the critic if there is one, and where they come from."""

    generator: StyleGenerator
    critic: Critic | None
    about: Mapping[str, Any] = field(default_factory=dict)


def read(path: Path) -> Checkpoint | None:
    """The StyleGAN2 in a folder or file; None where it holds another kind of model, BadInput where it is damaged."""
    if path.is_dir():
        return _folder(path) if (path / GENERATOR).is_file() else None
    if path.suffix == ".pkl":
        return _nvlabs(path)
    if path.suffix == ".pt":
        return _rosinality(path)
    return _safetensors(path) if path.suffix == ".safetensors" else None


def write_folder(checkpoint: Checkpoint, folder: Path, dtype: torch.dtype = torch.float32) -> list[Path]:
    """Our own layout: generator.safetensors and, if there is one, critic.safetensors."""
    networks = {GENERATOR: checkpoint.generator, CRITIC: checkpoint.critic}
    paths = []
    for name, network in networks.items():
        if network is not None:
            paths.append(folder / name)
            files.save(paths[-1], network, checkpoint.about, dtype)
    return paths


def write_nvlabs(checkpoint: Checkpoint, path: Path, dtype: torch.dtype = torch.float32) -> Path:
    """NVlabs' names and scale as safetensors, G_ema.… and D.…: `load_state_dict` of their modules takes each part."""
    shape = checkpoint.generator.shape
    tensors = _under("G_ema", layouts.with_filters(layouts.unfolded(checkpoint.generator), "generator"))
    if checkpoint.critic is not None:
        tensors |= _under("D", layouts.with_filters(layouts.unfolded(checkpoint.critic), "critic"))
    kwargs = {
        "z_dim": shape.z_dim, "c_dim": 0, "w_dim": shape.w_dim, "img_resolution": shape.resolution, "img_channels": 3,
        "mapping_kwargs": {"num_layers": shape.mapping_layers}, "synthesis_kwargs": {"conv_clamp": shape.clamp},
        "epilogue_kwargs": {"mbstd_group_size": shape.group},
    }  # fmt: skip
    about = json.dumps({**checkpoint.about, "folded": False})
    metadata = {"layout": "nvlabs", "init_kwargs": json.dumps(kwargs), "about": about}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in _cast(tensors, dtype).items()}, path, metadata)
    return path


def write_rosinality(checkpoint: Checkpoint, path: Path, dtype: torch.dtype = torch.float32) -> Path:
    """rosinality's .pt: g_ema, latent_avg and, if there is one, d; tensors only, so that `weights_only` reads it."""
    generator, shape = layouts.unfolded(checkpoint.generator), checkpoint.generator.shape
    held: dict[str, Any] = {
        "g_ema": _cast(layouts.rosinality(generator, layouts.generator_names(shape)), dtype),
        "latent_avg": generator["mapping.w_avg"].to(dtype),
    }
    if checkpoint.critic is not None:
        critic = layouts.rosinality(layouts.unfolded(checkpoint.critic), layouts.critic_names(shape))
        held["d"] = _cast(critic, dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(held, path)
    return path


def _folder(folder: Path) -> Checkpoint:
    try:
        generator, about = files.load_generator(folder / GENERATOR)
        critic = files.load_critic(folder / CRITIC)[0] if (folder / CRITIC).is_file() else None
    except (ValueError, SafetensorError, KeyError, RuntimeError) as error:
        raise BadInput(f"{folder} holds no whole StyleGAN2 ({str(error).splitlines()[0]}).") from error
    if critic is not None and critic.shape.resolution != generator.shape.resolution:
        raise BadInput(f"{folder}: the critic reads {critic.shape.resolution} px, the generator draws another size.")
    return Checkpoint(generator, critic, about)


def _safetensors(path: Path) -> Checkpoint | None:
    stored, metadata = header(path)
    if metadata.get("layout") == "nvlabs" or any(name.endswith("synthesis.b4.const") for name in stored):
        about = json.loads(metadata.get("about", "{}"))
        if about.get("folded") and metadata.get("layout") != "nvlabs":
            return Checkpoint(files.load_generator(path)[0], None, about)
        tensors = contents(path)
        kwargs = json.loads(metadata.get("init_kwargs", "{}"))
        named = any(name.startswith("G_ema.") for name in tensors)
        generator = _part(tensors, "G_ema") if named else tensors
        return _from_nvlabs(generator, _part(tensors, "D") or None, kwargs, kwargs, about | _source(path, "nvlabs"))
    return None


def _nvlabs(path: Path) -> Checkpoint:
    found, whole = read_pkl(path), path.stat().st_size
    if isinstance(found, tuple):
        raise BadInput(f"{path} is of the TensorFlow StyleGAN2; convert it with NVlabs' legacy.py, then load that.")
    root = found.get("G_ema") if isinstance(found, dict) else None
    if not isinstance(root, Record) or root.kind != "Generator":
        kind = f"a {root.kind}" if isinstance(root, Record) else "none"
        raise BadInput(f"{path} holds no StyleGAN2 generator under G_ema (found: {kind}).")
    generator = network_tensors(flattened(root), whole)
    judge = found.get("D") if isinstance(found, dict) else None
    critic = network_tensors(flattened(judge), whole) if isinstance(judge, Record) else None
    asked = root.state.get("_init_kwargs") or {}
    asked_of_critic = (judge.state.get("_init_kwargs") or {}) if isinstance(judge, Record) else {}
    return _from_nvlabs(generator, critic, asked, asked_of_critic, _source(path, "nvlabs"))


def _from_nvlabs(
    generator: Mapping[str, Tensor],
    critic: Mapping[str, Tensor] | None,
    asked: Mapping[str, Any],
    asked_of_critic: Mapping[str, Any],
    about: Mapping[str, Any],
) -> Checkpoint:
    within = {**asked, **(asked.get("synthesis_kwargs") or {})}
    clamp = within.get("conv_clamp")
    group = (asked_of_critic.get("epilogue_kwargs") or {}).get("mbstd_group_size", 4)
    shape = layouts.infer(generator, clamp, int(group) if isinstance(group, int) and group > 0 else 4)
    guessed = [name for name, said in (("clamp", "conv_clamp" in within), ("group", bool(asked_of_critic))) if not said]
    if critic is not None and not any(name.endswith("skip.weight") for name in critic):
        critic, guessed = None, [*guessed, "critic left out: possible here is the residual one"]
    return _built(shape, generator, critic, {**about, "guessed": guessed})


def _rosinality(path: Path) -> Checkpoint:
    found, whole = read_pt(path), path.stat().st_size
    held = found.get("g_ema", found.get("g")) if isinstance(found, dict) else None
    if not isinstance(held, dict):
        raise BadInput(f"{path} is not a StyleGAN2 of rosinality: it has no g_ema.")
    tensors = network_tensors(held, whole)
    shape = layouts.infer_rosinality(tensors)
    generator = layouts.renamed(tensors, layouts.generator_names(shape))
    if isinstance(found.get("latent_avg"), Tensor):
        generator["mapping.w_avg"] = network_tensors({"latent_avg": found["latent_avg"]}, whole)["latent_avg"].flatten()
    critic = None
    if isinstance(found.get("d"), dict):
        critic = layouts.renamed(network_tensors(found["d"], whole), layouts.critic_names(shape))
    return _built(shape, generator, critic, {**_source(path, "rosinality"), "guessed": ["clamp", "group"]})


def _built(
    shape: Shape, generator: Mapping[str, Tensor], critic: Mapping[str, Tensor] | None, about: Mapping[str, Any]
) -> Checkpoint:
    made, judge = layouts.build(shape, generator, critic)
    if "mapping.w_avg" not in generator:
        made.mapping.w_avg.copy_(average_w(made))
        about = {**about, "w_avg": "mean of 10000 draws, torch seed 0"}
    return Checkpoint(made, judge, about)


def _source(path: Path, layout: str) -> dict[str, Any]:
    return {"name": path.stem, "source": {"layout": layout, "file": path.name, "sha256": _sha256(path)}}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def _cast(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: value.to(dtype) for name, value in tensors.items()}


def _under(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}.{key}": value for key, value in tensors.items()}
