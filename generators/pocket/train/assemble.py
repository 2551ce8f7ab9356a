"""Put pocket-sd together as a diffusers folder, measure it, and draw its whole grid."""

from __future__ import annotations

import json
from typing import Any

import torch

from erase.work import drain
from generators.export.formats.diffusers_folder import write
from generators.loading import load
from generators.pocket.canvas import data, words
from generators.pocket.canvas.probe import accuracy, load_probe
from generators.pocket.train import networks
from generators.pocket.train.clip import TextLesson, learnt_tokenizer, new_clip, text_encoder
from generators.pocket.train.loop import Setting, tensors, to_float, trained
from generators.pocket.train.sd import finished_vae


def assemble(setting: Setting) -> None:
    """Write pocket-sd as a diffusers folder, measure it, and draw its whole grid."""
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    vae = finished_vae(setting)
    vae.register_to_config(scaling_factor=json.loads((setting.work / "scale.json").read_text()))
    unet = trained("unet", networks.unet(), setting)
    scheduler = DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, steps_offset=1
    )
    pipe = StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder(setting), tokenizer=learnt_tokenizer(), unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    raw, folder = setting.work / "assembled", setting.out / "pocket-sd"
    pipe.save_pretrained(raw)
    drain(write(load(str(raw), device="cpu", dtype="fp32"), folder, dtype=torch.float16))
    pipe = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32).to(setting.device)
    about = measure(pipe, setting)
    told = {"steps": 20, "guidance": about["guidance"], "provenance": about}
    (folder / "studio.json").write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(about), flush=True)


@torch.no_grad()
def measure(pipe: Any, setting: Setting) -> dict[str, Any]:
    """PSNR and probe readings of VAE reconstructions, and the grid's accuracies at several guidance scales."""
    from torchvision.utils import save_image

    every = slice(None, None, 4)  # of 6000 renders, five of each cell
    held, styles, objects = (
        part[every] for part in tensors(data.canvas_data(setting.work, 20, held_out=True), setting.device)
    )
    judge = load_probe(setting.out / "pocket-probes" / "judge.safetensors").to(setting.device)
    shown = to_float(held)
    again = torch.cat([pipe.vae(part * 2 - 1).sample.clamp(-1, 1) / 2 + 0.5 for part in shown.split(300)])
    psnr = (-10 * ((again - shown) ** 2).mean(dim=(1, 2, 3)).log10()).mean().item()
    plain, rebuilt = accuracy(judge, shown, styles, objects), accuracy(judge, again, styles, objects)
    about: dict[str, Any] = {
        "vae_psnr_db": psnr,
        "probe_on_renders": plain,
        "probe_on_reconstructions": rebuilt,
        "grid": {},
    }
    pipe.set_progress_bar_config(disable=True)
    prompts = [words.canonical(style, thing) for style, thing in data.CELLS]
    cell_styles = torch.arange(len(prompts), device=setting.device) // len(words.OBJECTS)
    cell_objects = torch.arange(len(prompts), device=setting.device) % len(words.OBJECTS)
    best = -1.0
    for guidance in (3.0, 4.0, 6.0):
        streams = [torch.Generator("cpu").manual_seed(188 + 1000 * i) for i in range(len(prompts))]
        drawn = pipe(
            prompts, generator=streams, num_inference_steps=20, guidance_scale=guidance, output_type="pt"
        ).images
        style, thing = accuracy(judge, drawn.float().to(setting.device), cell_styles, cell_objects)
        about["grid"][str(guidance)] = {"style": style, "object": thing, "n": len(prompts)}
        if style + thing > best:
            best, about["guidance"] = style + thing, guidance
            save_image(drawn, setting.work / "grid.png", nrow=len(words.OBJECTS), padding=0)
    save_image(torch.cat([shown[::5], again[::5]]), setting.work / "vae.png", nrow=len(words.OBJECTS), padding=0)
    return about


def unpack(setting: Setting) -> None:
    """The shipped models as unfinished states of their stages, so that training goes on from them."""
    from diffusers import StableDiffusionPipeline
    from safetensors.torch import load_file

    pipe = StableDiffusionPipeline.from_pretrained(setting.out / "pocket-sd", torch_dtype=torch.float32)
    half = torch.nn.ModuleDict({"post_quant_conv": pipe.vae.post_quant_conv, "decoder": pipe.vae.decoder})
    lesson = TextLesson(new_clip(setting.device))
    lesson.clip.load_state_dict(load_file(setting.out / "pocket-clip" / "open_clip_model.safetensors"))
    parts = {"vae": pipe.vae, "decoder": half, "unet": pipe.unet, "text": lesson, "clip": lesson.clip.visual}
    for name, part in parts.items():
        weights = {key: value.float() for key, value in part.state_dict().items()}
        state = {"network": weights, "ema": weights, "optimiser": {}, "step": 0, "spent": 0.0}
        torch.save(state, setting.work / f"{name}.state.pt")
    (setting.work / "scale.json").write_text(json.dumps(pipe.vae.config.scaling_factor))
