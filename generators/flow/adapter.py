"""Stable Diffusion 3 and FLUX.1 as Denoisers: velocity prediction on a straight path, two code spaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from erase.concept import Concept
from erase.model import Codes, Contrast, Rows, Shot, Trajectory
from erase.noise import NoisePath
from erase.work import Step, Work, drain
from generators.export.staging import arriving
from generators.flow import sampling
from generators.flow.families import READERS
from generators.flow.folder import FlowParts, write

DECODED_AT_ONCE = 8 * 512 * 512  # pixels
TOWERS = {"text_encoder": "text", "text_encoder_2": "text_2", "text_encoder_3": "text_3"}


class Network(nn.Module):
    """One root over the networks an erasure may change: transformer.…, text.…, text_2.…, text_3.…"""

    def __init__(self, transformer: nn.Module, texts: dict[str, nn.Module]) -> None:
        super().__init__()
        self.transformer = transformer
        for name, text in texts.items():
            setattr(self, TOWERS[name], text)


class FlowTransformer:
    """A flow transformer read from `parts`, computing on `device` in the dtype of its weights.

    Models with an embedded guidance (FLUX.1 dev) are told theirs and draw without a second pass; for all others a
    guidance above 1 is classifier-free guidance against the empty prompt.
    """

    def __init__(self, parts: FlowParts, *, device: torch.device) -> None:
        self.name, self.licence, self.parts = parts.name, parts.licence, parts
        self.kind, self.family, self.scheduler = parts.family, parts.family.name, parts.scheduler
        self.network = Network(parts.transformer, parts.texts).to(device)
        self.reading = parts.family.reading(parts.components, parts.transformer.config)
        self.device, self.dtype = device, parts.transformer.dtype
        config = parts.transformer.config
        side = int(parts.defaults.get("latent", self.kind.side(config)))
        self.latent_shape: tuple[int, int, int] = (self.kind.channels(config), side, side)
        self.image_scale = 2 ** (len(parts.vae_config["block_out_channels"]) - 1)
        # Components that a stock pipeline has to be told are missing.
        gone = [each for each in self.kind.optional if each not in parts.components]
        self.absent = [*gone, *(each.replace("text_encoder", "tokenizer") for each in gone)]
        self.embeds_guidance = bool(config.get("guidance_embeds", False))
        self.default_steps = int(parts.defaults.get("steps", 28))
        self.default_guidance = float(parts.defaults.get("guidance", 3.5 if self.embeds_guidance else 4.5))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of the transformer's and text encoders' stored weights: names, dtypes, shapes, bytes."""
        return self.parts.fingerprint()

    @cached_property
    def vae(self) -> Any:
        """The autoencoder, read when first needed."""
        return self.parts.vae().to(self.device)

    @cached_property
    def path(self) -> NoisePath:
        """The straight path, with the shift that the pipeline's own scheduler gives these latents."""
        return NoisePath.flow(int(self.scheduler.config["num_train_timesteps"]), sampling.shift(self))

    @property
    def spaces(self) -> tuple[str, ...]:
        return tuple(READERS[self.kind.transformer])

    def readers(self, space: str | None = None) -> dict[str, nn.Linear]:
        """The first linear layers that read codes, of one space or of all, by their dotted names under `network`."""
        names = READERS[self.kind.transformer]
        wanted = [f"transformer.{name}" for key in names if space in (None, key) for name in names[key]]
        return {name: self.network.get_submodule(name) for name in wanted}  # type: ignore[misc]

    def encode(self, prompts: Sequence[str]) -> Codes:
        """The codes of prompts, differentiable in the text encoders' weights."""
        return self.reading.encode(prompts, self.device)

    def contrast(
        self, concept: Concept, rows: Rows = "last", templates: Sequence[str] = ("{}",), space: str | None = None
    ) -> Contrast:
        """The concept's code rows of a space beside its anchor's; templates have one {} where the words go."""
        return self.reading.contrast(concept, rows, templates, space or self.spaces[0], self.device)

    def resting_codes(self, space: str | None = None) -> Tensor:
        """The codes every image reads [n code]: those of the empty prompt."""
        return self.reading.resting(space or self.spaces[0], self.device)

    @property
    def opening(self) -> int:
        return self.reading.opening

    @property
    def room(self) -> int:
        """How many sub-tokens of a prompt the leading text encoder reads."""
        return self.reading.lengths[self.reading.leading[0]] - self.opening - 1

    def tokens(self, prompt: str) -> list[int]:
        """The sub-tokens of a prompt, without start and end."""
        return self.reading.tokens(prompt)

    def frame(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Token numbers [n token] as the leading text encoder takes them."""
        return self.reading.frame(rows, self.device)

    def spell(self, row: Sequence[int]) -> str:
        """The text of sub-tokens, as a user could type it."""
        return self.reading.spell(row)

    @property
    def vocabulary(self) -> Tensor:
        """The word vectors [token word] of all tokens of the leading text encoder."""
        return self.reading.vocabulary

    @property
    def specials(self) -> frozenset[int]:
        """Token numbers that are no words."""
        return self.reading.specials

    def embed(self, ids: Tensor) -> Tensor:
        """The word vectors [n token word] of framed tokens."""
        return self.reading.embed(ids)

    def read(self, ids: Tensor, vectors: Tensor) -> Codes:
        """Codes of given word vectors [n token word]; what the other encoders read is what `ids` spell."""
        return self.reading.read(ids, vectors)

    def velocity(self, z: Tensor, level: Tensor, codes: Codes, guidance: float | None = None) -> Tensor:
        """u = ε − z0 for latents z [n c h w] at noise levels σ [n]; `guidance` is for models that embed theirs."""
        told = self.default_guidance if guidance is None else guidance
        return self.kind.call(self.parts.transformer, z.to(self.dtype), level, codes, told).to(z.dtype)

    def predict(self, z: Tensor, t: Tensor, codes: Codes) -> Tensor:
        """The velocity u = ε − z0 [n c h w] for latents z at times t ([n] or scalar, long), in the dtype of z."""
        level = self.path.noise[torch.as_tensor(t).cpu()].to(z.device, torch.float32).expand(len(z))
        return self.velocity(z, level, codes)

    def noise(self, shots: Sequence[Shot]) -> Tensor:
        """Standard normal latents [n c h w], one CPU generator per seed."""
        return sampling.standard_noise(self, shots)

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
        how = sampling.How(
            self.default_steps if steps is None else steps,
            self.default_guidance if guidance is None else guidance,
            batch,
        )
        return (yield from sampling.denoise(self, shots, how, codes, state))

    def trajectory(
        self,
        shots: Sequence[Shot],
        *,
        guidance: float = 3.0,
        steps: int = 50,
        batch: int = 32,
        state: Mapping[str, Tensor] | None = None,
    ) -> Work[Trajectory]:
        """Guided rollouts by Euler's rule with everything the network saw and said on the way."""
        return (yield from sampling.rollout(self, shots, sampling.How(steps, guidance, batch), state))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images [n 3 h w] in [0, 1], float on the CPU, of latents [n c h w]."""
        config = self.parts.vae_config
        z = latents.to(self.device, self.vae.dtype) / config["scaling_factor"] + (config.get("shift_factor") or 0.0)
        return (self.vae.decode(z, return_dict=False)[0] / 2 + 0.5).clamp(0, 1).float().cpu()

    def write(self, folder: Path, *, dtype: torch.dtype | None = None, variant: str | None = None) -> Work[None]:
        """Writes the model as it is now as a diffusers folder; `dtype` None keeps the loaded one."""
        return write(self, folder, dtype=dtype, variant=variant)

    def save(self, folder: Path) -> None:
        """Writes the model as a diffusers folder that stock diffusers opens; BadInput if the folder holds something."""
        with arriving(Path(folder), force=False) as temporary:
            drain(self.write(temporary))

    def stock_call(self, guidance: float) -> dict[str, Any]:
        """What the stock pipeline is called with, beside prompt, steps and generator, to draw what this model draws."""
        height, width = (side * self.image_scale for side in self.latent_shape[1:])
        call: dict[str, Any] = {"height": height, "width": width, "max_sequence_length": self.reading.longest}
        if self.family != "flux" or self.embeds_guidance:
            return call | {"guidance_scale": guidance}
        return call | ({"true_cfg_scale": guidance, "negative_prompt": ""} if guidance > 1 else {})
