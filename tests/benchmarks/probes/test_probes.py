"""Probes from files: named, hashed, and independent of how many images are asked about."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.probes.base import BATCH, identity
from benchmarks.probes.canvas import CanvasProbe
from benchmarks.probes.open_probe import open_probe
from erase.errors import BadInput
from generators.pocket.canvas.probe import CanvasProbe as Network
from generators.pocket.canvas.words import OBJECTS, THEMES


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge of random weights."""
    path = tmp_path_factory.mktemp("probes") / "random.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network("judge")
    network.about |= {"version": "3", "held_out": {"style": 0.07}}
    network.save(path)
    return path


def test_a_probe_says_who_it_is(file: Path) -> None:
    one = open_probe(str(file))
    assert (one.name, one.version, one.held_out) == ("random", "3", {"style": 0.07})
    assert (one.styles, one.objects) == (THEMES, OBJECTS)
    assert identity(one) == f"random@{one.sha256[:8]}"
    assert len(one.sha256) == 64


def test_shares_are_shares_and_batches_do_not_matter(file: Path) -> None:
    images = torch.rand(BATCH + 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    whole = open_probe(str(file))(images)
    assert whole.style_prob.shape == (len(images), 15)
    assert whole.object_prob.shape == (len(images), 20)
    assert whole.style_prob.sum(1) == pytest.approx(torch.ones(len(images)).numpy(), abs=1e-5)
    single = [open_probe(str(file))(image[None]) for image in images[-5:]]
    assert torch.cat([seen.object_prob for seen in single]) == pytest.approx(whole.object_prob[-5:].numpy(), abs=1e-5)
    labels = torch.cat([seen.object_prob for seen in single]).argmax(1)
    assert torch.equal(labels, whole.object_prob[-5:].argmax(1))
    assert whole.features.std(0).max() > 1e-4  # else every image would look alike and nothing was shown


def test_pictures_of_another_size_are_resized(file: Path) -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    large = images.repeat_interleave(4, 2).repeat_interleave(4, 3)
    found = open_probe(str(file))(large).style_prob
    assert found == pytest.approx(open_probe(str(file))(images).style_prob.numpy(), abs=0.05)


def test_asking_leaves_no_graph_and_freezes_the_network(file: Path) -> None:
    one = open_probe(str(file))
    assert isinstance(one, CanvasProbe)
    assert not any(parameter.requires_grad for parameter in one.network.parameters())
    assert not one(torch.rand(1, 3, 64, 64, requires_grad=True)).features.requires_grad


def test_an_unknown_probe_gets_the_nearest_guess() -> None:
    with pytest.raises(BadInput, match="Did you mean 'pocket-judge'"):
        open_probe("pocket-judg")


def test_a_missing_asset_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_ASSETS", str(tmp_path))
    with pytest.raises(BadInput, match=r"eye\.safetensors"):
        open_probe("pocket-eye")


def test_another_assets_folder_is_another_probe(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = []
    for seed in (1, 2):
        monkeypatch.setenv("STUDIO_ASSETS", str(tmp_path / str(seed)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            Network("judge").save(tmp_path / str(seed) / "pocket-probes" / "judge.safetensors")
        hashes.append(open_probe("pocket-judge").sha256)
    assert hashes[0] != hashes[1]
