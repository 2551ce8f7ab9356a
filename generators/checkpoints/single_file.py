"""One .safetensors checkpoint in CompVis or Stability layout (SD 1, SD 2, SDXL) as Parts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from torch import Tensor
from transformers import CLIPTextConfig

from erase.edit import canonical
from erase.errors import BadInput
from erase.files import remembered
from generators.checkpoints import diffusers_folder as folders
from generators.checkpoints import foreign, parts, shapes, vocabulary
from generators.checkpoints.parts import Family, Parts, Scheduler, TextModel, Tokenizer
from generators.checkpoints.tensors import contents, digest_of, header

UNET, VAE = "model.diffusion_model.", "first_stage_model."
# The prefix of each text tower and whether it follows OpenCLIP's naming.
TOWERS: dict[Family, tuple[tuple[str, bool], ...]] = {
    "sd1": (("cond_stage_model.transformer.", False),),
    "sd2": (("cond_stage_model.model.", True),),
    "xl": (("conditioner.embedders.0.transformer.", False), ("conditioner.embedders.1.model.", True)),
}
SUBFOLDERS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
SCHEDULER: dict[Family, tuple[str, dict[str, Any]]] = {
    "sd1": ("PNDMScheduler", {"set_alpha_to_one": False, "skip_prk_steps": True}),
    "sd2": ("DDIMScheduler", {"set_alpha_to_one": False, "clip_sample": False}),
    "xl": ("EulerDiscreteScheduler", {}),
}
NOISE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


@dataclass(frozen=True)
class Checkpoint:
    """An opened file: its path, family, tensor shapes and metadata."""

    path: Path
    family: Family
    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]
    unread: tuple[str, ...] = ()  # tensors that belong to no part of a model

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under a prefix, names as in the file."""
        return {name: tensor for name, tensor in contents(self.path).items() if name.startswith(prefix)}


def read(path: Path, name: str, dtype: torch.dtype, config: Path | None = None) -> Parts:
    """The parts of a checkpoint; configs and words come from `config`, else the file's metadata, else its shapes."""
    file = opened(path)
    with _config_folder(file, config) as given:
        vae_config = _given(given, "vae") or shapes.vae_config(shapes.under(file.shapes, VAE), file.family)
        unet_config = _given(given, "unet") or shapes.unet_config(
            shapes.under(file.shapes, UNET), file.family, _sample_size(file, vae_config)
        )
        if file.family == "xl" and not unet_config.get("addition_time_embed_dim"):
            pooled = file.shapes["conditioner.embedders.1.model.text_projection"][1]
            # Six sizes and offsets are embedded beside the pooled text.
            unet_config["addition_time_embed_dim"] = (
                unet_config["projection_class_embeddings_input_dim"] - pooled
            ) // 6
        texts = tuple(_text(file, number, given, dtype) for number in range(len(TOWERS[file.family])))
        tokenizers = tuple(_tokenizer(file, number, given, text) for number, text in enumerate(texts))
        scheduler = _scheduler(file, given)
        given_scheduler = given is not None and (given / "scheduler" / "scheduler_config.json").is_file()
    unet = _unet(file, unet_config)
    return Parts(
        name=name,
        family=file.family,
        unet=parts.unet(unet_config, unet, dtype, f"{path} (U-Net)"),
        texts=texts,
        tokenizers=tokenizers,
        scheduler=scheduler,
        vae_config=vae_config,
        vae=lambda: parts.vae(
            vae_config, convert_ldm_vae_checkpoint(file.tensors(VAE), vae_config), dtype, f"{path} (VAE)"
        ),
        fingerprint=lambda: remembered([path], f"1 {file.family}", lambda: digest_of(_named(file, unet_config, texts))),
        vae_fingerprint=lambda: remembered([path], "1 vae", lambda: digest_of(file.tensors(VAE))),
        settings={"force_zeros_for_empty_prompt": True} if file.family == "xl" else {},
        defaults=json.loads(file.metadata.get("studio.json", "{}")),
        licence=file.metadata.get("modelspec.license"),
        notes=(*_notes(file, given_scheduler),),
    )


