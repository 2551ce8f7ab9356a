"""The before/after grid as a PNG: rows of picture pairs, each with its prompt above and a verdict below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from erase.files import replace
from erase.model import Shot

INK, GREY, RULE = "#1c1e21", "#6b7076", "#e3e5e8"
GOOD, BAD = "#0b6e4f", "#b3261e"
TITLE, TEXT, SMALL = 26, 15, 13
MARGIN, HEADING, GAP, BETWEEN, LEADING, CAPTION = 28, 116, 4, 20, 17, 28


@dataclass(frozen=True)
class Pair:
    """One picture to draw before and after: its shot, and the labels the unedited model should show in it."""

    shot: Shot
    style: str
    object: str


@dataclass(frozen=True)
class Line:
    """One row of the grid; `gone` says that its pictures should lose the concept, else they should stay as they are."""

    heading: str
    hint: str
    pairs: tuple[Pair, ...]
    gone: bool


@dataclass(frozen=True)
class Verdict:
    """What a probe reads in one picture, a few short lines, and whether that is as it should be (None: no opinion)."""

    lines: tuple[str, ...]
    good: bool | None = None


def grid(
    before: Tensor,
    after: Tensor,
    rows: Sequence[Line],
    path: str | Path,
    title: str,
    *,
    subtitle: str = "",
    footer: str = "",
    verdicts: Sequence[tuple[Verdict, Verdict]] = (),
) -> Path:
    """Draws images [n 3 h w] in [0, 1], n the pairs of all rows in order, as one PNG; the file is whole or not there.

    `verdicts` are printed under the pictures, one pair of them per pair of pictures.
    """
    pairs = [pair for row in rows for pair in row.pairs]
    if not len(pairs) == len(before) == len(after):
        raise ValueError(f"{len(pairs)} pairs, but {len(before)} pictures before and {len(after)} after")
    if verdicts and len(verdicts) != len(pairs):
        raise ValueError(f"{len(pairs)} pairs, but {len(verdicts)} verdicts")
    side = shown_side(before.shape[-1])
    under = max((len(verdict.lines) for both in verdicts for verdict in both), default=0) * LEADING
    pair_width, row_height = 2 * side + GAP, CAPTION + side + 6 + under + 18
    columns = max(len(row.pairs) for row in rows)
    top = MARGIN + TITLE + 10 + (TEXT + 10 if subtitle else 0) + 34
    width = 2 * MARGIN + HEADING + columns * pair_width + (columns - 1) * BETWEEN
    height = top + len(rows) * row_height + (SMALL + 12 if footer else 0) + MARGIN - 14
    page = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(page)

    pen.text((MARGIN, MARGIN), fitted(title, TITLE, width - 2 * MARGIN), INK, font=typeface(TITLE))
    pen.text((MARGIN, MARGIN + TITLE + 12), fitted(subtitle, TEXT, width - 2 * MARGIN), GREY, font=typeface(TEXT))
    for column in range(columns):
        left = MARGIN + HEADING + column * (pair_width + BETWEEN)
        for word, x in (("before", left), ("after", left + side + GAP)):
            pen.text((x, top - 24), word, GREY, font=typeface(SMALL))

    index, y = 0, top
    for row in rows:
        pen.line((MARGIN, y, width - MARGIN, y), RULE)
        _headings(pen, row, y + CAPTION)
        for column, pair in enumerate(row.pairs):
            x = MARGIN + HEADING + column * (pair_width + BETWEEN)
            pen.text((x, y + 7), fitted(pair.shot.prompt, SMALL, pair_width), GREY, font=typeface(SMALL))
            for images, left in ((before, x), (after, x + side + GAP)):
                page.paste(picture(images[index], side), (left, y + CAPTION))
            if verdicts:
                for verdict, left in zip(verdicts[index], (x, x + side + GAP), strict=True):
                    _verdict(pen, verdict, left, y + CAPTION + side + 4, side)
            index += 1
        y += row_height
    pen.text((MARGIN, y + 2), fitted(footer, SMALL, width - 2 * MARGIN), GREY, font=typeface(SMALL))
    return saved(page, Path(path))


def fitted(text: str, size: int, width: int) -> str:
    """The text, cut with an ellipsis where it would be wider than `width` pixels."""
    font = typeface(size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _headings(pen: ImageDraw.ImageDraw, row: Line, y: int) -> None:
    pen.text((MARGIN, y), fitted(row.heading, TEXT, HEADING - 16), INK, font=typeface(TEXT))
    for number, line in enumerate(wrapped(row.hint, HEADING - 16)):
        pen.text((MARGIN, y + 22 + number * LEADING), line, GREY, font=typeface(SMALL))


def _verdict(pen: ImageDraw.ImageDraw, verdict: Verdict, x: int, y: int, width: int) -> None:
    colour = GREY if verdict.good is None else GOOD if verdict.good else BAD
    for number, line in enumerate(verdict.lines):
        pen.text((x, y + number * LEADING), fitted(line, SMALL, width), colour, font=typeface(SMALL))


def wrapped(text: str, width: int) -> list[str]:
    """The text in lines of at most `width` pixels; a word that is wider is broken."""
    lines = [""]
    text = " ".join(piece for word in text.split() for piece in _pieces(word, width))
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if typeface(SMALL).getlength(longer) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _pieces(word: str, width: int) -> list[str]:
    pieces = [""]
    for letter in word:
        if pieces[-1] and typeface(SMALL).getlength(pieces[-1] + letter) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def shown_side(pixels: int) -> int:
    """Small pictures are enlarged by a whole number, so that no pixel is torn; large ones come down to 192."""
    return pixels * max(1, 128 // pixels) if pixels <= 192 else 192


def picture(image: Tensor, side: int) -> Image.Image:
    """An image [3 h w] in [0, 1] as a square of `side` pixels."""
    pixels = image.detach().float().nan_to_num(0.0).clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS)


@cache
def typeface(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The lettering of every sheet."""
    return ImageFont.load_default(size=size)


def saved(page: Image.Image, path: Path) -> Path:
    """Writes a PNG that is whole or not there."""
    with replace(path, durable=False) as part:
        page.save(part, format="PNG", optimize=True)
    return path
