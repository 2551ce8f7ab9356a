"""Eyes for methods that must look: the face probe that may steer, and CLIP.  What scores is in benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from erase.errors import BadInput, nearest, plain
from generators.assets import assets
from generators.pocket.faces.words import attribute

CLIPS = ("pocket-clip",)
EYE = "pocket-probes/face-eye.safetensors"


class FaceScorer:
    """The probe `face-eye` on one attribute: it may steer a method, and therefore never scores one."""

    def __init__(self, concept: str, device: torch.device) -> None:
        from generators.pocket.faces.probe import load_face_probe

        path = assets() / EYE
        if not path.is_file():
            raise BadInput(f"The bundled probe face-eye is missing: there is no {path}; install the program again.")
        self.name, self.attribute = "face-eye", attribute(concept)
        self.probe = load_face_probe(path).to(device)
        self._column = self.probe.attributes.index(self.attribute)

    def __call__(self, images: Tensor) -> Tensor:
        return self.probe(fitted(images, 64))[0][:, self._column].sigmoid()


class Clip:
    """A CLIP that open_clip loads, from the bundled assets or a folder; gradients reach the images."""

    def __init__(self, name: str, device: str) -> None:
        import open_clip  # takes seconds, and few methods need it

        folder = {plain(known): assets() / known for known in CLIPS}.get(plain(name), Path(name))
        if not (folder / "open_clip_config.json").is_file():
            if "/" in name:
                raise BadInput(f"{folder} is not an open_clip model: it holds no open_clip_config.json.")
            raise nearest(name, CLIPS, "CLIP")
        self.name = folder.name
        self.model: Any = open_clip.create_model(f"local-dir:{folder}", device=device).eval().requires_grad_(False)
        self.tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
        seen = open_clip.get_model_preprocess_cfg(self.model)
        self.side = seen["size"] if isinstance(seen["size"], int) else int(seen["size"][0])
        self.mean, self.std = (torch.tensor(seen[part], device=device).view(1, 3, 1, 1) for part in ("mean", "std"))

    def images(self, images: Tensor) -> Tensor:
        """Unit vectors [n e] of images [n 3 h w], nominally in [0, 1]."""
        return self.model.encode_image((fitted(images.float(), self.side) - self.mean) / self.std, normalize=True)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [n e] of texts."""
        return self.model.encode_text(self.tokenize(list(texts)).to(self.mean.device), normalize=True)


def fitted(images: Tensor, side: int) -> Tensor:
    """Images at the size a network reads."""
    if images.shape[-1] == side:
        return images
    return F.interpolate(images, (side, side), mode="bicubic", antialias=True, align_corners=False)
