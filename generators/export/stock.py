"""Run as a program in a clean interpreter: draws shots from a pipeline folder with stock diffusers and nothing of ours.

    python -I stock.py REQUEST.json

The request: {"folder", "variant", "dtype", "device", "prompts", "seeds", "steps", "guidance", "out"}. Writes
final latents [n c h w] and images [n 3 h w] in [0, 1] to the safetensors file `out`.
"""

import json
import sys
from pathlib import Path
from typing import Any

# A pipeline that needs the studio to open would be no export.
for package in ("erase", "generators", "benchmarks", "app"):
    sys.modules[package] = None  # type: ignore[assignment]

import torch  # noqa: E402
from diffusers.pipelines.pipeline_utils import DiffusionPipeline  # noqa: E402
from safetensors.torch import save_file  # noqa: E402


def draw(request: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The latents and images of a request."""
    dtype = getattr(torch, request["dtype"])
    pipeline: Any = DiffusionPipeline.from_pretrained(
        request["folder"], torch_dtype=dtype, variant=request["variant"], use_safetensors=True, local_files_only=True
    )
    pipeline = pipeline.to(request["device"])
    pipeline.set_progress_bar_config(disable=True)
    pipeline.watermark = None  # XL adds one to every picture if a further package happens to be installed
    last = {}

    def keep(_pipeline, _step, _time, values):
        last["latents"] = values["latents"]
        return {}

    images = pipeline(
        prompt=request["prompts"],
        num_inference_steps=request["steps"],
        guidance_scale=request["guidance"],
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in request["seeds"]],
        callback_on_step_end=keep,
        output_type="pt",
    ).images
    return {"latents": last["latents"].float().cpu().contiguous(), "images": images.float().cpu().contiguous()}


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    save_file(draw(asked), asked["out"])
