"""The digits: drawn as said, read by readers that agree, and unlearnt in one small run from end to end."""

from __future__ import annotations

import torch

from benchmarks import digits as module
from benchmarks.digits import digits, forget_digits, reader, table
from erase.work import drain


def test_digits_are_fixed_by_their_seed_and_readers_read_them() -> None:
    pictures, labels = digits(60, 7)
    again, same = digits(60, 7)
    assert torch.equal(pictures, again) and torch.equal(labels, same) and set(labels.tolist()) == set(range(10))
    assert not torch.equal(pictures, digits(60, 8)[0]) and float(pictures.min()) == -1.0
    network, right = reader(8, 1, steps=150)
    assert right > 0.9
    assert float((network(pictures)[0].argmax(1) == labels).float().mean()) > 0.9


def test_a_class_is_unlearnt_from_a_gan_made_on_the_spot(monkeypatch) -> None:
    drawn = digits(200, 3)
    monkeypatch.setattr(module, "digits", lambda count, seed: (drawn[0][:count], drawn[1][:count]))
    monkeypatch.setattr(module, "reader", lambda width, seed: (module.Reader(width, seed), 0.5))
    monkeypatch.setattr(
        module.Marker, "__call__", lambda self, images: (images.mean((1, 2, 3)) > images.mean()).float()
    )
    knobs = {"marked": 8, "positives": 16, "models": 1, "adapt_steps": 2, "steps": 2, "batch": 4, "fisher": 8}
    rows = drain(forget_digits([1], steps=2, images=250, knobs=knobs))
    assert rows[0]["digit"] == 1 and rows[0]["FID"] >= 0 and 0 <= rows[0]["worst_drift"] <= 1
    assert table(rows).count("|\n|") == 2
