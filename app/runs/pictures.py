"""Image tensors as PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image, PngImagePlugin
from torch import Tensor
from torchvision.utils import make_grid

from erase.files import replace


def save_picture(
    images: Tensor, path: Path, columns: int = 8, about: Mapping[str, str] | None = None, padding: int = 2
) -> None:
    """Write images [n 3 h w] in [0, 1] as one sheet, row by row; `about` becomes the PNG's text fields."""
    sheet = make_grid(images.detach().float().cpu().clamp(0, 1), nrow=columns, padding=padding, pad_value=1.0)
    pixels = (sheet * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    fields = PngImagePlugin.PngInfo()
    for name, text in (about or {}).items():
        fields.add_itxt(name, text)
    with replace(path) as part:
        Image.fromarray(pixels).save(part, format="PNG", pnginfo=fields)
