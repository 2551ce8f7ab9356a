"""What all tests share: one thread each, and the models on which the contract is tried."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import generators
from erase.concept import Concept
from erase.model import Denoiser
from tests.toys.denoiser import Toy
from tests.toys.pipelines import Family, toy_folder

torch.set_num_threads(1)


def _stable_diffusion(family: Family, folder: Path) -> Denoiser:
    if not (folder / family).exists():
        toy_folder(folder / family, family)
    return generators.load(str(folder / family), device="cpu")


# Every method is tried on every model listed here, each made in a folder it may write to; add a line for a new adapter.
MODELS: dict[str, Callable[[Path], Denoiser]] = {
    "toy": lambda folder: Toy(),
    "toy-bf16": lambda folder: Toy(dtype=torch.bfloat16),
    "sd1": lambda folder: _stable_diffusion("sd1", folder),
    "sd2-v": lambda folder: _stable_diffusion("sd2", folder),
    "xl": lambda folder: _stable_diffusion("xl", folder),
}


@pytest.fixture(autouse=True)
def _nobodys_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs, tasks and caches of whoever runs the tests are neither seen nor touched."""
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the models' files."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(params=list(MODELS))
def model(request: pytest.FixtureRequest, toys: Path) -> Denoiser:
    """Each tiny model in turn, freshly made."""
    return MODELS[request.param](toys)


@pytest.fixture
def toy() -> Toy:
    """The fp32 toy model."""
    return Toy()


@pytest.fixture
def gogh() -> Concept:
    """A style of several words, whose last one is one token here."""
    return Concept(name="Van_Gogh", kind="style")


@pytest.fixture
def cats() -> Concept:
    """An object replaced by nothing in particular."""
    return Concept(name="Cats")
