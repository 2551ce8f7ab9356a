"""What all tests share: one thread each, and the models on which the contract is tried."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable

import pytest
import torch

from erase.model import Concept, Denoiser
from tests.toy import Toy

torch.set_num_threads(1)

# Every method is tried on every model listed here; add a line for a new adapter at toy size.
MODELS: dict[str, Callable[[], Denoiser]] = {"toy": Toy, "toy-bf16": lambda: Toy(dtype=torch.bfloat16)}


@pytest.fixture(params=list(MODELS))
def model(request: pytest.FixtureRequest) -> Denoiser:
    """Each tiny model in turn, freshly made."""
    return MODELS[request.param]()


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
