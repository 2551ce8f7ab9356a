"""The digits: drawn as said, read by readers that agree, and unlearnt in one small run from end to end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.studies import digits as module
from benchmarks.studies.digits import digits, forget_digits, reader, table
from erase.work import drain
from generators.stylegan2.io.checkpoint import Checkpoint, write_folder


def test_digits_are_fixed_by_their_seed_and_readers_read_them() -> None:
    pictures, labels = digits(60, 7)
    again, same = digits(60, 7)
    assert torch.equal(pictures, again) and torch.equal(labels, same) and set(labels.tolist()) == set(range(10))
    assert not torch.equal(pictures, digits(60, 8)[0]) and float(pictures.min()) == -1.0
    network, right = reader(8, 1, steps=150)
    assert right > 0.9
    assert float((network(pictures)[0].argmax(1) == labels).float().mean()) > 0.9


def test_a_class_is_unlearnt_from_a_gan_made_on_the_spot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn = digits(200, 3)
    monkeypatch.setattr(module, "digits", lambda count, seed: (drawn[0][:count], drawn[1][:count]))
    monkeypatch.setattr(module, "reader", lambda width, seed: (module.Reader(width, seed), 0.5))
    monkeypatch.setattr(
        module.Marker, "__call__", lambda self, images: (images.mean((1, 2, 3)) > images.mean()).float()
    )
    knobs = {"marked": 8, "positives": 16, "models": 1, "adapt_steps": 2, "steps": 2, "batch": 4, "fisher": 8}
    asked = {"images": 250, "knobs": knobs, "folder": tmp_path}
    rows = drain(forget_digits([1], steps=2, **asked))
    assert rows[0]["digit"] == 1 and rows[0]["FID"] >= 0 and 0 <= rows[0]["worst_drift"] <= 1
    assert table(rows).count("|\n|") == 2
    with Image.open(tmp_path / "1.png") as page:
        assert page.width > 1000

    stages = {step.stage for step in forget_digits([1], steps=2, **asked)}  # the GAN lies there
    assert "unlearn" in stages and "train" not in stages

    def stopped(made: Checkpoint, folder: Path) -> None:
        write_folder(replace(made, critic=None), folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_folder", stopped)
    with pytest.raises(KeyboardInterrupt):
        drain(forget_digits([1], steps=3, **asked))
    work = forget_digits([1], steps=3, **asked)  # the first GAN's critic is not taken for the second's
    assert next(work).stage == "train"
    work.close()
