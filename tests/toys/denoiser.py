"""A real, tiny, untrained diffusion model: what the contract needs and nothing more, so that tests of it are quick."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from erase.concept import Concept
from erase.model import Codes, Contrast, Rows, Shot, Trajectory
from erase.noise import NoisePath
from erase.work import Step, Work

LENGTH, VOCABULARY = 16, 2000
START, END = 0, 1


def tokens(prompt: str) -> list[int]:
    """Token numbers of a prompt, start and end included: words fall into pieces of at most four letters."""
    words = re.findall(r"[^\W_]+|[^\w\s]", prompt.lower())
    pieces = [word[at : at + 4] for word in words for at in range(0, len(word), 4)]
    numbers = [2 + int(hashlib.sha256(piece.encode()).hexdigest(), 16) % (VOCABULARY - 2) for piece in pieces]
    return [START, *numbers[: LENGTH - 2], END]


class Toy:
    """A Denoiser of random weights: a two-block U-Net on 8×8 latents, a CLIP text encoder, a plain schedule."""

    name = "toy"
    latent_shape = (4, 8, 8)
    default_steps = 4
    default_guidance = 4.0

    def __init__(self, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            unet = UNet2DConditionModel(
                sample_size=8,
                in_channels=4,
                out_channels=4,
                block_out_channels=(8, 16),
                layers_per_block=1,
                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
                cross_attention_dim=32,
                attention_head_dim=4,
                norm_num_groups=4,
            )
            text = CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=VOCABULARY,
                    hidden_size=32,
                    intermediate_size=32,
                    num_hidden_layers=2,
                    num_attention_heads=2,
                    max_position_embeddings=LENGTH,
                    bos_token_id=START,
                    eos_token_id=END,
                )
            )
            for embedding in text.modules():  # the library's start is so small that all words would be nearly one
                if isinstance(embedding, nn.Embedding):
                    nn.init.normal_(embedding.weight)
        self.network = nn.ModuleDict({"unet": unet, "text": text}).to(dtype).eval()
        # A gentle schedule: an untrained network takes no noise away, and the usual one would blow latents up.
        self.alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 2e-3, 1000, dtype=torch.float64), 0)
        level = self.alphas_cumprod.float()
        self.path = NoisePath(level.sqrt().double(), (1 - level).sqrt().double())

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name, weight in sorted(self.network.named_parameters()):
            digest.update(name.encode() + weight.detach().double().numpy().tobytes())
        return digest.hexdigest()

    spaces = ("text",)

    def readers(self, space: str | None = None) -> dict[str, nn.Linear]:
        return {
            name: module
            for name, module in self.network.named_modules()
            if name.split(".")[-2:] in (["attn2", "to_k"], ["attn2", "to_v"]) and isinstance(module, nn.Linear)
        }

    def encode(self, prompts: Sequence[str]) -> Codes:
        ids = [tokens(prompt) for prompt in prompts]
        padded = torch.tensor([row + [END] * (LENGTH - len(row)) for row in ids], device=self.device)
        return Codes(self.network["text"](padded).last_hidden_state)

    def tokens(self, prompt: str) -> list[int]:
        return tokens(prompt)[1:-1]

    opening, room = 1, LENGTH - 2

    def frame(self, rows: Sequence[Sequence[int]]) -> Tensor:
        framed = [[START, *row[: LENGTH - 2], END] for row in rows]
        return torch.tensor([row + [END] * (LENGTH - len(row)) for row in framed], device=self.device)

    def spell(self, row: Sequence[int]) -> str:
        return " ".join(f"word{number}" for number in row)

    @property
    def _table(self) -> nn.Embedding:
        text: Any = self.network["text"]
        return text.get_input_embeddings()

    @property
    def vocabulary(self) -> Tensor:
        return self._table.weight.detach()

    @property
    def specials(self) -> frozenset[int]:
        return frozenset((START, END))

    def embed(self, ids: Tensor) -> Tensor:
        return self._table(ids)

    def read(self, ids: Tensor, vectors: Tensor) -> Codes:
        handle = self._table.register_forward_hook(lambda *_: vectors)
        try:
            return Codes(self.network["text"](ids).last_hidden_state)
        finally:
            handle.remove()

    def contrast(
        self, concept: Concept, rows: Rows = "last", templates: Sequence[str] = ("{}",), space: str | None = None
    ) -> Contrast:
        present, absent = [], []
        for template in templates:
            for phrase in concept.phrases:
                said, instead = (self._rows(template, words, rows) for words in (phrase, concept.instead))
                n = min(len(said), len(instead))
                present.append(said[:n])
                absent.append(instead[:n])
        return Contrast(torch.cat(present), torch.cat(absent))

    def _rows(self, template: str, words: str, rows: Rows) -> Tensor:
        codes = self.encode([template.replace("{}", words)]).tokens[0]
        head = len(tokens(template[: template.index("{}")] + words)) - 2
        last = head if words else head + 1  # of an empty phrase the first end row, not the word before it
        return {"last": codes[last : last + 1], "tail": codes[last:], "all": codes}[rows]

    def resting_codes(self, space: str | None = None) -> Tensor:
        return self.encode([""]).tokens[0]

    def predict(self, z: Tensor, t: Tensor, codes: Codes) -> Tensor:
        return self.network["unet"](z, t, encoder_hidden_states=codes.tokens).sample

    def noise(self, shots: Sequence[Shot]) -> Tensor:
        drawn = [torch.randn(self.latent_shape, generator=torch.Generator().manual_seed(shot.seed)) for shot in shots]
        return torch.stack(drawn).to(self.device, self.dtype)

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
        walked = yield from self._walk(shots, guidance or 3.0, steps or self.default_steps, codes, state)
        return walked.z[:, -1].float()

    def trajectory(
        self,
        shots: Sequence[Shot],
        *,
        guidance: float = 3.0,
        steps: int = 50,
        state: Mapping[str, Tensor] | None = None,
    ) -> Work[Trajectory]:
        return (yield from self._walk(shots, guidance, steps, None, state))

    def _walk(
        self,
        shots: Sequence[Shot],
        guidance: float,
        steps: int,
        codes: Codes | None = None,
        state: Mapping[str, Tensor] | None = None,
    ) -> Work[Trajectory]:
        times = torch.linspace(999, 0, steps + 1).long()
        z, seen, outputs = self.noise(shots), [], list(state["outputs"]) if state else []
        known = len(outputs)
        with torch.no_grad():
            present = self.encode([shot.prompt for shot in shots]) if codes is None else codes
            codes = Codes.cat([present, self.encode([""] * len(shots))])
        for step, (now, then) in enumerate(zip(times[:-1].tolist(), times[1:].tolist(), strict=True), 1):
            with torch.no_grad():
                if step > known:
                    time = torch.tensor(now, device=self.device)
                    outputs.append(self.predict(torch.cat([z, z]), time, codes))
                present, absent = outputs[step - 1].chunk(2)
                seen.append((z.cpu(), present.cpu(), absent.cpu()))
                noise = absent + guidance * (present - absent)
                here, there = float(self.alphas_cumprod[now]), float(self.alphas_cumprod[then])
                clean = (z - (1 - here) ** 0.5 * noise) / here**0.5
                z = there**0.5 * clean + (1 - there) ** 0.5 * noise
            if step > known:
                said = {"outputs": torch.stack(outputs)} if state is not None else None
                yield Step("roll out", step, steps, state=said.copy if said else None)
        stacked = (torch.stack(part, 1) for part in zip(*seen, strict=True))
        return Trajectory(next(stacked), times[:-1], next(stacked), next(stacked))

    def decode(self, latents: Tensor) -> Tensor:
        return (latents[:, :3].float().cpu() / 4 + 0.5).clamp(0, 1)

    def sample(
        self, shots: Sequence[Shot], *, steps: int | None = None, guidance: float | None = None, batch: int = 32
    ) -> Work[Tensor]:
        images = []
        for at in range(0, len(shots), batch):
            rolled = yield from self.trajectory(
                shots[at : at + batch], guidance=guidance or self.default_guidance, steps=steps or self.default_steps
            )
            images.append(self.decode(rolled.z[:, -1]))
        return torch.cat(images)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.network.state_dict(), folder / "toy.safetensors")
