"""The example of CONTRIBUTING.md is a whole method: a file in a folder, and it is picked up everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import generators
from erase.concept import Concept
from erase.edit import Edit
from tests.app.conftest import Studio
from tests.app.documents import blocks


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example, saved as a reader would save it."""
    [block] = blocks("CONTRIBUTING.md", "python")
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "project.py").write_text(block.text, encoding="utf-8")
    monkeypatch.setenv("ERASE_METHODS", str(tmp_path / "methods"))


@pytest.mark.usefixtures("project")
def test_the_example_is_listed_explained_and_checked(studio: Studio, tmp_path: Path) -> None:
    [listed] = [entry for entry in studio("methods", "--json").document["methods"] if entry["name"] == "project"]
    assert listed["about"] == "Removes the direction that leads from the anchor to the concept."
    for shown in (studio("methods", "project"), studio("erase", "--method", "project", "--help")):
        assert "--amount" in shown.out
        assert "default: 1.0; 0 to 1" in " ".join(shown.out.split())
    assert "project" in studio("erase", "--help").out
    wrong = studio("erase", "x", "--concept", "Cats", "--method", "project", "--amount", "2", "--out", tmp_path / "run")
    assert wrong.code == 2
    assert "between 0 and 1" in wrong.err


@pytest.mark.usefixtures("project")
def test_the_example_erases_what_it_says(studio: Studio, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    outcome = studio("erase", folder, "--concept", "Cats", "--anchor", "dog", "--method", "project", "--out", run)
    assert outcome.code == 0, outcome.err
    edit, model = Edit.load(run / "edit.safetensors"), generators.load(folder)
    rows = model.contrast(Concept(name="Cats", anchor="dog"))
    apart = (rows.present - rows.absent)[0]
    name, reader = next(iter(model.readers().items()))
    assert (reader.weight @ apart).norm() > 1e-2
    with edit.applied(model.network):
        assert (reader.weight @ apart).norm() < 1e-5
    gentle = studio(
        "erase", folder, "--concept", "Cats", "--anchor", "dog", "--method", "project", "--preset", "gentle",
        "--out", tmp_path / "gentle",
    )  # fmt: skip
    assert gentle.code == 0, gentle.err
    half = Edit.load(tmp_path / "gentle" / "edit.safetensors")
    torch.testing.assert_close(half.deltas[f"{name}.weight"], edit.deltas[f"{name}.weight"] / 2)
