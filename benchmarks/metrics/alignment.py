"""How well an image fits its prompt (CLIP cosine), and how far it moved (distance of features)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from erase.errors import BadInput, nearest, plain
from generators.assets import assets

BUNDLED = ("pocket-clip",)


class Clip:
    """A CLIP loaded through open_clip; its cosines are those of ITS two towers, so the name goes beside every score."""

    def __init__(self, name: str, folder: Path, device: torch.device | str = "cpu") -> None:
        # Imported here: it takes seconds, and most of what this package does needs no CLIP.
        import open_clip

        if not (folder / "open_clip_config.json").is_file():
            raise BadInput(f"{folder} is not an open_clip model: it holds no open_clip_config.json.")
        self.name, self.device = name, torch.device(device)
        self.sha256 = _folder_hash(folder)
        self.model: nn.Module = open_clip.create_model(f"local-dir:{folder}", device=self.device).eval()
        self.tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
        seen = open_clip.get_model_preprocess_cfg(self.model)
        size = seen["size"]
        self.size: tuple[int, int] = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        self.mean = torch.tensor(seen["mean"], device=self.device).view(1, 3, 1, 1)
        self.std = torch.tensor(seen["std"], device=self.device).view(1, 3, 1, 1)

    @torch.inference_mode()
    def cosines(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """The cosine [n] of each image [n 3 h w] in [0, 1] with its own prompt, unscaled and unclamped."""
        distinct = list(dict.fromkeys(prompts))
        said = self.said(distinct)
        return (self.seen(images) * said[[distinct.index(prompt) for prompt in prompts]]).sum(1).double().cpu()

    @property
    def scale(self) -> float:
        """What cosines are multiplied with before a softmax."""
        return float(self.model.logit_scale.exp())  # type: ignore[operator,union-attr]

    @torch.inference_mode()
    def seen(self, images: Tensor) -> Tensor:
        """The image tower's features [n f] of unit length."""
        pixels = resized(images.to(self.device, torch.float32), self.size)
        return self.model.encode_image((pixels - self.mean) / self.std, normalize=True)  # type: ignore[operator]

    @torch.inference_mode()
    def said(self, texts: Sequence[str]) -> Tensor:
        """The text tower's features [n f] of unit length."""
        return self.model.encode_text(self.tokenize(list(texts)).to(self.device), normalize=True)  # type: ignore[operator]


def clip(name: str, device: torch.device | str = "cpu") -> Clip:
    """The bundled CLIP of that name, or the one in that open_clip folder. BadInput names the nearest."""
    for known in BUNDLED:
        if plain(known) == plain(name):
            return Clip(known, assets() / known, device)
    if Path(name).is_dir():
        return Clip(Path(name).name, Path(name), device)
    raise nearest(name, BUNDLED, "CLIP")


def feature_distance(before: Tensor, after: Tensor) -> Tensor:
    """Per image, the squared distance [n] of two features [n f] of unit length (0 same, 2 unrelated).

    What LPIPS does per layer of its own network, done once on a probe's last features; it is named after that probe.
    """
    return (F.normalize(before.double(), dim=1) - F.normalize(after.double(), dim=1)).square().sum(1)


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images at the size a network was trained on; antialiased, because without it a large picture turns to noise."""
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)


def _folder_hash(folder: Path) -> str:
    """sha256 over names and contents of the files that decide what a model computes."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".safetensors", ".bin", ".txt"):
            digest.update(json.dumps([path.name, hashlib.sha256(path.read_bytes()).hexdigest()]).encode())
    return digest.hexdigest()
