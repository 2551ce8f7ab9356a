"""Sweeps on a toy Stable Diffusion: what is there stays, what fails is told, and no kill or pool changes it."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from app.cli.main import main
from app.sweeps import engines
from app.sweeps.engines import Outcome, Setting
from erase import files
from tests.app.runs.conftest import METHODS
from tests.toys.pipelines import toy_folder

ROOT = Path(__file__).parents[3]
SUITE = """
name = "tiny"
version = 1
styles = ["Ink_Art", "Seed_Images", "Van_Gogh"]
objects = ["Cats", "Dogs", "Trees"]
photo = "Seed_Images"
seeds = [188, 288]
grid_seeds = [188]
steps = 1
guidance = 1.0
"""
SWEEP = """
suite = "{suite}"
[model]
path = "{model}"
device = "cpu"
[[concept]]
name = "Cats"
keep = ["Dogs"]
[[concept]]
name = "Van_Gogh"
[[method]]
name = "walk"
label = "fails"
fail_at = 2
[[method]]
name = "walk"
{knobs}
"""


def written(folder: Path, knobs: str = "") -> Path:
    """A sweep of two concepts and two methods, one of which fails."""
    toy_folder(folder / "toy")
    (folder / "tiny.toml").write_text(SUITE, encoding="utf-8")
    path = folder / "sweep.toml"
    path.write_text(SWEEP.format(suite=folder / "tiny.toml", model=folder / "toy", knobs=knobs), encoding="utf-8")
    return path


def when(out: Path) -> dict[str, int]:
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}


@pytest.mark.slow
def test_what_is_there_stays_and_what_fails_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = written(tmp_path), tmp_path / "out"
    words = ["sweep", str(file), "--workers", "1", "--out", str(out), "--json"]
    assert main(words) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["error"]["kind"] == "some-jobs-failed"
    told = {(entry["label"], entry["concept"]): entry for entry in document["entries"]}
    assert told["fails", "Cats"]["status"] == "failed"
    assert "told to fail" in told["fails", "Cats"]["message"]
    assert told["walk", "Van_Gogh"]["status"] == "done"
    assert told["walk", "Van_Gogh"]["scores"]["UA"]["baseline"] is not None
    assert {"UA", "IRA", "CRA"} <= document["lines"][0]["scores"].keys()
    assert document["costs"] and "seconds" not in told["walk", "Cats"]["scores"]
    run = out / told["walk", "Cats"]["run"]
    assert {"job.json", "events.jsonl", "edit.safetensors", "report.json", "grid.png"} <= set(os.listdir(run))
    typed = json.loads((run / "job.json").read_text())["typed"]
    assert "--keep=Dogs" in typed and "--method=walk" in typed

    board, edits = (out / "leaderboard.json").read_bytes(), when(out)
    (run / "reports" / "tiny.json").unlink()
    assert main(words) == 1
    assert (out / "leaderboard.json").read_bytes() == board
    assert when(out) == edits
    capsys.readouterr()
    assert main(["report", str(out), "--out", str(tmp_path / "sweep.html")]) == 0
    page = (tmp_path / "sweep.html").read_text(encoding="utf-8")
    assert "told to fail" in page and "data:image/svg+xml;base64," in page
    assert main(["report", str(run), "--out", str(tmp_path / "run.html")]) == 0
    page = (tmp_path / "run.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page and "losses over the steps" in page and "--method=walk" in page


@pytest.mark.slow
def test_a_disk_that_fills_up_costs_no_finished_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, real, flushed, room = written(tmp_path), os.fsync, 0, math.inf

    def fsync(handle: int) -> None:
        nonlocal flushed
        flushed += 1
        if flushed > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    def swept(out: str) -> Any:
        assert main(["sweep", str(file), "--workers", "1", "--out", str(tmp_path / out), "--json"]) == 1
        return json.loads(capsys.readouterr().out)["error"]

    monkeypatch.setattr(files.os, "fsync", fsync)
    swept("quiet")
    flushed, room = 0, flushed - 8  # the tables are 4, the last cell's copied report and picture before them
    error, made = swept("full"), when(tmp_path / "full")
    assert error["kind"] == "disk" and "Free some space" in error["message"]
    judged = [path.parent.parent.name for path in (tmp_path / "full").glob("runs/walk/*/reports/tiny.json")]
    assert judged == ["Cats-0"]
    assert made and not (tmp_path / "full" / "leaderboard.json").exists()
    room = math.inf
    assert swept("full")["kind"] == "some-jobs-failed"  # the failing method, as ever
    boards = [(tmp_path / name / "leaderboard.json").read_bytes() for name in ("quiet", "full")]
    assert boards[0] == boards[1]
    assert made.items() <= when(tmp_path / "full").items()


@pytest.mark.slow
def test_kill_9_at_random_moments_leaves_the_same_table(tmp_path: Path) -> None:
    file, environment = written(tmp_path, "steps = 40\npause = 0.05"), {**os.environ, "ERASE_METHODS": str(METHODS)}

    def begun(out: str, workers: int) -> subprocess.Popen[bytes]:
        words = ["sweep", str(file), "--workers", str(workers), "--out", str(tmp_path / out)]
        return subprocess.Popen([sys.executable, "-m", "app", *words], cwd=ROOT, env=environment)

    quiet = begun("quiet", 1)
    assert quiet.wait() == 1  # the failing method
    seconds = random.Random(0)
    for marker in ("unedited", "runs/walk/*/events.jsonl", "runs/walk/*/reports/tiny.json"):
        process = begun("killed", 2)
        while not list((tmp_path / "killed").glob(marker)):
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(seconds.uniform(0, 1))
        process.kill()
        process.wait()
    assert begun("killed", 2).wait() == 1
    boards = [(tmp_path / name / "leaderboard.json").read_bytes() for name in ("quiet", "killed")]
    assert boards[0] == boards[1]


class Task:
    """A task that says what it was, or takes its process down."""

    def __init__(self, name: str) -> None:
        self.name = name


def doing(task: Task) -> Outcome:
    if task.name == "deadly":
        os._exit(9)
    return Outcome(task.name, "done", message=os.environ["OMP_NUM_THREADS"] + os.environ["HERE"])


@pytest.mark.slow
def test_a_process_that_dies_costs_one_task(tmp_path: Path) -> None:
    tasks = [Task(name) for name in ("a", "deadly", "b", "c")]
    found = {each.task: each for each in engines.pool(tasks, doing, Setting(1, {"HERE": "!"}), 2, tmp_path)}
    assert {name: each.status for name, each in found.items()} == {
        "a": "done",
        "deadly": "failed",
        "b": "done",
        "c": "done",
    }
    assert "exit code 9" in found["deadly"].message
    assert found["a"].message == "1!"
    assert "HERE" not in os.environ


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray, whose workers step back for everybody else's processes unless told not to: on a busy machine they starve."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_worker_niceness", "0")


@pytest.mark.slow
@pytest.mark.usefixtures("brisk")
def test_a_ray_cluster_gives_the_same_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path)
    for name, engine in (("one", ["--workers", "1"]), ("ray", ["--ray", "local"])):
        assert main(["sweep", str(file), *engine, "--out", str(tmp_path / name)]) == 1  # one method fails
    capsys.readouterr()
    boards = [(tmp_path / name / "leaderboard.json").read_bytes() for name in ("one", "ray")]
    assert boards[0] == boards[1]
    assert len(list((tmp_path / "ray").glob("runs/walk/*/reports/tiny.json"))) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("brisk")
def test_ray_gives_the_same_outcomes() -> None:
    tasks = [Task(name) for name in ("a", "b", "deadly")]
    found = {each.task: each for each in engines.ray(tasks, doing, Setting(1, {"HERE": "!"}), "local")}
    assert {name: each.status for name, each in found.items()} == {"a": "done", "b": "done", "deadly": "failed"}
    assert found["a"].message == "1!"


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match="pip install ray"):
        list(engines.ray([], doing, Setting(1, {}), "local"))


@pytest.mark.parametrize(("words", "says"), [(["--workers", "0"], "0 is not valid"), ([], "names no concept")])
def test_a_sweep_that_cannot_be_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    path = tmp_path / "sweep.toml"
    text = '[[method]]\nname = "uce"\n' + ('[[concept]]\nname = "Cats"\n' if words else "")
    path.write_text(text, encoding="utf-8")
    assert main(["sweep", str(path), "--out", str(tmp_path / "out"), *words]) == 2
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1
    assert not (tmp_path / "out").exists()
