"""The bundled GAN from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.runs.run import open_run
from tests.app.conftest import Studio


@pytest.mark.parametrize("kind", [(), ("--kind", "identity")])
def test_a_person_is_erased_by_seed(studio: Studio, tmp_path: Path, kind: tuple[str, ...]) -> None:
    quick = ("--method", "guide", "--steps", 2, "--batch", 4)
    outcome = studio("erase", "pocket-gan", "--concept", "seed 17", *kind, *quick, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    run = open_run(tmp_path / "run")
    (concept,) = run.job.concepts
    assert (concept.name, concept.kind) == ("seed 17", "identity")
    edit = run.edit()
    assert edit is not None
    assert edit.about["seeds"] == [17]


def test_a_name_that_is_neither_person_nor_attribute_is_refused(studio: Studio, tmp_path: Path) -> None:
    outcome = studio("erase", "pocket-gan", "--concept", "somebody", "--method", "guide", "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "Unknown attribute of Pocket Faces 'somebody'" in outcome.err
