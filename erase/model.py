"""The vocabulary: what is drawn, what a network reads, and what a model must offer to have something erased from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from erase.concept import Concept, Kind
from erase.errors import BadInput, match, nearest, plain
from erase.noise import NoisePath
from erase.work import Work

__all__ = [
    "BadInput", "Codes", "Concept", "Contrast", "Denoiser", "Encoder", "Gan", "Generator", "Kind", "Rows", "Scorer",
    "Shot", "Trajectory", "match", "nearest", "plain", "require",
]  # fmt: skip


Rows = Literal["last", "tail", "all"]


@dataclass(frozen=True)
class Shot:
    """One image to draw; equal shots give equal images, whatever else is in the batch."""

    seed: int
    prompt: str = ""


@dataclass(frozen=True)
class Contrast:
    """A concept's codes [n code] beside its anchor's, row by row."""

    present: Tensor
    absent: Tensor

    def __post_init__(self) -> None:
        if self.present.ndim != 2 or self.present.shape != self.absent.shape:
            raise ValueError(f"contrast rows {tuple(self.present.shape)} and {tuple(self.absent.shape)} do not pair up")


@dataclass(frozen=True)
class Codes:
    """What the network reads of n prompts: token codes [n token code] and, for SDXL, pooled vectors [n p]."""

    tokens: Tensor
    pooled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, which: int | slice | Tensor) -> Codes:
        """Some of the prompts; an int keeps the prompt dimension."""
        rows = slice(which, which + 1 or None) if isinstance(which, int) else which
        return Codes(self.tokens[rows], None if self.pooled is None else self.pooled[rows])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Codes:
        """The same codes on another device or in another dtype."""
        pooled = None if self.pooled is None else self.pooled.to(device=device, dtype=dtype)
        return Codes(self.tokens.to(device=device, dtype=dtype), pooled)

    def repeat(self, n: int) -> Codes:
        """Every prompt n times, neighbours equal: a b → a a b b."""
        pooled = None if self.pooled is None else self.pooled.repeat_interleave(n, 0)
        return Codes(self.tokens.repeat_interleave(n, 0), pooled)

    @staticmethod
    def cat(parts: Sequence[Codes]) -> Codes:
        """Several codes in one batch; either all of them have pooled vectors or none."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        if pooled and len(pooled) != len(parts):
            raise ValueError("some codes have pooled vectors and some do not")
        return Codes(torch.cat([part.tokens for part in parts]), torch.cat(pooled) if pooled else None)


@dataclass(frozen=True)
class Trajectory:
    """Rollouts, on the CPU: latents z [n steps c h w] as the network received them at times t [steps], and its two
    predictions at each, with the prompt (present) and without (absent), shaped like z."""

    z: Tensor
    t: Tensor
    present: Tensor
    absent: Tensor


class Generator(Protocol):
    """A model that draws: `network` is one root module, so every parameter has one dotted name."""

    name: str
    network: nn.Module

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the unedited weights, computed when first asked for."""
        ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def spaces(self) -> tuple[str, ...]:
        """The code spaces by which text, or a style, enters; `contrast` and `resting_codes` mean the first by default.

        One for most; a joint transformer has `sequence`, codes of tokens, and `pooled`, one code for the whole prompt.
        """
        ...

    def readers(self, space: str | None = None) -> dict[str, nn.Linear]:
        """Every linear layer that reads codes, of one space or of all, by its dotted name under `network`."""
        ...

    def contrast(
        self, concept: Concept, rows: Rows = "last", templates: Sequence[str] = ("{}",), space: str | None = None
    ) -> Contrast:
        """The codes of each of the concept's phrases, in each template, beside its anchor's in the same template.

        `last` is the last subject token (the first end row where the phrase is empty), `tail` that one and all after
        it, `all` every row. Where tokens see what follows them, `tail` begins with the first subject token. A pooled
        space has one row a sentence. A template has one {} where the words go.
        """
        ...

    def resting_codes(self, space: str | None = None) -> Tensor:
        """The codes every image reads [n code]: the start code and all codes of the empty prompt."""
        ...

    def sample(
        self, shots: Sequence[Shot], *, steps: int | None = None, guidance: float | None = None, batch: int = 32
    ) -> Work[Tensor]:
        """Draws the shots: [n 3 h w] in [0, 1] on the CPU; None means the model's own default."""
        ...

    def save(self, folder: Path) -> None:
        """Writes the model in its native format."""
        ...


