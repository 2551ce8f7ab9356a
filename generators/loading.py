"""From a name, a folder or a file to an adapter."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erase.errors import BadInput, nearest, plain, reading

if TYPE_CHECKING:  # torch and diffusers are imported when a model is loaded, not when models are listed
    import torch

    from generators.flow.adapter import FlowTransformer
    from generators.stable_diffusion.adapter import StableDiffusion
    from generators.stylegan2.adapter import SeededGan
from generators.assets import BUNDLED, assets

DCGAN = "dcgan-faces"  # brought by an optional package


GAN_FILES = (".safetensors", ".pkl", ".pt")  # a .safetensors file may also be a Stable Diffusion


DTYPES = ("auto", "fp32", "bf16", "fp16")


PICKLES = (".ckpt", ".pth", ".bin", ".pickle")


def load(
    name_or_path: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    attention_slicing: bool = False,
    offload: bool = False,
    config: str | Path | None = None,
) -> StableDiffusion | FlowTransformer | SeededGan:
    """A model by bundled name, folder, single file, or hub id: Stable Diffusion, FLUX.1, StyleGAN2 or DCGAN.

    A StyleGAN2 is a folder of this studio, or a file: .safetensors, NVlabs' .pkl, rosinality's .pt; a DCGAN a .tar, or
    `dcgan-faces`. `auto`
    is CUDA with bf16 where there is such a device and the CPU with fp32 otherwise. `config` is a folder laid out like a
    diffusers pipeline, with the tokenizer and configs a single file does not carry. Raises BadInput for everything
    that is no such model.
    """
    given = str(name_or_path).strip()
    where, precision = _device(device), _dtype(dtype, device)
    with reading(given, "a model"):
        return _loaded(given, where, precision, attention_slicing, offload, config)


def _loaded(
    given: str, where: torch.device, precision: torch.dtype, slicing: bool, offload: bool, config: str | Path | None
) -> StableDiffusion | SeededGan:
    if offload and where.type == "cpu":
        raise BadInput("Offloading moves networks between the CPU and an accelerator; on the CPU alone leave it out.")
    if config is not None and not Path(config).expanduser().is_dir():
        raise BadInput(f"There is no config folder {config}.")

    if plain(given) == plain(DCGAN) or (given.endswith(".tar") and Path(given).expanduser().is_file()):
        from generators import dcgan

        tar = Path(given).expanduser() if given.endswith(".tar") else dcgan.packaged()
        return _finite(dcgan.read(tar, tar.stem if given.endswith(".tar") else DCGAN, device=where, dtype=precision))
    gan = _gan(given)
    if gan is not None:
        from generators.stylegan2 import adapter
        from generators.stylegan2.io import checkpoint

        if (read := checkpoint.read(gan)) is not None:
            if config is not None:
                raise BadInput(f"{given!r} is a StyleGAN2 and carries its own shape; leave the config folder out.")
            return _finite(adapter.StyleGan(read, str(read.about.get("name", given)), device=where, dtype=precision))

    from generators.flow.adapter import FlowTransformer
    from generators.flow.folder import FlowParts
    from generators.stable_diffusion.adapter import StableDiffusion

    parts = _parts(given, precision, Path(config).expanduser() if config is not None else None)
    if isinstance(parts, FlowParts):
        if slicing or offload:
            raise BadInput(
                f"{given} is a flow transformer, for which there is no --attention-slicing and no --offload yet."
            )
        return _finite(FlowTransformer(parts, device=where))
    return _finite(StableDiffusion(parts, device=where, attention_slicing=slicing, offload=offload))


def _finite(model: Any) -> Any:
    """The same model; BadInput when a weight is not a number, for everything it draws would be black."""
    import torch

    for name, weight in model.network.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise BadInput(
                f"{model.name} holds NaN or infinity in {name}, so it draws nothing. Get the file again; if the model "
                "was converted to fp16, convert it to fp32 or bf16 instead."
            )
    return model


def _gan(given: str) -> Path | None:
    """Where a StyleGAN2 may lie: the bundled one, a folder that holds a generator, or a file that may be one."""
    for name in BUNDLED:
        if plain(name) == plain(given) and (name.endswith("-gan")):
            home = assets() / name
            if not (home / "generator.safetensors").is_file():
                raise BadInput(
                    f"The bundled model {name} is not at {home}; reinstall, or set STUDIO_ASSETS to its parent folder."
                )
            return home
    path = Path(given).expanduser()
    is_gan = (path / "generator.safetensors").is_file() or (path.is_file() and path.suffix in GAN_FILES)
    return path if given and is_gan else None


def _parts(given: str, dtype: torch.dtype, config: Path | None):
    from generators.checkpoints import diffusers_folder, single_file

    for name in BUNDLED:
        if plain(name) == plain(given):
            home = assets() / name
            if not (home / "model_index.json").is_file():
                raise BadInput(
                    f"The bundled model {name} is not at {home}; reinstall, or set STUDIO_ASSETS to its parent folder."
                )
            return _folder(home, name, dtype)
    path = Path(given).expanduser()
    if given and path.is_dir() and not (path / "model_index.json").exists() and (path / "model.safetensors").is_file():
        path = path / "model.safetensors"  # an exported checkpoint beside its card
    if given and path.is_file():
        _refuse_pickle(path)
        return single_file.read(path, given, dtype, config)
    if config is not None:
        raise BadInput(f"A config folder goes with a single .safetensors file; {given!r} is none.")
    if given and path.is_dir():
        return _folder(path, given, dtype)
    looks_local = given.startswith(("/", "./", "../", "~")) or path.suffix in (*GAN_FILES, *PICKLES)
    if looks_local:
        raise BadInput(f"There is no file or folder {given}.")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", given):
        return _folder(diffusers_folder.fetch(given), given, dtype)
    raise BadInput(
        f"{nearest(given, BUNDLED, 'model')} A folder, a .safetensors file and a hub id like owner/name work too."
    )


def _folder(folder: Path, name: str, dtype: torch.dtype):
    from generators.checkpoints import diffusers_folder
    from generators.flow import folder as flow

    return (flow.read if flow.is_flow(folder) else diffusers_folder.read)(folder, name, dtype)


def _refuse_pickle(path: Path) -> None:
    if path.suffix.lower() in PICKLES:
        raise BadInput(
            f"{path} is a pickle: opening it could run whatever code it carries. Get the .safetensors file most "
            "publishers offer beside it, or convert it where you trust it."
        )
    if path.suffix.lower() != ".safetensors":
        raise BadInput(f"{path} is not a model; possible: a .safetensors checkpoint, or a diffusers folder.")


def _device(device: str) -> torch.device:
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise nearest(device, ("auto", "cpu", "cuda", "cuda:0"), "device")
    if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise BadInput(
            f"This machine has {torch.cuda.device_count()} CUDA devices, so there is no {device}; use auto or cpu."
        )
    return torch.device(device)


def _dtype(dtype: str, device: str) -> torch.dtype:
    import torch

    if dtype not in DTYPES:
        raise nearest(dtype, DTYPES, "dtype")
    if dtype == "auto":
        dtype = "fp32" if _device(device).type == "cpu" else "bf16"
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
