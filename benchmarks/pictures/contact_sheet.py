"""The pictures of an attack: files of what was broken, and a sheet of the first rows unedited, edited, attacked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from benchmarks.pictures.grid import (
    CAPTION,
    GAP,
    GREY,
    INK,
    LEADING,
    MARGIN,
    SMALL,
    TEXT,
    fitted,
    picture,
    saved,
    shown_side,
    typeface,
    wrapped,
)
from benchmarks.suites.prompts import Row

SHOWN = 8  # rows on the sheet
STAGES = ("unedited", "edited", "attacked")


class ContactSheet:
    """PNG files in folder/images, named by the row's place; without a folder nothing is kept.

    Of the first rows every stage is kept, also of attacks that failed; of the others what an attack brought back.
    """

    def __init__(self, folder: Path | None, rows: Sequence[Row]) -> None:
        self.folder, self.rows = folder, rows
        self.place = {row.case: place for place, row in enumerate(rows)}

    def add(self, row: Row, stage: str, image: Tensor, broken: bool = False) -> None:
        """Keep a picture [3 h w] in [0, 1], if it is one to keep."""
        if self.folder is not None and (self.place[row.case] < SHOWN or broken):
            pixels = image.detach().float().nan_to_num(0.0).clamp(0, 1).mul(255).round().to(torch.uint8)
            saved(Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy()), self.folder / self._file(row.case, stage))

    def name(self, case: str, stage: str = "attacked") -> str | None:
        """A picture's file below the folder; None if it was not kept."""
        file = self._file(case, stage)
        return file if self.folder is not None and (self.folder / file).is_file() else None

    def sheet(self, path: Path, title: str, adversarial: Sequence[str]) -> None:
        """The first rows, one line each, with the prompt and what the attack made of it ('' where none was needed)."""
        lines = [[self._opened(row.case, stage) for stage in STAGES] for row in self.rows[:SHOWN]]
        side = shown_side(next(image.shape[-1] for line in lines for image in line if image is not None))
        width = 2 * MARGIN + len(STAGES) * (side + GAP)
        top = MARGIN + 2 * CAPTION
        captions = [_captions(row.prompt, text, side) for row, text in zip(self.rows, adversarial, strict=False)]
        heights = [side + GAP + 8 + LEADING * max(map(len, both)) for both in captions[: len(lines)]]
        page = Image.new("RGB", (width, top + sum(heights) + MARGIN), "white")
        pen = ImageDraw.Draw(page)
        pen.text((MARGIN, MARGIN - 8), fitted(title, TEXT, width - 2 * MARGIN), INK, font=typeface(TEXT))
        for column, stage in enumerate(STAGES):
            pen.text((MARGIN + column * (side + GAP), top - 22), stage, GREY, font=typeface(SMALL))
        for number, line in enumerate(lines):
            y = top + sum(heights[:number])
            for column, image in enumerate(line):
                if image is not None:
                    page.paste(picture(image, side), (MARGIN + column * (side + GAP), y))
            for texts, column in zip(captions[number], (0, 2), strict=True):
                for place, text in enumerate(texts):
                    at = (MARGIN + column * (side + GAP), y + side + 4 + place * LEADING)
                    pen.text(at, text, GREY, font=typeface(SMALL))
        saved(page, path)

    def _file(self, case: str, stage: str) -> str:
        return f"images/{self.place[case]:03d}-{stage}.png"

    def _opened(self, case: str, stage: str) -> Tensor | None:
        name = self.name(case, stage)
        if self.folder is None or name is None:
            return None
        return torch.from_numpy(np.array(Image.open(self.folder / name).convert("RGB"))).permute(2, 0, 1) / 255


def _captions(prompt: str, adversarial: str, side: int) -> tuple[list[str], list[str]]:
    """The prompt in lines under two pictures, what the attack made of it in lines under one."""
    return wrapped(prompt, 2 * side), wrapped(adversarial, side - GAP)
