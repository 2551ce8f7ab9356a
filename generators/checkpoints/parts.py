"""What every source of a model comes down to: networks, tokenizers, a scheduler, and where they are from."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import diffusers
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from erase.errors import BadInput, out_of_memory
from generators.checkpoints import counts
from generators.checkpoints.tensors import fill

if TYPE_CHECKING:
    from transformers import CLIPTokenizer as Tokenizer
else:  # the one that knows where its tokens lie in the text; from transformers 5 on both names are the same class
    from transformers import CLIPTokenizerFast as Tokenizer

# What transformers would load code or kernels by.
NAMING_CODE = ("auto_map", "attn_implementation", "experts_implementation", "quantization_config", "custom_pipelines")
Family = Literal["sd1", "sd2", "xl"]
TextModel = CLIPTextModel | CLIPTextModelWithProjection
# diffusers' schedulers share no type that says what they offer.
Scheduler = Any


@dataclass(frozen=True)
class Parts:
    """A text-to-image model in pieces.

    The VAE and the fingerprint are functions, because neither is needed before something asks for it. `settings` are
    the pipeline's own switches from model_index.json, `defaults` the steps and guidance a folder recommends. `notes`
    are sentences for the user about what had to be assumed. `left_out` are parts of the folder that are not loaded,
    such as a safety checker.
    """

    name: str
    family: Family
    unet: UNet2DConditionModel
    texts: tuple[TextModel, ...]
    tokenizers: tuple[Tokenizer, ...]
    scheduler: Scheduler
    vae_config: Mapping[str, Any]
    vae: Callable[[], AutoencoderKL]
    fingerprint: Callable[[], str]
    vae_fingerprint: Callable[[], str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    licence: str | None = None
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def unet(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], dtype: torch.dtype, where: str
) -> UNet2DConditionModel:
    """The noise predictor of a config and its weights."""
    counts.check(config, where, len(tensors))
    return fill(partial(_configured, UNet2DConditionModel, config, where), tensors, dtype, where)


def vae(config: Mapping[str, Any], tensors: Mapping[str, Tensor], dtype: torch.dtype, where: str) -> AutoencoderKL:
    """The autoencoder; models published before 2023 name its attention differently."""
    counts.check(config, where, len(tensors))
    renamed = {_modern(name): tensor for name, tensor in tensors.items()}
    return fill(partial(_configured, AutoencoderKL, config, where), renamed, dtype, where)


def check_vae(config: Mapping[str, Any], where: str) -> None:
    """BadInput, before anything is computed, for an autoencoder that could not be read when pictures are decoded."""
    kind = config.get("_class_name", AutoencoderKL.__name__)
    if kind != AutoencoderKL.__name__:
        raise BadInput(f"{where} has the VAE {kind}; possible here: AutoencoderKL. Put the model's own VAE there.")
    scale = config.get("scaling_factor", 0.18215)
    if not isinstance(scale, (int, float)) or not math.isfinite(scale) or scale <= 0:
        raise BadInput(f"The VAE's config of {where} has the scaling_factor {scale!r}; it should be a number above 0.")
    with torch.device("meta"):
        _configured(AutoencoderKL, config, where)


def text(
    config: CLIPTextConfig, tensors: Mapping[str, Tensor], dtype: torch.dtype, where: str, *, projected: bool
) -> TextModel:
    """A CLIP text tower, whether its file or this transformers release says `text_model.` before every name or not."""
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    counts.check(config.to_dict(), where, len(tensors))
    with torch.device("meta"):
        prefixed = any(name.startswith("text_model.") for name in kind(config).state_dict())
    idle = ("logit_scale",) if projected else ("logit_scale", "text_projection.weight")  # no prompt's codes read them
    bare = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items() if name not in idle}
    named = {
        f"text_model.{name}" if prefixed and name != "text_projection.weight" else name: bare[name] for name in bare
    }
    return fill(partial(kind, config), named, dtype, where)


def scheduler(kind: str, config: Mapping[str, Any], where: str) -> Scheduler:
    """A diffusers scheduler by class name."""
    found = getattr(diffusers, kind, None) if isinstance(kind, str) else None
    if not isinstance(found, type) or not issubclass(found, SchedulerMixin):
        raise BadInput(
            f"{where} asks for the scheduler {kind!r}, which this diffusers ({diffusers.__version__}) does not have."
        )
    made = _configured(found, config, where)
    levels = getattr(made, "alphas_cumprod", None)
    if isinstance(levels, Tensor) and not bool(((levels >= 0) & (levels <= 1)).all()):
        raise BadInput(f"{where} has noise levels outside 0 to 1. Its beta_start and beta_end should be small numbers.")
    return made


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; BadInput if it is missing or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise BadInput(f"{path} is missing or cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not valid JSON ({error}).") from error
    if not isinstance(value, dict):
        raise BadInput(f"{path} should hold a JSON object, not a {type(value).__name__}.")
    return value


def text_config(path: Path) -> CLIPTextConfig:
    """The config of a CLIP text tower."""
    given = read_json(path)
    # A whole CLIP's config holds the text tower's inside.
    held = given.get("text_config", given)
    if not isinstance(held, dict):
        raise BadInput(f"{path} should hold a table under text_config, not a {type(held).__name__}.")
    plain = {key: value for key, value in held.items() if not key.startswith("_") and key not in NAMING_CODE}
    counts.check(plain, str(path))
    return _built(CLIPTextConfig.from_dict, plain, str(path))


def _configured(kind: Any, config: Mapping[str, Any], where: str) -> Any:
    counts.check(config, where)
    return _built(kind.from_config, {key: value for key, value in config.items() if key != "_name_or_path"}, where)


def _built(build: Callable[[Any], Any], config: Mapping[str, Any], where: str) -> Any:
    try:
        return build(config)
    except BadInput:
        raise
    except Exception as error:  # a config of somebody else can fail in any way
        if out_of_memory(error):
            raise
        raise BadInput(f"The config that belongs to {where} describes no model ({error}).") from error


def _modern(name: str) -> str:
    path = name.split(".")
    if "attentions" not in path or len(path) < 2:
        return name
    path[-2] = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}.get(path[-2], path[-2])
    return ".".join(path)
