"""Run as a program in a clean interpreter: opens an export with stock libraries and nothing of ours, and draws shots.

    python -I stock.py REQUEST.json

The request: {"form", "path", "file", "base", "variant", "dtype", "device", "prompts", "seeds", "steps", "call",
"absent", "out", "parent"}; `base` is a folder of the unedited model, of which `single-file` reads the configs only,
`call` holds further arguments of the pipeline and `absent` the names of components it lacks. Writes final latents
[n c h w] and images [n 3 h w] in [0, 1] to the safetensors file `out`.
"""

import json
import os
import runpy
import sys
import threading
import time
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection


def opened(request: dict[str, Any]) -> Any:
    """The pipeline with the export in it, on the device of the request."""
    form, path = request["form"], request["path"]
    local: dict[str, Any] = {"torch_dtype": getattr(torch, request["dtype"]), "local_files_only": True}
    local |= dict.fromkeys(request["absent"])
    if form == "pipeline":
        pipeline = DiffusionPipeline.from_pretrained(path, variant=request["variant"], use_safetensors=True, **local)
    elif form == "single-file":
        index = json.loads(Path(request["base"], "model_index.json").read_text(encoding="utf-8"))
        kind = getattr(diffusers, index["_class_name"])
        pipeline = kind.from_single_file(f"{path}/{request['file']}", config=request["base"], **local)
    else:
        pipeline: Any = DiffusionPipeline.from_pretrained(request["base"], use_safetensors=True, **local)
    if form in ("kohya-lora", "diffusers-lora"):
        lora: Any = path
        if form == "kohya-lora" and hasattr(pipeline, "transformer"):
            # diffusers translates the names of FLUX's outer layers, and forgets this word before them.
            state = pipeline.lora_state_dict(path, weight_name=request["file"], local_files_only=True)
            lora = {f"transformer.{name.removeprefix('transformer.')}": weight for name, weight in state.items()}
        pipeline.load_lora_weights(lora, weight_name=request["file"], local_files_only=True)
        pipeline.to(local["torch_dtype"])  # a LoRA arrives in the dtype it is stored in
    elif form == "plugin" and (Path(path) / "text_encoder_2").is_dir():
        pipeline.text_encoder = CLIPTextModel.from_pretrained(path, subfolder="text_encoder", **local)
        pipeline.text_encoder_2 = CLIPTextModelWithProjection.from_pretrained(path, subfolder="text_encoder_2", **local)
    elif form == "plugin":
        pipeline.text_encoder = CLIPTextModel.from_pretrained(path, **local)
    elif form == "edit":
        runpy.run_path(str(Path(__file__).with_name("apply_edit.py")))["wear"](pipeline, f"{path}/{request['file']}")
    return pipeline.to(request["device"])


def draw(request: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The latents and images of a request."""
    pipeline = opened(request)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.watermark = None  # XL adds one to every picture if a further package happens to be installed
    last, call = {}, dict(request["call"])
    if "negative_prompt" in call:
        call["negative_prompt"] = [call["negative_prompt"]] * len(request["prompts"])

    def keep(_pipeline, _step, _time, values):
        last["latents"] = values["latents"]
        return {}

    images = pipeline(
        prompt=request["prompts"],
        num_inference_steps=request["steps"],
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in request["seeds"]],
        callback_on_step_end=keep,
        output_type="pt",
        **call,
    ).images
    if last["latents"].ndim == 3:  # FLUX's tokens
        last["latents"] = pipeline._unpack_latents(
            last["latents"], call["height"], call["width"], pipeline.vae_scale_factor
        )
    return {"latents": last["latents"].float().cpu().contiguous(), "images": images.float().cpu().contiguous()}


def end_with(parent: int) -> None:
    """Ends this process soon after the one that started it, `parent`, has been killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    # An export that needs the studio to open would be none.
    sys.modules.update(dict.fromkeys(("erase", "generators", "benchmarks", "app")))  # type: ignore[arg-type]
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    end_with(asked["parent"])
    save_file(draw(asked), asked["out"])
