"""The style-transfer track on a small data set in the published layout, with a VGG-19 a few channels wide."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models.vgg import cfgs, make_layers
from torchvision.transforms.functional import normalize, resize

from benchmarks.__main__ import main
from benchmarks.studies.transfer import CONTENT, STYLE, Vgg, content_loss, pairs, style_loss, transfer
from erase.errors import BadInput
from erase.work import drain
from tests.benchmarks.doubles import TINY, write_suite

TURN = {"Ink_Art": (1.0, 0.2, 0.2), "Van_Gogh": (0.2, 1.0, 0.4), "Seed_Images": (1.0, 1.0, 1.0)}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Random weights in torchvision's names, four channels wide, with a classifier that is not needed."""
    torch.manual_seed(0)
    state, width = {"classifier.0.weight": torch.rand(2, 2)}, 3
    for name, value in make_layers(cfgs["E"]).state_dict().items():
        shape = (4, width, 3, 3) if name.endswith("weight") else (4,)
        state[f"features.{name}"] = torch.randn(shape) * (0.3 if value.ndim == 4 else 0.1)
        width = 4
    torch.save(state, tmp_path / "vgg19.pth")
    return tmp_path / "vgg19.pth"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three photographs of each object, and in each style the same under another tint."""
    root, draw = tmp_path / "data", np.random.default_rng(0)
    for thing in TINY.objects:
        for number in range(1, 4):
            photo = draw.integers(0, 255, (6, 8, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
            for style in TINY.styles:
                (root / style / thing).mkdir(parents=True, exist_ok=True)
                Image.fromarray((photo * TURN[style]).astype(np.uint8)).save(root / style / thing / f"{number}.png")
    return root


def test_the_network_is_torchvisions(tmp_path: Path) -> None:
    torch.manual_seed(1)
    features = make_layers(cfgs["E"])
    torch.save({f"features.{name}": value for name, value in features.state_dict().items()}, tmp_path / "whole.pth")
    image, probe = torch.rand(1, 3, 40, 32), Vgg(tmp_path / "whole.pth", side=32)
    x = normalize(resize(image, [32, 32], antialias=True), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    seen = probe(image)
    for place in range(max(STYLE) + 1):
        x = features[place](x)
        if place in (*STYLE, CONTENT):
            # The ReLU behind it works in place there, so the two are compared before it runs.
            assert torch.allclose(seen[place], x[0].double(), atol=1e-5), place


def test_the_losses_by_hand() -> None:
    one = {place: torch.tensor([[[1.0, 2.0]], [[0.0, 1.0]]]).double() for place in (*STYLE, CONTENT)}
    other = {place: torch.zeros(2, 1, 2).double() for place in (*STYLE, CONTENT)}
    # G = [[5, 2], [2, 1]] of N = 2 maps with M = 2 places: (25 + 4 + 4 + 1) / (4 · 4 · 4).
    assert style_loss(one, other) == pytest.approx(34 / 64)
    assert content_loss(one, other) == pytest.approx(6 / 4 / 2)
    mirrored = {place: seen.flip(2) for place, seen in one.items()}
    assert style_loss(one, mirrored) == 0 < content_loss(one, mirrored)


def test_whoever_forgot_one_style_is_told_from_whoever_forgot_none(data: Path, weights: Path, tmp_path: Path) -> None:
    probe, results = Vgg(weights, side=32), tmp_path / "results"
    shutil.copytree(data, results)
    shutil.rmtree(results / "Seed_Images")
    perfect = drain(transfer(data, results, TINY, "van gogh", probe))
    assert {score.value for name, score in perfect.scores.items() if name.startswith("style")} == {0.0}
    shutil.rmtree(results / "Van_Gogh")
    shutil.copytree(data / "Seed_Images", results / "Van_Gogh")  # photographs come back as they were
    (results / "Ink_Art" / "Cats" / "2.png").unlink()
    report = drain(transfer(data, results, TINY, "van gogh", probe))
    erased, kept = report.scores["style_loss.erased"], report.scores["style_loss.kept"]
    assert erased.value == erased.baseline > 0 and (erased.n, erased.better) == (6, "high")
    assert kept.value == 0 < kept.baseline and (kept.n, kept.better) == (5, "low")
    assert report.scores["content_loss.erased"].value == 0 < report.scores["content_loss.kept"].value
    assert report.excluded == {"no result of this pair": 1}
    assert len(report.rows) == 11


def test_pairs_are_what_both_folders_have(data: Path) -> None:
    (data / "Van_Gogh" / "Cats" / "1.png").unlink()
    (data / "Seed_Images" / "Dogs" / "3.png").rename(data / "Seed_Images" / "Dogs" / "3.JPG")
    found = pairs(data, TINY)
    assert len(found) == 11
    assert all(pair.photo.stem == pair.styled.stem and pair.photo.parts[-2] == pair.object for pair in found)


def test_the_command(data: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = write_suite(tmp_path / "mine.toml")
    words = ["transfer", "--data", str(data), "--results", str(data), "--vgg", str(weights), "--suite", str(suite)]
    assert main([*words, "--erased", "Van Gogh", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"]["style_loss.erased"]["value"] == 0
    for changes, says in (
        (["--erased", "Van Gock"], "Did you mean 'Van_Gogh'"),
        (["--erased", "Van Gogh", "--results", str(tmp_path / "none")], "holds no picture that belongs to"),
        (["--erased", "Van Gogh", "--data", str(tmp_path / "none")], "There is no data folder"),
        (["--erased", "Van Gogh", "--vgg", str(suite)], "no PyTorch pickle"),
    ):
        assert main([*words, *changes]) == 2
        assert says in capsys.readouterr().err


def test_other_networks_are_refused(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.rand(4, 3, 3, 3), "features.0.bias": torch.rand(4)}, tmp_path / "cut.pth")
    torch.save({"conv.weight": torch.rand(4, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(BadInput, match="convolutions stand elsewhere"):
        Vgg(tmp_path / "cut.pth")
    with pytest.raises(BadInput, match="lacks features.0"):
        Vgg(tmp_path / "other.pth")
