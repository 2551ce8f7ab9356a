"""A method that can be stopped anywhere, and runs of it on the toy model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.runs.erase import prepare
from app.runs.job import Job
from app.runs.run import Run
from erase.concept import Concept
from erase.methods.registry import build
from tests.toys.denoiser import Toy

METHODS = Path(__file__).parent / "methods"


@pytest.fixture(autouse=True)
def walking(monkeypatch: pytest.MonkeyPatch) -> None:
    """`walk` is a method."""
    monkeypatch.setenv("ERASE_METHODS", str(METHODS))


def walk_job(**fields: Any) -> Job:
    """A job that walks; `steps`, `pause` and `fail_at` are its knobs, everything else is the job's."""
    knobs = {name: fields.pop(name) for name in ("steps", "pause", "fail_at") if name in fields}
    whole = build("walk", overrides=knobs).model_dump(mode="json")  # type: ignore[attr-defined]
    return Job(**{"model": "toy", "concepts": (Concept(name="Cats"),), "method": "walk", "knobs": whole, **fields})


@pytest.fixture
def begin(tmp_path: Path, toy: Toy) -> Callable[..., Run]:
    """Lay out a run of a walk in a folder of its own."""

    def made(name: str = "run", **fields: Any) -> Run:
        parents = fields.pop("applied", ())
        job = walk_job(**fields, parents=tuple(edit.hash for edit in parents))
        return prepare(tmp_path / name, job, toy, parents, {"typed": "a test"})

    return made
