"""GANs behind the protocol of a Gan: one image per seed, and the eyes that can tell what it shows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from erase.concept import Concept
from erase.errors import BadInput
from erase.model import Contrast, Rows, Shot
from erase.work import Step, Work
from generators.stylegan2.io.checkpoint import Checkpoint, write_folder
from generators.stylegan2.network import Noise, gains, latents

if TYPE_CHECKING:
    from generators.clip import Clip, FaceScorer

LOOKED_AT = 1024  # pictures from which a concept's codes are sorted out
PAIRS = 128
PIXELS_AT_ONCE = 4 * 1024 * 1024  # 2.6 GiB at 1024 px; pictures of up to 256 px are drawn 64 at once


class SeededGan:
    """A network of a mapping and a synthesis, and the critic it was trained with if there is one."""

    default_steps = 1
    default_guidance = 1.0

    def __init__(
        self,
        network: Any,
        critic: nn.Module | None,
        name: str,
        about: Mapping[str, Any],
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        if dtype == torch.float16:
            raise BadInput("A GAN of half precision draws infinities; possible: fp32 and bf16.")
        self.name, self.about, self.device, self.dtype = name, about, device, dtype
        self.licence = about.get("licence", "")
        # Weights stay float32: they are few, and only the convolutions gain from a smaller dtype.
        self.network = network.to(device).requires_grad_(False).eval()
        self.critic = None if critic is None else critic.to(device).requires_grad_(False).eval()
        self.shape = network.shape
        self.z_dim: int = self.shape.z_dim

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name, weight in sorted(self.network.state_dict().items()):
            digest.update(name.encode() + weight.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def at_once(self) -> int:
        """How many images may be drawn together, for memory grows with their pixels."""
        return max(PIXELS_AT_ONCE // self.shape.resolution**2, 1)

    @cached_property
    def gains(self) -> dict[str, float]:
        return gains(self.network)

    @cached_property
    def critic_gains(self) -> dict[str, float]:
        return {} if self.critic is None else gains(self.critic)

    spaces = ("w",)

    def readers(self, space: str | None = None) -> dict[str, nn.Linear]:
        """The linear layers that read codes: none, unless a family has some."""
        return {}

    def contrast(
        self, concept: Concept, rows: Rows = "last", templates: Sequence[str] = ("{}",), space: str | None = None
    ) -> Contrast:
        """Codes of seeds that show the concept beside those of seeds that do not; rows and templates are for words."""
        scorer, present, absent = self.scorer(concept), [], []
        with torch.no_grad():
            ws = self.mapping(self.latents(range(LOOKED_AT)))
            for part in ws.split(min(64, self.at_once)):
                sure = scorer(self.synthesis(part) / 2 + 0.5)
                present.append(part[sure > 0.5, 0])
                absent.append(part[sure < 0.5, 0])
        with_it, without = torch.cat(present)[:PAIRS], torch.cat(absent)[:PAIRS]
        n = min(len(with_it), len(without))
        if n < 2:
            raise BadInput(f"Of {LOOKED_AT} images of {self.name}, {len(with_it)} show {concept.name!r}: too few.")
        return Contrast(with_it[:n], without[:n])

    def resting_codes(self, space: str | None = None) -> Tensor:
        return self.network.mapping.w_avg[None]

    def latents(self, seeds: Sequence[int]) -> Tensor:
        return latents(seeds, self.z_dim).to(self.device)

    def mapping(self, z: Tensor, psi: float = 1.0) -> Tensor:
        return self.network.mapping(z, psi)

    def synthesis(self, ws: Tensor, noise: Noise = "const") -> Tensor:
        return self.network.synthesis(ws, noise, self.dtype)

    def fresh_noise(self, count: int, rng: torch.Generator) -> list[Tensor]:
        shapes = [conv.noise_const.shape for conv in self.network.synthesis.convs()]
        return [torch.randn(count, 1, *shape, generator=rng).to(self.device) for shape in shapes]

    def sample(
        self,
        shots: Sequence[Shot],
        *,
        steps: int | None = None,
        guidance: float | None = None,
        batch: int = 32,
        psi: float = 1.0,
        noise: Literal["const", "none"] = "const",
    ) -> Work[Tensor]:
        """One image per seed; words mean nothing to it, nor do steps and guidance."""
        if any(shot.prompt for shot in shots):
            raise BadInput(f"{self.name} draws from seeds alone; leave the prompt out and give --seeds A:B.")
        images, batch = [], min(batch, self.at_once)
        for start in range(0, len(shots), batch):
            chunk = [shot.seed for shot in shots[start : start + batch]]
            with torch.no_grad():
                images.append(self.seen(self.synthesis(self.mapping(self.latents(chunk), psi), noise)))
            yield Step("draw", start + len(chunk), len(shots), preview=images[-1])
        return torch.cat(images)

    def seen(self, images: Tensor) -> Tensor:
        """Raw images as pictures: in [0, 1], float32, on the CPU."""
        return (images.detach().float() / 2 + 0.5).clamp(0, 1).cpu()

    def scorer(self, concept: Concept) -> FaceScorer:
        from generators import clip

        if self.about.get("world") != "pocket-faces":
            raise BadInput(
                f"Nobody here knows what {concept.name!r} looks like in images of {self.name}; mark some of its seeds "
                'with and without it in a JSON file, {"yes": [3, 8], "no": [1, 2]}, and name that as marks.'
            )
        return clip.FaceScorer(concept.name, self.device)

    def encoder(self, name: str) -> Clip:
        return _encoder(name, str(self.device))


class StyleGan(SeededGan):
    """A StyleGAN2: every layer reads a style of its own."""

    def __init__(self, checkpoint: Checkpoint, name: str, *, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(checkpoint.generator, checkpoint.critic, name, checkpoint.about, device=device, dtype=dtype)
        self._checkpoint = checkpoint

    def readers(self, space: str | None = None) -> dict[str, nn.Linear]:
        """The affines: every layer that reads a style, ToRGB included."""
        return {
            name: module
            for name, module in self.network.named_modules()
            if name.endswith(".affine") and isinstance(module, nn.Linear)
        }

    def mixed(self, coarse: Sequence[int], fine: Sequence[int], layer: int, psi: float = 1.0) -> Tensor:
        """Codes of the `coarse` seeds below `layer` and of the `fine` seeds from it on."""
        below, above = (self.mapping(self.latents(seeds), psi) for seeds in (coarse, fine))
        return torch.cat([below[:, :layer], above[:, layer:]], 1)

    def save(self, folder: Path) -> None:
        write_folder(Checkpoint(self._checkpoint.generator, self._checkpoint.critic, self.about), folder)


@lru_cache(maxsize=2)
def _encoder(name: str, device: str) -> Clip:
    from generators import clip

    return clip.Clip(name, device)
