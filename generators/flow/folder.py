"""A diffusers folder of a flow transformer: read through diffusers' own loaders, written so that they open it again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers
import torch
import transformers
from safetensors.torch import save_model

from erase.errors import BadInput
from erase.work import Step, Work
from generators.checkpoints.diffusers_folder import licence, weight_files
from generators.checkpoints.parts import read_json
from generators.checkpoints.tensors import digest
from generators.export.formats.diffusers_folder import config, write_json
from generators.export.staging import room
from generators.flow.families import FAMILIES, Family

if TYPE_CHECKING:
    from generators.flow.adapter import FlowTransformer

TEXT_ENCODERS = ("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel")
TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast", "T5Tokenizer", "T5TokenizerFast")
SCHEDULER = "FlowMatchEulerDiscreteScheduler"


@dataclass(frozen=True)
class FlowParts:
    """A flow transformer in pieces, as `Parts` are those of a Stable Diffusion."""

    name: str
    family: Family
    transformer: Any
    components: Mapping[str, Any]
    scheduler: Any
    vae_config: Mapping[str, Any]
    vae: Callable[[], Any]
    fingerprint: Callable[[], str]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    licence: str | None = None

    @property
    def texts(self) -> dict[str, Any]:
        """The text encoders by the name of their folder."""
        return {name: part for name, part in self.components.items() if name.startswith("text_encoder") and part}


def is_flow(folder: Path) -> bool:
    """Whether a folder is the pipeline of a flow transformer."""
    return (folder / "model_index.json").is_file() and _kind(read_json(folder / "model_index.json")) in FAMILIES


def _kind(index: Mapping[str, Any]) -> str:
    return str(index.get("_class_name"))


def read(folder: Path, name: str, dtype: torch.dtype) -> FlowParts:
    """The parts of a folder; BadInput, naming what is wrong, for anything that does not belong together."""
    index = read_json(folder / "model_index.json")
    family = FAMILIES[_kind(index)]
    encoders = [*family.encoders, *(each for each in family.optional if (folder / each).is_dir())]
    for component in ("transformer", "vae", "scheduler", *encoders, *map(_tokenizer_of, encoders)):
        if not (folder / component).is_dir():
            raise BadInput(f"{folder} is not a complete pipeline: its subfolder {component} is missing.")
    load = partial(_component, folder, index, dtype)
    components = {each: load(each, TEXT_ENCODERS) for each in encoders}
    components |= {each: load(each, TOKENIZERS) for each in map(_tokenizer_of, encoders)}
    return FlowParts(
        name=name,
        family=family,
        transformer=load("transformer", (family.transformer,)),
        components=components,
        scheduler=load("scheduler", (SCHEDULER,)),
        vae_config=read_json(folder / "vae" / "config.json"),
        vae=lambda: load("vae", ("AutoencoderKL",)),
        fingerprint=partial(_fingerprint, folder, encoders),
        defaults=read_json(folder / "studio.json") if (folder / "studio.json").is_file() else {},
        licence=licence(folder / "README.md"),
    )


def _tokenizer_of(encoder: str) -> str:
    return encoder.replace("text_encoder", "tokenizer")


def _component(
    folder: Path, index: Mapping[str, Any], dtype: torch.dtype, component: str, possible: tuple[str, ...]
) -> Any:
    """One component by diffusers' or transformers' own loader; never a class that is not expected there."""
    named = index.get(component)
    kind = named[1] if isinstance(named, list) and len(named) == 2 else None
    if kind not in possible:
        raise BadInput(f"{folder}: its {component} is a {kind}; possible here: {', '.join(possible)}.")
    library = diffusers if hasattr(diffusers, kind) else transformers
    options: dict[str, Any] = {"local_files_only": True}
    if component.startswith(("text_encoder", "transformer", "vae")):
        weight_files(folder, component)  # says so where there are none but pickles
        options |= {"torch_dtype" if library is diffusers else "dtype": dtype, "use_safetensors": True}
    transformers.utils.logging.disable_progress_bar()  # it would write into the studio's own line
    try:
        part = getattr(library, kind).from_pretrained(str(folder / component), **options)
    except Exception as error:  # the libraries raise what they like for broken files
        raise BadInput(f"{folder / component} could not be read: {str(error).strip().splitlines()[0]}") from error
    return part.eval().requires_grad_(False) if isinstance(part, torch.nn.Module) else part


def _fingerprint(folder: Path, encoders: list[str]) -> str:
    def named(component: str) -> Callable[[str], str | None]:
        return lambda name: f"{component}.{name}"

    return digest([(path, named(part)) for part in ("transformer", *encoders) for path in weight_files(folder, part)])


def write(
    model: FlowTransformer, folder: Path, *, dtype: torch.dtype | None = None, variant: str | None = None
) -> Work[None]:
    """Writes the model as it is now as a folder that stock diffusers opens; `dtype` None keeps the loaded one."""
    dtype = dtype or model.dtype
    parts = {"transformer": model.parts.transformer, "vae": model.vae, **model.parts.texts}
    size = sum(weight.numel() * dtype.itemsize for part in parts.values() for weight in part.parameters())
    room(folder, size)
    for done, (name, part) in enumerate(parts.items(), 1):
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_json(folder / name / "config.json", config(part, dtype))
        stem = "model" if name.startswith("text") else "diffusion_pytorch_model"
        _save(part, folder / name / ".".join(filter(None, (stem, variant, "safetensors"))), dtype)
        yield Step("write", done, len(parts))
    for name, part in model.parts.components.items():
        if name.startswith("tokenizer"):
            part.save_pretrained(str(folder / name))
    (folder / "scheduler").mkdir(exist_ok=True)
    write_json(folder / "scheduler" / "scheduler_config.json", json.loads(model.scheduler.to_json_string()))
    write_json(folder / "model_index.json", _index(model))
    told = {"steps": model.default_steps, "guidance": model.default_guidance, "latent": model.latent_shape[1]}
    write_json(folder / "studio.json", told)


def _save(part: torch.nn.Module, path: Path, dtype: torch.dtype) -> None:
    """A part's weights in a dtype; those that share memory, such as T5's two names of one table, are stored once."""
    live = {name: parameter.dtype for name, parameter in part.named_parameters()}
    if set(live.values()) <= {dtype}:
        save_model(part, str(path), metadata={"format": "pt"})
        return
    copy = type(part).from_config(part.config) if hasattr(part, "from_config") else type(part)(part.config)
    copy.load_state_dict(part.state_dict())
    save_model(copy.to(dtype), str(path), metadata={"format": "pt"})


def _index(model: FlowTransformer) -> dict[str, Any]:
    parts = model.parts
    own = {name: ["transformers", type(part).__name__] for name, part in parts.components.items()}
    absent = [*(each for each in parts.family.optional if each not in own), "image_encoder", "feature_extractor"]
    absent += [_tokenizer_of(each) for each in parts.family.optional if each not in own]
    return {
        "_class_name": parts.family.pipeline,
        "_diffusers_version": diffusers.__version__,
        **{name: [None, None] for name in absent},
        **own,
        "scheduler": ["diffusers", type(model.scheduler).__name__],
        "transformer": ["diffusers", parts.family.transformer],
        "vae": ["diffusers", "AutoencoderKL"],
    }
