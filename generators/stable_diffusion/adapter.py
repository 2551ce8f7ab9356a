"""Stable Diffusion 1.x, 2.x (noise and v prediction) and XL as a Denoiser."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import cpu_offload_with_hook
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import Tensor, nn

from erase.concept import Concept
from erase.errors import BadInput, reading
from erase.files import digest_of, dumps
from erase.model import Codes, Contrast, Rows, Shot, Trajectory
from erase.noise import NoisePath
from erase.work import Step, Work, drain
from generators.checkpoints.parts import Family, Parts, check_vae
from generators.export.formats.diffusers_folder import write
from generators.export.staging import arriving
from generators.stable_diffusion import sampling
from generators.stable_diffusion.text import Reading, zeros_like

# What a benchmark may ask for instead of the pipeline's own sampler.
SAMPLERS: dict[str, dict[str, Any]] = {
    "ddim": {"clip_sample": False, "thresholding": False},
    "dpm++": {"algorithm_type": "dpmsolver++", "solver_order": 2, "thresholding": False},
}
FEW_STEPS = (
    "{} has the scheduler of a model for few steps. It is drawn in 4 steps without guidance; --steps and --guidance "
    "say otherwise."
)
DECODED_AT_ONCE = 8 * 512 * 512  # pixels


class Network(nn.Module):
    """One root over the networks an erasure may change, so that a parameter has one name: unet.…, text.…, text_2.…"""

    def __init__(self, unet: nn.Module, texts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.unet = unet
        self.text = texts[0]
        if len(texts) == 2:
            self.text_2 = texts[1]


class StableDiffusion:
    """A latent diffusion model read from `parts`, computing on `device` in the dtype of its weights.

    `attention_slicing` computes attention in pieces: slower, and less memory at large sizes. `offload` keeps every
    network on the CPU except the one at work; it is for drawing and closed forms, since gradients need all networks in
    one place.
    """

    def __init__(
        self, parts: Parts, *, device: torch.device, attention_slicing: bool = False, offload: bool = False
    ) -> None:
        self.name, self.licence, self.settings = parts.name, parts.licence, parts.settings
        self.left_out, self.vae_config = parts.left_out, parts.vae_config
        self.family: Family = parts.family
        self.scheduler = parts.scheduler
        self.network = Network(parts.unet, parts.texts)
        self.reading = Reading(parts.texts, parts.tokenizers)
        self.device, self.dtype, self.offload = device, parts.unet.dtype, offload
        self._parts = parts
        self._check()
        side = parts.unet.config["sample_size"]
        height, width = (side, side) if isinstance(side, int) else side
        self.latent_shape: tuple[int, int, int] = (parts.unet.config["in_channels"], height, width)
        self.image_scale = 2 ** (len(parts.vae_config["block_out_channels"]) - 1)
        usual = {"steps": 50, "guidance": 5.0 if parts.family == "xl" else 7.5}
        few = sampling.few_steps(parts.scheduler)
        defaults = {**usual, **few, **parts.defaults}
        self.default_steps, self.default_guidance = int(defaults["steps"]), float(defaults["guidance"])
        self.notes = (*parts.notes, *([FEW_STEPS.format(self.name)] if few and not parts.defaults else []))
        if attention_slicing:
            parts.unet.set_attention_slice("auto")
        if device.type != "cpu" or self.dtype != torch.float32:
            # Measured: no gain for fp32 on the CPU, and there it would copy weights that are otherwise only mapped.
            self.network.unet.to(memory_format=torch.channels_last)
        self._hooks: list[Any] = []
        if offload:
            for tower in (*parts.texts, parts.unet):
                self._hooks.append(cpu_offload_with_hook(tower, device, self._hooks[-1] if self._hooks else None)[1])
        else:
            self.network.to(device)

    def _check(self) -> None:
        """BadInput for relatives of Stable Diffusion that this adapter would draw wrongly."""
        unet, parts = self._parts.unet.config, self._parts
        kind = parts.scheduler.config.get("prediction_type", "epsilon")
        if kind not in ("epsilon", "v_prediction"):
            raise BadInput(f"{self.name} predicts {kind!r}; possible here: epsilon, v_prediction.")
        if not hasattr(parts.scheduler, "alphas_cumprod"):
            raise BadInput(
                f"{self.name} is not a Stable Diffusion: its {type(parts.scheduler).__name__} has no noise levels ᾱ."
            )
        check_vae(parts.vae_config, self.name)
        made = parts.vae_config.get("latent_channels", 4)
        if unet["in_channels"] != made:
            raise BadInput(
                f"{self.name} takes {unet['in_channels']} channels where its VAE makes {made}: an inpainting or depth "
                "model. Give a text-to-image model."
            )
        width = sum(text.config.hidden_size for text in parts.texts)
        if unet["cross_attention_dim"] != width:
            raise BadInput(
                f"{self.name}: the U-Net reads codes of {unet['cross_attention_dim']}, the text encoder writes {width}."
            )
        if unet.get("time_cond_proj_dim") is not None:
            raise BadInput(
                f"{self.name} is distilled for few steps with built-in guidance (LCM); give the model it came from."
            )
        if (self.family == "xl") != (unet.get("addition_embed_type") == "text_time"):
            raise BadInput(f"{self.name}: its U-Net and its text encoders belong to different families.")

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of the U-Net's and text encoders' stored weights: names, dtypes, shapes, bytes."""
        return self._parts.fingerprint()

    @cached_property
    def drawing(self) -> str:
        """sha256 (hex) of what decides a picture beside the weights that can be edited: sizes, scheduler, VAE."""
        scheduler = {key: value for key, value in self.scheduler.config.items() if not key.startswith("_")}
        vae = {key: value for key, value in self.vae_config.items() if not key.startswith("_")}
        decides = [self.latent_shape, type(self.scheduler).__name__, scheduler, vae, dict(self.settings)]
        return digest_of([*json.loads(dumps(decides)), self._parts.vae_fingerprint()])

    @cached_property
    def vae(self) -> Any:
        """The autoencoder, read when first needed. XL's overflows in fp16 and is then computed in fp32."""
        with reading(self.name, "a VAE"):
            vae: Any = self._parts.vae()
        if self.dtype == torch.float16 and vae.config["force_upcast"] and self.family == "xl":
            vae.float()
        if self.offload:
            self._hooks.append(cpu_offload_with_hook(vae, self.device, self._hooks[-1])[1])
            return vae
        return vae.to(self.device)

    @cached_property
    def path(self) -> NoisePath:
        """√ᾱ and √(1−ᾱ) by time; what `predict` says is ε, also where the U-Net was trained to say v."""
        return NoisePath.diffusion(self.scheduler.alphas_cumprod)

    def ddim(self) -> Any:
        """A deterministic DDIM sampler over this model's noise levels and grid of times."""
        return DDIMScheduler.from_config(self.scheduler.config, **SAMPLERS["ddim"])

    spaces = ("text",)

    def readers(self, space: str | None = None) -> dict[str, nn.Linear]:
        """Every key and value layer that reads text codes, by its dotted name under `network`."""
        return {
            name: module
            for name, module in self.network.named_modules()
            if name.endswith(("attn2.to_k", "attn2.to_v")) and isinstance(module, nn.Linear)
        }

    def encode(self, prompts: Sequence[str]) -> Codes:
        """The codes of prompts, differentiable in the text encoders' weights."""
        return self.reading.encode(prompts, self.device)

    def contrast(
        self, concept: Concept, rows: Rows = "last", templates: Sequence[str] = ("{}",), space: str | None = None
    ) -> Contrast:
        """The concept's code rows beside its anchor's; `templates` are sentences with one {} where the words go."""
        return self.reading.contrast(concept, rows, templates, self.device)

    def resting_codes(self, space: str | None = None) -> Tensor:
        """The codes every image reads [n code]: the start code and all others of the empty prompt."""
        return self.reading.resting(self.device)

    def tokens(self, prompt: str) -> list[int]:
        """The sub-tokens of a prompt, without start and end."""
        return self.reading.tokens(prompt)

    opening = 1  # CLIP's start token

    @property
    def room(self) -> int:
        """How many sub-tokens of a prompt are read."""
        return self.reading.room

    def frame(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Token numbers [n token] as the text encoders take them; rows that are too long lose their last words."""
        return self.reading.frame(rows, self.device)

    def spell(self, row: Sequence[int]) -> str:
        """The text of sub-tokens, as a user could type it."""
        return self.reading.spell(row)

    @property
    def vocabulary(self) -> Tensor:
        """The word vectors [token word] of all tokens; XL's two encoders side by side."""
        return self.reading.vocabulary

    @property
    def specials(self) -> frozenset[int]:
        """Token numbers that are no words: start, end, padding, unknown."""
        return self.reading.specials

    def embed(self, ids: Tensor) -> Tensor:
        """The word vectors [n token word] of framed tokens, before positions are added."""
        return self.reading.embed(ids)

    def read(self, ids: Tensor, vectors: Tensor) -> Codes:
        """Codes of given word vectors [n token word]; `ids` from `frame` say where each prompt ends."""
        return self.reading.read(ids, vectors)

    @torch.no_grad()
    def unconditional(self) -> Codes:
        """The codes of the half without a prompt: the empty prompt's, or zeros where an XL model is configured so."""
        empty = self.encode([""])
        zeros = self.family == "xl" and self.settings.get("force_zeros_for_empty_prompt", True)
        return zeros_like(empty) if zeros else empty

    def unet_output(self, z: Tensor, t: Tensor, codes: Codes) -> Tensor:
        """What the U-Net itself says of latents z [n c h w] at t ([n] or scalar): noise or v, as it was trained."""
        unet = self.network.unet
        extra = None
        if codes.pooled is not None:
            height, width = (side * self.image_scale for side in self.latent_shape[1:])
            # XL is told the original size, the crop's corner and the target size; stock says full and uncropped.
            sizes = torch.tensor([height, width, 0, 0, height, width], dtype=self.dtype, device=z.device)
            extra = {"text_embeds": codes.pooled.to(self.dtype), "time_ids": sizes.expand(len(z), -1)}
        said = unet(
            z.to(self.dtype),
            t,
            encoder_hidden_states=codes.tokens.to(self.dtype),
            added_cond_kwargs=extra,
            return_dict=False,
        )[0]
        return said.to(z.dtype)

    def as_noise(self, said: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """ε from what the U-Net said of z at t: the same, or √ᾱ·v + √(1−ᾱ)·z."""
        if self.scheduler.config.get("prediction_type", "epsilon") == "epsilon":
            return said
        signal, noise = self.path.levels(t, z)
        return (signal * said + noise * z).to(z.dtype)

    def predict(self, z: Tensor, t: Tensor, codes: Codes) -> Tensor:
        """ε [n c h w] for latents z [n c h w] at times t ([n] or scalar, long), in the dtype of z."""
        t = torch.as_tensor(t, device=z.device)
        return self.as_noise(self.unet_output(z, t, codes), z, t)

    def noise(self, shots: Sequence[Shot]) -> Tensor:
        """Standard normal latents [n c h w], one CPU generator per seed."""
        return sampling.standard_noise(self, sampling.streams(shots))

    @contextlib.contextmanager
    def drawn_by(self, sampler: Literal["ddim", "dpm++"]) -> Iterator[None]:
        """Draw with DDIM (η = 0) or DPM-Solver++ (2M) for a while, on the pipeline's own noise levels."""
        kinds = {"ddim": DDIMScheduler, "dpm++": DPMSolverMultistepScheduler}
        before = self.scheduler
        self.scheduler = kinds[sampler].from_config(before.config, **SAMPLERS[sampler])
        try:
            yield
        finally:
            self.scheduler = before

    def sample(
        self, shots: Sequence[Shot], *, steps: int | None = None, guidance: float | None = None, batch: int = 32
    ) -> Work[Tensor]:
        """Draws with the pipeline's own scheduler: [n 3 h w] in [0, 1] on the CPU; None is the model's default."""
        latents = yield from self.latents(shots, steps=steps, guidance=guidance, batch=batch)
        height, width = (side * self.image_scale for side in self.latent_shape[1:])
        pieces = latents.split(max(DECODED_AT_ONCE // (height * width), 1)) if len(latents) else ()
        images = [torch.empty(0, 3, height, width)]
        for done, piece in enumerate(pieces, 1):
            images.append(self.decode(piece))
            yield Step("decode", done, len(pieces))
        self._rest()
        return torch.cat(images)

    def latents(
        self,
        shots: Sequence[Shot],
        *,
        steps: int | None = None,
        guidance: float | None = None,
        batch: int = 32,
        codes: Codes | None = None,
        state: Mapping[str, Tensor] | None = None,
    ) -> Work[Tensor]:
        """The same without the VAE: final latents [n c h w] on the CPU; `codes` are read in place of the prompts."""
        steps = self.default_steps if steps is None else steps
        guidance = self.default_guidance if guidance is None else guidance
        drawn = sampling.denoise(
            self, shots, steps=steps, guidance=guidance, batch=batch, codes=codes, state=state
        )  # fmt: skip
        return (yield from drawn)

    def trajectory(
        self,
        shots: Sequence[Shot],
        *,
        guidance: float = 3.0,
        steps: int = 50,
        batch: int = 32,
        state: Mapping[str, Tensor] | None = None,
    ) -> Work[Trajectory]:
        """Guided DDIM rollouts (η = 0) with everything the network saw and said on the way."""
        return (yield from sampling.rollout(self, shots, guidance=guidance, steps=steps, batch=batch, state=state))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images [n 3 h w] in [0, 1], float on the CPU, of latents [n c h w]."""
        vae, config = self.vae, self._parts.vae_config
        z = latents.to(self.device, vae.dtype) / config.get("scaling_factor", 0.18215)
        if self.family == "xl" and config.get("latents_mean") is not None and config.get("latents_std") is not None:
            mean, std = (
                torch.tensor(config[name], device=z.device, dtype=z.dtype) for name in ("latents_mean", "latents_std")
            )
            z = z * std.view(1, -1, 1, 1) + mean.view(1, -1, 1, 1)
        return (vae.decode(z, return_dict=False)[0] / 2 + 0.5).clamp(0, 1).float().cpu()

    def _rest(self) -> None:
        """With `offload`: everything back to the CPU, so that an idle model holds no accelerator memory."""
        for hook in self._hooks:
            hook.offload()

    def write(self, folder: Path, *, dtype: torch.dtype | None = None, variant: str | None = None) -> Work[None]:
        """Writes the model as it is now as a diffusers folder; `dtype` None keeps the loaded one."""
        return write(self, folder, dtype=dtype, variant=variant)

    def save(self, folder: Path) -> None:
        """Writes the model as a diffusers folder that stock diffusers opens; BadInput if the folder holds something."""
        with arriving(Path(folder), force=False) as temporary:
            drain(self.write(temporary))

    def stock_call(self, guidance: float) -> dict[str, Any]:
        """What the stock pipeline is called with, beside prompt, steps and generator, to draw what this model draws."""
        return {"guidance_scale": guidance}
