"""Sheets: every picture to the pixel, every prompt whole, every seed named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from benchmarks.pictures import contact_sheet
from benchmarks.pictures.contact_sheet import ContactSheet
from benchmarks.pictures.grid import SMALL, typeface, wrapped
from benchmarks.pictures.sheet import sheet
from benchmarks.suites.prompts import Row

LONG = "A Bears image in starlight that goes on until the line would have been cut"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are drawn."""
    texts, real = [], ImageDraw.ImageDraw.text

    def noted(pen: ImageDraw.ImageDraw, at: object, text: str, *more: object, **options: object) -> None:
        texts.append(text)
        real(pen, at, text, *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", noted)
    return texts


def test_a_sample_is_labelled_and_its_pictures_are_untouched(tmp_path: Path, written: list[str]) -> None:
    images = torch.rand(4, 3, 20, 30, generator=torch.Generator().manual_seed(1))
    sheet(images, tmp_path / "x.png", [LONG, "short"], [3, 7], {"model": "toy"})
    assert written[:2] == ["seed 3", "seed 7"]
    assert " ".join(written[2:]) == f"{LONG} short"
    page = Image.open(tmp_path / "x.png")
    assert page.text["model"] == "toy"  # type: ignore[attr-defined]
    pixels, wanted = np.asarray(page), (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (20, 30, 3))[:, :, 0]
    for picture in wanted:
        assert (windows == picture).all(axis=(2, 3, 4)).any()


def test_what_an_attack_wrote_is_there_whole(tmp_path: Path, written: list[str]) -> None:
    row = Row(case="1", prompt=LONG, seed=1)
    album = ContactSheet(tmp_path, [row])
    for stage in contact_sheet.STAGES:
        album.add(row, stage, torch.rand(3, 64, 64))
    album.sheet(tmp_path / "attack.png", "An attack", ["adversarial words " * 6])
    assert LONG in " ".join(written)
    assert ("adversarial words " * 6).strip() in " ".join(written)


def test_a_word_that_is_too_wide_is_broken() -> None:
    lines = wrapped("w" * 100, 60)
    assert "".join(lines) == "w" * 100
    assert all(typeface(SMALL).getlength(line) <= 60 for line in lines)