class Denoiser(Generator, Protocol):
    """A text-to-image diffusion or flow model, spoken to in the prediction that its `path` names."""

    latent_shape: tuple[int, int, int]
    default_steps: int
    default_guidance: float

    @property
    def path(self) -> NoisePath:
        """The noise levels by time, and what `predict` predicts."""
        ...

    def encode(self, prompts: Sequence[str]) -> Codes:
        """The codes of prompts, differentiable in the text encoder's weights."""
        ...

    def tokens(self, prompt: str) -> list[int]:
        """The sub-tokens of a prompt, without the start and end that `frame` puts around them."""
        ...

    @property
    def opening(self) -> int:
        """How many tokens `frame` puts before a row: the start token, or none."""
        ...

    @property
    def room(self) -> int:
        """How many sub-tokens of a prompt the text encoder reads."""
        ...

    def frame(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Token numbers [n token] as the text encoder takes them: start, a row, end, padding; long rows lose words."""
        ...

    def spell(self, row: Sequence[int]) -> str:
        """The text of sub-tokens, as a user could type it."""
        ...

    @property
    def vocabulary(self) -> Tensor:
        """The word vectors [token word] of all tokens; of two text encoders side by side."""
        ...

    @property
    def specials(self) -> frozenset[int]:
        """Token numbers that are no words: start, end, padding, unknown."""
        ...

    def embed(self, ids: Tensor) -> Tensor:
        """The word vectors [n token word] of framed tokens, before positions are added."""
        ...

    def read(self, ids: Tensor, vectors: Tensor) -> Codes:
        """Codes of given word vectors [n token word], differentiable in them and in the text encoder's weights.

        `ids` [n token], from `frame`, say where a prompt ends; `read(ids, embed(ids))` is `encode` to the bit.
        """
        ...

    def predict(self, z: Tensor, t: Tensor, codes: Codes) -> Tensor:
        """What `path.predicts` says, [n c h w], of latents z at times t ([n] or scalar, long), in the dtype of z.

        ε of a diffusion model (v-models are converted inside), the velocity of a flow model.
        """
        ...

    def noise(self, shots: Sequence[Shot]) -> Tensor:
        """Initial latents [n c h w], one CPU generator per seed."""
        ...

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
        """The final latents [n c h w] of shots, on the CPU; None means the model's own default.

        `codes`, one per shot, are read in place of the shots' prompts: of word vectors that no text stands for.
        With a `state`, empty or that of a Step of the same call, every Step carries one; the shots are then one batch.
        """
        ...

    def trajectory(
        self,
        shots: Sequence[Shot],
        *,
        guidance: float = 3.0,
        steps: int = 50,
        state: Mapping[str, Tensor] | None = None,
    ) -> Work[Trajectory]:
        """Guided deterministic rollouts with everything the network saw and said on the way."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Images [n 3 h w] in [0, 1] of latents."""
        ...


class Scorer(Protocol):
    """Somebody who says how surely images show a concept; `name` goes beside what was steered by it."""

    name: str

    def __call__(self, images: Tensor) -> Tensor:
        """Probabilities [n] of images [n 3 h w] in [0, 1], differentiable in them."""
        ...


class Encoder(Protocol):
    """A CLIP: images and texts as unit vectors [n e] of one space."""

    name: str

    def images(self, images: Tensor) -> Tensor:
        """Of images [n 3 h w], nominally in [0, 1], differentiable in them."""
        ...

    def texts(self, texts: Sequence[str]) -> Tensor: ...


class Gan(Generator, Protocol):
    """A style-based GAN: z [n z] → one code w per layer [n layer w] → an image [n 3 h w] in [-1, 1], unclamped.

    The critic gives logits [n] of such images, large for real. It is no part of `network`, for it draws nothing.
    """

    z_dim: int
    critic: nn.Module | None

    @property
    def gains(self) -> Mapping[str, float]:
        """By parameter of `network`, the factor folded into it; its updates are as much smaller than its value."""
        ...

    @property
    def critic_gains(self) -> Mapping[str, float]: ...

    def latents(self, seeds: Sequence[int]) -> Tensor:
        """z [n z], the same for a seed in any batch."""
        ...

    def mapping(self, z: Tensor, psi: float = 1.0) -> Tensor:
        """Codes of latents, differentiable; psi below 1 draws them to the mean."""
        ...

    def synthesis(self, ws: Tensor, noise: Literal["const", "none"] | Sequence[Tensor] = "const") -> Tensor:
        """Images of codes, differentiable; the noise is stored with the network, nothing, or one map per layer."""
        ...

    def fresh_noise(self, count: int, rng: torch.Generator) -> list[Tensor]:
        """Noise maps [n 1 r r], one per layer that takes noise, as training draws them."""
        ...

    def scorer(self, concept: Concept) -> Scorer:
        """Who tells whether an image shows the concept; BadInput if nobody known to the model can."""
        ...

    def encoder(self, name: str) -> Encoder:
        """The CLIP of that name or folder."""
        ...


def require(model: Generator, needs: type, method: str) -> None:
    """Raises BadInput unless the model is of the family a method works on."""
    # One telling attribute, not isinstance: before Python 3.12 that would compute every property, fingerprint too.
    told_by, family = {
        Denoiser: ("predict", "a diffusion model"),
        Gan: ("synthesis", "a GAN"),
        Generator: ("readers", "a generator"),
    }[needs]
    if not hasattr(model, told_by):
        raise BadInput(f"{method} needs {family}, and {model.name} is not one; `studio methods` lists what fits.")
    if needs is Generator and not model.readers():
        raise BadInput(f"{method} rewrites layers that read codes, and {model.name} has none; a method for GANs fits.")
