"""Models the format tests share: made once per session, never changed by a test that does not give them back."""

from __future__ import annotations

import pytest

import generators
from generators.stable_diffusion.adapter import StableDiffusion
from tests.toys.pipelines import FAMILIES, toy_folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """One toy folder per family."""
    return {family: toy_folder(tmp_path_factory.mktemp("toys") / family, family) for family in FAMILIES}


@pytest.fixture(scope="session")
def models(folders) -> dict[str, StableDiffusion]:
    """One loaded toy per family, on the CPU in fp32."""
    return {family: generators.load(folder, device="cpu") for family, folder in folders.items()}
