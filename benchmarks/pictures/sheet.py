"""The sheet of `studio sample`: a row per prompt, a column per seed, each named, the pictures pixel for pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, PngImagePlugin
from torch import Tensor

from benchmarks.pictures.grid import GAP, GREY, INK, LEADING, SMALL, typeface, wrapped
from erase.files import replace

NARROWEST = 120  # pixels of a sheet of one small picture, so that its prompt can be read


def sheet(images: Tensor, path: Path, prompts: Sequence[str], seeds: Sequence[int], about: Mapping[str, str]) -> None:
    """Write images [n 3 h w] in [0, 1], prompt by prompt, as one PNG; `about` becomes its text fields."""
    high, wide = images.shape[-2:]
    width = max(GAP + len(seeds) * (wide + GAP), NARROWEST)
    captions = [wrapped(prompt, width - 2 * GAP) if prompt else [] for prompt in prompts]
    top = LEADING + GAP
    page = Image.new("RGB", (width, top + sum(len(lines) * LEADING + high + 2 * GAP for lines in captions)), "white")
    pen, y = ImageDraw.Draw(page), top
    for column, seed in enumerate(seeds):
        pen.text((GAP + column * (wide + GAP), GAP), f"seed {seed}", GREY, font=typeface(SMALL))
    for row, lines in enumerate(captions):
        for line in lines:
            pen.text((GAP, y), line, INK, font=typeface(SMALL))
            y += LEADING
        for column in range(len(seeds)):
            page.paste(_pixels(images[row * len(seeds) + column]), (GAP + column * (wide + GAP), y + GAP))
        y += high + 2 * GAP
    fields = PngImagePlugin.PngInfo()
    for name, text in about.items():
        fields.add_itxt(name, text)
    with replace(path) as part:
        page.save(part, format="PNG", pnginfo=fields)


def _pixels(image: Tensor) -> Image.Image:
    return Image.fromarray(image.float().nan_to_num(0.0).clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy())
