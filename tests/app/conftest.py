"""The command line, run in this process: libraries are imported once, and what it prints is caught."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.cli.main import main
from tests.toys.pipelines import toy_folder


@dataclass(frozen=True)
class Outcome:
    """What a command left behind: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """stdout as the one JSON document it should be."""
        return json.loads(self.out)


Studio = Callable[..., Outcome]


@pytest.fixture
def studio(capsys: pytest.CaptureFixture[str]) -> Studio:
    """`studio("models", "--json")` is the command typed in a terminal."""

    def run(*words: object) -> Outcome:
        capsys.readouterr()
        code = main([str(word) for word in words])
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny Stable Diffusion of random weights, as a diffusers folder."""
    return toy_folder(tmp_path / "toy-sd")
