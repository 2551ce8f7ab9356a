"""Two commands on one --out: one has the folder, the other is refused before it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.runs.run import claimed, is_run
from erase.errors import BadInput
from tests.app.conftest import Studio
from tests.app.runs.conftest import METHODS

ROUNDS = 4


def begun(folder: Path, concept: str, out: Path) -> subprocess.Popen[str]:
    words = ["erase", folder, "--concept", concept, "--method", "walk", "--steps", "6", "--pause", "0.05", "--out", out]
    environment = {**os.environ, "ERASE_METHODS": str(METHODS), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "app", *map(str, words)], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize("others", [("cat", "dog"), ("cat", "cat")], ids=["different", "equal"])
def test_of_two_jobs_on_one_folder_one_is_refused(others: tuple[str, str], folder: Path, tmp_path: Path) -> None:
    for number in range(ROUNDS // 2):
        out = tmp_path / f"run-{number}"
        racing = [begun(folder, concept, out) for concept in others]
        ends = [process.communicate() for process in racing]
        codes = [process.returncode for process in racing]
        record = json.loads((out / "job.json").read_text())
        assert json.loads((out / "state.json").read_text())["status"] == "done"
        winner = codes.index(0)
        assert record["job"]["concepts"][0]["name"] == others[winner]
        assert codes[1 - winner] in ((2,) if others[0] != others[1] else (0, 2)), ends
        if codes[1 - winner] == 2:
            said = ends[1 - winner][1]
            assert "is being worked on by another process" in said or "already holds another run" in said
            assert "Traceback" not in said


def test_a_job_that_is_refused_leaves_nothing(studio: Studio, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    refused = studio("erase", folder, "--concept", "cat", "--method", "guide", "--out", out)
    assert refused.code == 2
    assert not out.exists()
    assert studio("erase", folder, "--concept", "cat", "--method", "uce", "--out", out).code == 0


def test_what_was_there_before_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(BadInput, match="no"), claimed(tmp_path / "mine"):
        raise BadInput("no")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    with pytest.raises(BadInput, match="no"), claimed(tmp_path / "new" / "run"):
        raise BadInput("no")
    assert not (tmp_path / "new" / "run").exists()
    assert not is_run(tmp_path / "mine")


def test_who_comes_too_late_takes_nothing_away(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    script = f"from pathlib import Path\nfrom app.runs.run import claimed\nwith claimed(Path({str(folder)!r})): pass"
    with claimed(folder):  # and has written nothing yet, as while a model is loaded
        late = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert "is being worked on by another process" in late.stderr
        assert [path.name for path in folder.iterdir()] == [".lock"]
        assert (
            "another process" in subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stderr
        )
    assert not folder.exists()
