"""A DCGAN, of the layout of PyTorch's tutorial: drawn as there, erased from, and read without running its file."""

from __future__ import annotations

import importlib.machinery
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from erase.concept import Concept
from erase.edit import Edit
from erase.errors import BadInput
from erase.methods.registry import build
from erase.model import Generator, Shot, require
from erase.request import Request, run_method
from erase.work import drain
from generators import dcgan, load
from generators.export.export import export
from generators.stylegan2.adapter import SeededGan

CONCEPT = Concept(name="eyeglasses", kind="attribute")


def tutorial() -> nn.Sequential:
    """The generator as PyTorch's tutorial writes it, 16 px and narrow, with statistics of its own."""
    torch.manual_seed(4)
    main = nn.Sequential(
        nn.ConvTranspose2d(7, 12, 4, 1, 0, bias=False), nn.BatchNorm2d(12), nn.ReLU(True),
        nn.ConvTranspose2d(12, 6, 4, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(True),
        nn.ConvTranspose2d(6, 3, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip
    for layer in main:
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.3)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return main.eval()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "faces.tar"
    torch.save({"netG_state_dict": {f"main.{k}": v for k, v in tutorial().state_dict().items()}, "epoch": 3}, path)
    return path


def opened(path: Path) -> SeededGan:
    gan = load(path, device="cpu")
    assert isinstance(gan, SeededGan)
    return gan


def test_it_draws_what_the_tutorials_own_network_draws(file: Path) -> None:
    gan = opened(file)
    images = drain(gan.sample([Shot(3), Shot(9), Shot(3)]))
    with torch.no_grad():
        wanted = tutorial()(gan.latents([3, 9, 3])[:, :, None, None]) / 2 + 0.5
    assert images.shape == (3, 3, 16, 16) and gan.shape.resolution == 16
    torch.testing.assert_close(images, wanted, atol=1e-5, rtol=0)
    mean = gan.synthesis(gan.mapping(gan.latents([1, 2]), 0.0))
    assert torch.equal(mean[0], mean[1])


def test_a_persons_clicks_erase_from_it_and_leave_it_as_it_was(file: Path, tmp_path: Path) -> None:
    gan, clicks = opened(file), tmp_path / "clicks.json"
    clicks.write_text(json.dumps({"yes": [*range(10)], "no": [*range(10, 30)]}))
    before = {name: value.clone() for name, value in gan.network.state_dict().items()}
    edit = drain(
        run_method(build("feature-unlearn", None, {"marks": str(clicks), "steps": 2}), Request(gan, [CONCEPT], seed=1))
    )
    assert all(torch.equal(value, gan.network.state_dict()[name]) for name, value in before.items())
    assert set(edit.deltas) == {name for name, _ in gan.network.named_parameters()}
    plain = drain(gan.sample([Shot(0)]))
    with edit.applied(gan.network):
        assert not torch.equal(drain(gan.sample([Shot(0)])), plain)


def test_what_it_lacks_is_said(file: Path, tmp_path: Path) -> None:
    gan = opened(file)
    with pytest.raises(BadInput, match="without a discriminator"):
        drain(run_method(build("adapt-unlearn", None, {}), Request(gan, [CONCEPT], seed=0)))
    with pytest.raises(BadInput, match="no readers"):
        drain(
            run_method(
                build("guide", None, {"part": "readers"}),
                Request(gan, [Concept(name="seed 1", kind="identity")], seed=0),
            )
        )
    with pytest.raises(BadInput, match="read codes"):
        require(gan, Generator, "uce")  # type: ignore[arg-type]  # a cached_property for a property
    with pytest.raises(BadInput, match="mark some of its seeds"):
        gan.scorer(CONCEPT)
    edit = Edit({}, {"method": "test", "concepts": [{"name": "eyeglasses"}], "base": gan.fingerprint})
    with pytest.raises(BadInput, match="no export format holds another GAN"):
        drain(export(gan, edit, tmp_path / "out", "gan"))  # type: ignore[arg-type]  # as the command line may
    assert not (tmp_path / "out").exists()


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_other_files_are_refused_and_nothing_in_them_is_run(file: Path, tmp_path: Path) -> None:
    state = torch.load(file, weights_only=True)["netG_state_dict"]
    bad = {
        "bomb": {"netG_state_dict": state, "more": Bomb(tmp_path / "ran")},
        "other": {"netG_state_dict": {"fc.weight": torch.zeros(2, 2)}},
        "torn": {key: value for key, value in state.items() if key != "main.4.bias"},
        "wide": state | {"main.3.weight": torch.zeros(12, 9, 4, 4)},
    }
    for name, content in bad.items():
        torch.save(content, tmp_path / f"{name}.tar")
        with pytest.raises(BadInput, match="refused" if name == "bomb" else "DCGAN"):
            load(tmp_path / f"{name}.tar", device="cpu")
    assert not (tmp_path / "ran").exists()


def test_the_packages_faces_are_found_by_name(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.machinery.ModuleSpec(dcgan.PACKAGE, None, origin=str(tmp_path / "__init__.py"))
    file.rename(tmp_path / dcgan.WEIGHTS)
    monkeypatch.setattr(dcgan, "find_spec", lambda name: spec if name == dcgan.PACKAGE else None)
    assert opened(Path("dcgan-faces")).name == "dcgan-faces"
    monkeypatch.setattr(dcgan, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="pip install"):
        load("dcgan-faces", device="cpu")
