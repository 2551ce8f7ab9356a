"""A diffusers folder, on disk or from the Hugging Face hub, as Parts."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from erase.edit import canonical
from erase.errors import BadInput
from erase.files import remembered
from generators.checkpoints import parts
from generators.checkpoints.parts import Family, Parts, Tokenizer, read_json
from generators.checkpoints.tensors import contents, digest

# Whether a pipeline is an SDXL; those that begin with a picture consist of the same parts.
PIPELINES = {
    "StableDiffusionPipeline": False,
    "StableDiffusionXLPipeline": True,
    "StableDiffusionImg2ImgPipeline": False,
    "StableDiffusionXLImg2ImgPipeline": True,
}
FLOW_PIPELINES = ("FluxPipeline", "StableDiffusion3Pipeline")  # read in generators.flow
STEM = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
    "text_encoder_3": "model",
    "transformer": "diffusion_pytorch_model",
}
LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")  # parts that no erasure and no picture needs
TOWERS = {"unet": "unet", "text_encoder": "text", "text_encoder_2": "text_2", "vae": "vae"}


def fetch(name: str) -> Path:
    """The folder of a hub id, downloaded or from the local cache; BadInput if it cannot be had."""
    try:
        return Path(DiffusionPipeline.download(name, use_safetensors=True))
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise BadInput(
            f"{name!r} is not a file or folder here, and it could not be fetched from the Hugging Face hub: {reason} "
            "Check the name and the connection, or give a local folder."
        ) from error


def read(folder: Path, name: str, dtype: torch.dtype) -> Parts:
    """The parts of a diffusers folder; BadInput, naming the file, for anything that does not belong together."""
    index = _index(folder)
    if index["_class_name"] == "StableDiffusionXLImg2ImgPipeline" and not (folder / "text_encoder").is_dir():
        raise BadInput(f"{folder} is an SDXL refiner, which only finishes pictures of SDXL. Give the base model.")
    xl = PIPELINES[index["_class_name"]]
    towers = ("text_encoder", "text_encoder_2") if xl else ("text_encoder",)
    for component in (
        "unet",
        "vae",
        "scheduler",
        *towers,
        *(tower.replace("text_encoder", "tokenizer") for tower in towers),
    ):
        if not (folder / component).is_dir():
            raise BadInput(f"{folder} is not a complete pipeline: its subfolder {component} is missing.")
    unet = parts.unet(_config(folder, "unet"), *_weights(folder, "unet", dtype))
    texts = tuple(
        parts.text(
            parts.text_config(folder / tower / "config.json"),
            *_weights(folder, tower, dtype),
            projected=tower == "text_encoder_2",
        )
        for tower in towers
    )
    scheduler_config = read_json(folder / "scheduler" / "scheduler_config.json")
    named = index.get("scheduler")
    kind = scheduler_config.get("_class_name") or (named[-1] if isinstance(named, list) and named else "?")
    family: Family = "xl" if xl else "sd2" if unet.config["use_linear_projection"] else "sd1"
    defaults = read_json(folder / "studio.json") if (folder / "studio.json").is_file() else {}
    return Parts(
        name=name,
        family=family,
        unet=unet,
        texts=texts,
        tokenizers=tuple(tokenizer(folder / tower.replace("text_encoder", "tokenizer")) for tower in towers),
        scheduler=parts.scheduler(kind, scheduler_config, str(folder / "scheduler" / "scheduler_config.json")),
        vae_config=_config(folder, "vae"),
        vae=lambda: parts.vae(_config(folder, "vae"), *_weights(folder, "vae", dtype)),
        fingerprint=partial(_fingerprint, folder, ("unet", *towers)),
        vae_fingerprint=partial(_fingerprint, folder, ("vae",)),
        settings={key: value for key, value in index.items() if isinstance(value, bool)},
        defaults=defaults,
        licence=licence(folder / "README.md") or defaults.get("licence"),
        left_out=tuple(name for name in LEFT_OUT if isinstance(index.get(name), list) and index[name][-1]),
    )


def tokenizer(folder: Path) -> Tokenizer:
    """A CLIP tokenizer from a folder that holds tokenizer.json, or vocab.json and merges.txt."""
    if not (folder / "tokenizer.json").is_file() and not (folder / "vocab.json").is_file():
        raise BadInput(f"{folder} holds no tokenizer: there is neither tokenizer.json nor vocab.json in it.")
    try:
        return Tokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exception for malformed files
        raise BadInput(f"{folder} holds no readable CLIP tokenizer ({error}).") from error


def licence(card: Path) -> str | None:
    """The licence a model card states in its front matter, None where there is no such statement."""
    if not card.is_file():
        return None
    front = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    stated = re.search(r"^license:\s*[\"']?([\w.+\-]+)", front.group(1), re.MULTILINE) if front else None
    return stated.group(1) if stated else None


def _index(folder: Path) -> dict[str, Any]:
    if not (folder / "model_index.json").is_file():
        raise BadInput(
            f"{folder} is not a diffusers pipeline: it has no model_index.json. Give the folder of unet, vae and "
            "text_encoder, or a single .safetensors checkpoint."
        )
    index = read_json(folder / "model_index.json")
    if not isinstance(index.get("_class_name"), str) or index["_class_name"] not in PIPELINES:
        possible = ", ".join((*PIPELINES, *FLOW_PIPELINES))
        raise BadInput(f"{folder} is a {index.get('_class_name')}; possible here: {possible}.")
    return index


def _config(folder: Path, component: str) -> dict[str, Any]:
    return read_json(folder / component / "config.json")


def _weights(folder: Path, component: str, dtype: torch.dtype) -> tuple[dict[str, Tensor], torch.dtype, str]:
    """The arguments every function in `parts` takes after a config: tensors, dtype, and the file to name in errors."""
    files = weight_files(folder, component)
    tensors: dict[str, Tensor] = {}
    for path in files:
        tensors |= contents(path)
    return tensors, dtype, str(files[0] if len(files) == 1 else folder / component)


def weight_files(folder: Path, component: str) -> list[Path]:
    """The safetensors files of a component, as its own library picks them: shards before a single file or after it.

    A folder of one variant, such as fp16, is read as that; of several none is the one that was meant.
    """
    home, stem = folder / component, STEM[component]
    single, index = home / f"{stem}.safetensors", home / f"{stem}.safetensors.index.json"
    # diffusers reads shards even where an older single file lies beside them; transformers does the opposite.
    first, second = (single, index) if component.startswith("text_encoder") else (index, single)
    for path in (first, second):
        if path.is_file():
            return _shards(home, path) if path == index else [path]
    variants = [*home.glob(f"{stem}.*.safetensors"), *home.glob(f"{stem}.safetensors.index.*.json")]
    variants = sorted(path for path in variants if not re.search(r"-of-\d+", path.name))
    if len(variants) > 1:
        names = ", ".join(path.name for path in variants)
        raise BadInput(f"{home} holds several variants and no {single.name}: {names}. Keep one of them.")
    if variants:
        return _shards(home, variants[0]) if variants[0].suffix == ".json" else variants
    pickled = sorted(path.name for path in home.glob("*.bin"))
    why = f"{pickled[0]} is a pickle, which could run code" if pickled else f"{stem}.safetensors is missing"
    if (home / f"{home.name}.xml").is_file() or list(home.glob("openvino*")):
        why = "they are those of OpenVINO"
    raise BadInput(f"{home} has no safetensors weights: {why}. Re-save the pipeline with safe_serialization=True.")


def _shards(home: Path, index: Path) -> list[Path]:
    """The files that an index names; a map that points out of its folder is not followed."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(shard, str) for shard in places.values()):
        raise BadInput(f"{index} is not an index of shards: its weight_map is not a table of names. Get it again.")
    return [home / Path(shard).name for shard in sorted(set(places.values()))]


def _fingerprint(folder: Path, components: tuple[str, ...]) -> str:
    def named(component: str) -> Callable[[str], str | None]:
        prefix = TOWERS[component]
        idle = ("position_ids", "logit_scale")
        return lambda name: None if name.endswith(idle) else canonical(f"{prefix}.{name}")

    files = [(path, named(part)) for part in components for path in weight_files(folder, part)]
    return remembered([path for path, _ in files], f"1 {' '.join(components)}", lambda: digest(files))