def _unet(file: Checkpoint, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The U-Net's tensors under diffusers' names; BadInput for one that the converter does not know."""
    given = file.tensors(UNET)
    named = convert_ldm_unet_checkpoint(given, config)
    known = {id(tensor) for tensor in named.values()}
    if strange := sorted(name for name, tensor in given.items() if id(tensor) not in known):
        raise BadInput(
            f"{file.path} holds {strange[0]} in its U-Net ({len(strange)} such tensors). "
            "No Stable Diffusion has them; give a plain SD 1, SD 2 or SDXL."
        )
    return named


def _named(file: Checkpoint, unet_config: Mapping[str, Any], texts: Sequence[TextModel]) -> dict[str, Tensor]:
    """What a fingerprint covers, named and stored as in a diffusers folder of the same weights."""
    named = {f"unet.{name}": tensor for name, tensor in _unet(file, unet_config).items()}
    for number, text in enumerate(texts):
        tower = f"text{'_2' * number}"
        wanted = {canonical(f"{tower}.{name}") for name in text.state_dict()}
        own = {canonical(f"{tower}.{name}"): part for name, part in _text_tensors(file, number, text.config).items()}
        named |= {name: part for name, part in own.items() if name in wanted and not name.endswith("position_ids")}
    return named


def _notes(file: Checkpoint, given: bool) -> Iterator[str]:
    """What was assumed of a file that does not say it, and what of it is not read."""
    said = file.metadata.keys() & {"modelspec.prediction_type", "modelspec.architecture"}
    if file.family == "sd2" and not said and not given and not {"v_pred", "ztsnr"} & file.shapes.keys():
        yield (
            f"{file.path} does not say what it predicts, so v at 768 px is assumed, as in SD 2.1. "
            "For SD 2 base or SD-Turbo, pass --config with a scheduler that predicts epsilon."
        )
    if file.unread:
        yield (
            f"{file.path} holds {len(file.unread)} tensors that no part of the model reads, such as {file.unread[0]}. "
            "They are left out."
        )


def opened(path: Path) -> Checkpoint:
    """The file's header and family; BadInput for a file that is no whole Stable Diffusion checkpoint."""
    stored, metadata = header(path)
    names = {name: tensor.shape for name, tensor in stored.items()}
    for family, towers in TOWERS.items():
        wanted = (UNET, VAE, *(prefix for prefix, _ in towers))
        if all(any(name.startswith(prefix) for name in names) for prefix in wanted):
            foreign.refuse_relatives(path, stored, wanted)
            return Checkpoint(path, family, names, metadata, tuple(foreign.unread(stored, wanted)))
    raise _incomplete(path, names)


def _incomplete(path: Path, names: Mapping[str, tuple[int, ...]]) -> BadInput:
    """The error for a file that is no whole checkpoint: which part is missing, or what the file is instead."""
    found = [
        prefix
        for prefix in (UNET, VAE, "cond_stage_model.", "conditioner.")
        if any(n.startswith(prefix) for n in names)
    ]
    if found == [UNET, "conditioner."] or found == [UNET, "cond_stage_model."]:
        return BadInput(
            f"{path} was published without its VAE. Put a VAE into it, or give the model's diffusers folder."
        )
    if any(name.startswith("conditioner.embedders.0.model.") for name in names) and VAE in found:
        return BadInput(f"{path} is an SDXL refiner, which only finishes pictures of SDXL. Give the base model.")
    if len(found) < 2 and (error := foreign.no_model(path, names)) is not None:
        return error
    what = f"only the parts {', '.join(found)}" if found else "no tensors named as in one"
    return BadInput(
        f"{path} is not a complete Stable Diffusion checkpoint (U-Net, VAE and text encoder, original layout): "
        f"it has {what}. A LoRA, an edit or a single network cannot be loaded as a model."
    )


@contextmanager
def _config_folder(file: Checkpoint, config: Path | None) -> Iterator[Path | None]:
    """The folder configs are read from; a file may carry its own as metadata whose keys are paths in such a folder."""
    if config is not None:
        if not any((config / part).is_dir() for part in SUBFOLDERS):
            raise BadInput(f"{config} is not a config folder: none of {', '.join(SUBFOLDERS)} is in it.")
        yield config
        return
    carried = {key: text for key, text in file.metadata.items() if _is_config(key)}
    if not carried:
        yield None
        return
    with TemporaryDirectory() as temporary:
        for key, text in carried.items():
            target = Path(temporary, key)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        yield Path(temporary)


def _is_config(key: str) -> bool:
    return re.fullmatch(rf"({'|'.join(SUBFOLDERS)})/\w+\.(json|txt)", key) is not None


def _given(config: Path | None, part: str) -> dict[str, Any] | None:
    path = config / part / "config.json" if config else None
    return parts.read_json(path) if path and path.is_file() else None


def _sample_size(file: Checkpoint, vae_config: Mapping[str, Any]) -> int:
    stated = re.fullmatch(r"(\d+)(x\d+)?", file.metadata.get("modelspec.resolution", ""))
    if stated:
        return int(stated.group(1)) // 2 ** (len(vae_config["block_out_channels"]) - 1)
    return shapes.SAMPLE_SIZE[file.family]


def _text(file: Checkpoint, number: int, given: Path | None, dtype: torch.dtype) -> TextModel:
    prefix, open_clip = TOWERS[file.family][number]
    stored = given / f"text_encoder{'_2' * number}" / "config.json" if given else None
    config = parts.text_config(stored) if stored and stored.is_file() else None
    own = shapes.under(file.shapes, prefix)
    if open_clip:
        config = config or shapes.open_clip_config(own, layers=_layers(file.family, own))
    else:
        config = config or shapes.clip_config(shapes.under(own, "text_model.") or own)
    config.architectures = ["CLIPTextModelWithProjection" if number else "CLIPTextModel"]
    tensors = _text_tensors(file, number, config)
    return parts.text(config, tensors, dtype, f"{file.path} (text encoder {number + 1})", projected=number == 1)


def _text_tensors(file: Checkpoint, number: int, config: CLIPTextConfig) -> dict[str, Tensor]:
    prefix, open_clip = TOWERS[file.family][number]
    tensors = file.tensors(prefix)
    if open_clip:
        return _from_open_clip(tensors, prefix, config, projected=number == 1)
    return convert_ldm_clip_checkpoint(tensors)


def _layers(family: Family, own: Mapping[str, tuple[int, ...]]) -> int:
    """SD 2 reads the last but one layer of a 24-layer tower; files written from diffusers hold only those 23."""
    stored = shapes.count(own, "transformer.resblocks.")
    return stored - 1 if family == "sd2" and stored != 23 else stored


def _from_open_clip(
    tensors: dict[str, Tensor], prefix: str, config: CLIPTextConfig, *, projected: bool
) -> dict[str, Tensor]:
    unused = (
        f"{prefix}transformer.resblocks.{config.num_hidden_layers}.",
        *(() if projected else (f"{prefix}text_projection",)),
    )
    # The converter asks a module's config for the width at which to split q, k and v.
    return convert_open_clip_checkpoint(
        SimpleNamespace(config=config), {n: t for n, t in tensors.items() if not n.startswith(unused)}, prefix
    )


def _tokenizer(file: Checkpoint, number: int, given: Path | None, text: TextModel) -> Tokenizer:
    folder = given / f"tokenizer{'_2' * number}" if given else None
    if folder and number and not folder.is_dir():
        folder = given / "tokenizer" if given else None
    words = text.config.vocab_size
    if folder and folder.is_dir():
        tokenizer = folders.tokenizer(folder)
        if len(tokenizer) > words:
            raise BadInput(
                f"The tokenizer in {folder} has {len(tokenizer)} tokens, the text encoder of {file.path} only {words}."
            )
        return tokenizer
    if words == vocabulary.SIZE:
        # SD 2 and SDXL's second tower were trained with prompts padded by token 0.
        return vocabulary.clip_tokenizer("<|endoftext|>" if (file.family, number) in (("sd1", 0), ("xl", 0)) else "!")
    raise BadInput(
        f"{file.path} reads {words} words, which is not CLIP's vocabulary of {vocabulary.SIZE}, and it carries no "
        "tokenizer; pass a folder that holds one (tokenizer/tokenizer.json) with --config."
    )


def _scheduler(file: Checkpoint, given: Path | None) -> Scheduler:
    path = given / "scheduler" / "scheduler_config.json" if given else None
    if path and path.is_file():
        config = parts.read_json(path)
        return parts.scheduler(config.get("_class_name", SCHEDULER[file.family][0]), config, str(path))
    kind, own = SCHEDULER[file.family]
    if "ztsnr" in file.shapes:  # a marker tensor some trainers leave: no signal is left at the last time
        kind, own = SCHEDULER["xl" if file.family == "xl" else "sd2"]
        own = own | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return parts.scheduler(kind, NOISE | own | {"prediction_type": prediction_type(file)}, str(file.path))


def prediction_type(file: Checkpoint) -> str:
    """What the U-Net predicts: as the metadata says, else v for SD 2 and files marked so, else the noise."""
    stated = file.metadata.get("modelspec.prediction_type", "").lower()
    if stated in ("v", "v_prediction", "epsilon"):
        return "epsilon" if stated == "epsilon" else "v_prediction"
    if stated:
        raise BadInput(f"{file.path} says it predicts {stated!r}; possible here: epsilon, v.")
    architecture = file.metadata.get("modelspec.architecture", "")
    if "v2-512" in architecture:
        return "epsilon"
    return "v_prediction" if file.family == "sd2" or "v_pred" in file.shapes else "epsilon"
