"""Train pocket-sd: its VAE, a sharper decoder for the finished encoder, and its U-Net."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generators.pocket.canvas import data, words
from generators.pocket.train import networks
from generators.pocket.train.clip import CAPTIONS_PER_CELL, text_codes
from generators.pocket.train.loop import Loop, Setting, batches, recoloured, tensors, to_float, trained


def _colour_gap(a: Tensor, b: Tensor) -> Tensor:
    """Absolute difference at three scales: coarse ones teach a young decoder every colour before any detail."""
    return sum((F.avg_pool2d(a - b, side).abs().mean() for side in (4, 8)), (a - b).abs().mean())


def _edge_gap(a: Tensor, b: Tensor) -> Tensor:
    return (a.diff(dim=3) - b.diff(dim=3)).abs().mean() + (a.diff(dim=2) - b.diff(dim=2)).abs().mean()


def train_vae(setting: Setting, name: str = "vae", new: Callable[[], Any] = networks.vae, crop: int = 64) -> None:
    """An AutoencoderKL: absolute and squared error, edges (thin lines blur otherwise) and a faint KL.

    Crops of `crop` px teach a small VAE more pictures in the same time; the last third is whole pictures.
    """
    device = setting.device
    images, _, _ = tensors(data.canvas_data(setting.work, setting.per_cell), device)
    torch.manual_seed(41)
    vae = new().to(device, memory_format=torch.channels_last)
    loop = Loop(name, vae, setting, 1.5e-3, ema=0.998, decay=0.0)
    picks, stream = batches(setting, len(images)), setting.stream(6)
    encode, decode = (
        (torch.compile(vae.encode), torch.compile(vae.decode)) if setting.compile else (vae.encode, vae.decode)
    )

    def loss_of(step: int) -> Tensor:
        shown = recoloured(to_float(images[next(picks)]) * 2 - 1, stream)
        if crop < shown.shape[-1] and loop.progress() < 2 / 3:
            down, along = torch.randint(shown.shape[-1] - crop + 1, (2,), generator=stream, device=device).tolist()
            shown = shown[..., down : down + crop, along : along + crop]
        with setting.autocast(enabled=crop == 64):  # where channels are few, bfloat16 is slower
            posterior = encode(shown).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=stream, device=device)
            drawn = decode((posterior.mean + posterior.std * noise).to(posterior.mean.dtype)).sample
        drawn = drawn.float()
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        return _colour_gap(drawn, shown) + F.mse_loss(drawn, shown) + 0.5 * _edge_gap(drawn, shown) + 2e-4 * kl

    loop.run(loss_of)


def train_decoder(setting: Setting) -> None:
    """Sharpen the decoder on the finished encoder's latents; the U-Net may learn meanwhile, for they stay."""
    device = setting.device
    images, _, _ = tensors(data.canvas_data(setting.work, setting.per_cell), device)
    vae = trained("vae", networks.vae(), setting)
    half = nn.ModuleDict({"post_quant_conv": vae.post_quant_conv, "decoder": vae.decoder}).train().requires_grad_(True)
    loop = Loop("decoder", half, setting, 1.5e-3, ema=0.998, decay=0.0)
    picks, stream = batches(setting, len(images)), setting.stream(7)

    def loss_of(step: int) -> Tensor:
        shown = to_float(images[next(picks)]) * 2 - 1
        with setting.autocast():
            with torch.no_grad():
                posterior = vae.encode(shown).latent_dist
                noise = torch.randn(posterior.mean.shape, generator=stream, device=device)
                latents = (posterior.mean + posterior.std * noise).to(posterior.mean.dtype)
            drawn = vae.decode(latents).sample
        drawn = drawn.float()
        return _colour_gap(drawn, shown) + F.mse_loss(drawn, shown) + 0.5 * _edge_gap(drawn, shown)

    loop.run(loss_of)


def finished_vae(setting: Setting) -> Any:
    """The VAE, with its sharpened decoder where that stage has run."""
    vae = trained("vae", networks.vae(), setting)
    if (setting.work / "decoder.state.pt").exists():
        trained("decoder", nn.ModuleDict({"post_quant_conv": vae.post_quant_conv, "decoder": vae.decoder}), setting)
    return vae


@torch.no_grad()
def latents_of(vae: Any, images: Tensor, setting: Setting) -> Tensor:
    parts = []
    for part in images.split(512):
        with setting.autocast():
            parts.append(vae.encode(to_float(part) * 2 - 1).latent_dist.mean.half())
    return torch.cat(parts)


@torch.no_grad()
def redrawn(images: Tensor, setting: Setting) -> Tensor:
    """Images [n 64 64 3], uint8, as the finished VAE encodes and decodes them."""
    vae, parts = finished_vae(setting), []
    for part in images.split(256):
        with setting.autocast():
            drawn = vae.decode(vae.encode(to_float(part) * 2 - 1).latent_dist.mean).sample
        parts.append(((drawn.float() / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1))
    return torch.cat(parts)


def train_unet(setting: Setting) -> None:
    """pocket-sd's UNet2DConditionModel: noise prediction with min-SNR weighting (2303.09556) and EMA."""
    from diffusers import DDPMScheduler

    device = setting.device
    images, styles, objects = tensors(data.canvas_data(setting.work, setting.per_cell), device)
    vae = trained("vae", networks.vae(), setting)
    latents = latents_of(vae, images, setting)
    kept = setting.work / "scale.json"
    if not (setting.work / "unet.state.pt").exists():  # a U-Net that goes on keeps the scale it was trained at
        kept.write_text(json.dumps(1 / latents.float().std().item()))
    scale = json.loads(kept.read_text())
    seen = torch.tensor(data.cells_without(setting.without), device=device)
    cells = styles * len(words.OBJECTS) + objects
    latents, cells = latents[seen[cells]], cells[seen[cells]]
    del images, vae
    codes = text_codes(setting)
    torch.manual_seed(51)
    unet = networks.unet().to(device, memory_format=torch.channels_last)
    loop = Loop("unet", unet, setting, 6e-4, ema=0.999, decay=0.0)
    picks, stream = batches(setting, len(latents)), setting.stream(8)
    cumulative = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod.to(
        device
    )
    weights = (5.0 * (1 - cumulative) / cumulative).clamp(max=1.0)  # min(snr, 5) / snr
    forward = torch.compile(unet.forward) if setting.compile else unet.forward

    def loss_of(step: int) -> Tensor:
        pick = next(picks)
        clean = latents[pick].float() * scale
        noise = torch.randn(clean.shape, generator=stream, device=device)
        t = torch.randint(1000, (len(pick),), generator=stream, device=device)
        level = cumulative[t][:, None, None, None]
        noisy = (level.sqrt() * clean + (1 - level).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        which = torch.randint(CAPTIONS_PER_CELL, (len(pick),), generator=stream, device=device)
        with setting.autocast():
            told = forward(noisy, t, codes[cells[pick], which], return_dict=False)[0]
        return (weights[t] * ((told.float() - noise) ** 2).mean(dim=(1, 2, 3))).mean()

    loop.run(loss_of)
