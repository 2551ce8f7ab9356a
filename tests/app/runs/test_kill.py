"""Real processes, really killed: what is left resumes to the bits of a run that nobody disturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.cli.main import main
from app.runs.run import open_run
from tests.app.runs.conftest import METHODS
from tests.toys.pipelines import toy_folder

ROOT = Path(__file__).parents[3]
Process = subprocess.Popen[str]
ESD = ("--method", "esd", "--iterations", "300", "--steps", "4", "--seeds", "2", "--batch", "1")
WALK = ("--method", "walk", "--steps", "1000", "--pause", "0.02")


@pytest.fixture
def started() -> Iterator[Callable[..., Process]]:
    """Start `studio` in a process of its own; it does not outlive the test."""
    running: list[Process] = []

    def start(*words: object) -> Process:
        command = [sys.executable, "-m", "app", *map(str, words)]
        environment = {**os.environ, "ERASE_METHODS": str(METHODS), "OMP_NUM_THREADS": "1"}
        running.append(
            subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        )
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


def wait_for(process: Process, come_far: Callable[[], bool]) -> None:
    """Until the run has come far enough; it must not end before."""
    limit = time.monotonic() + 300
    while time.monotonic() < limit:
        assert process.poll() is None, process.communicate()[1]
        if come_far():
            return
        time.sleep(0.01)
    raise AssertionError("the run did not come that far in five minutes")


@pytest.mark.slow
def test_kill_9_and_resume_end_in_the_same_bits(tmp_path: Path, started: Callable[..., Process]) -> None:
    words = ["erase", str(toy_folder(tmp_path / "toy")), "--concept", "Cats", *ESD, "--save-every"]
    process = started(*words, "0", "--out", tmp_path / "killed")
    wait_for(process, lambda: any((tmp_path / "killed" / "state").glob("0000002?.safetensors")))
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    killed = open_run(tmp_path / "killed")
    assert killed.status == "lost"
    assert not (killed.folder / "edit.safetensors").exists()

    quick = [*words, "1000"]
    assert main([*quick, "--out", str(tmp_path / "killed")]) == 2  # it does not go on without being asked to
    assert main([*quick, "--out", str(tmp_path / "killed"), "--resume"]) == 0
    assert main([*quick, "--out", str(tmp_path / "straight")]) == 0
    straight = open_run(tmp_path / "straight")
    assert killed.edit().hash == straight.edit().hash
    assert killed.edit().about == straight.edit().about
    assert not (killed.folder / "state").exists()
    lines = [(run.folder / "events.jsonl").read_text().count("\n") for run in (killed, straight)]
    assert lines[0] == lines[1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_stop_keeps_the_step_and_exits_130(
    tmp_path: Path, started: Callable[..., Process], number: signal.Signals
) -> None:
    words = ["erase", str(toy_folder(tmp_path / "toy")), "--concept", "Cats", *WALK]
    process = started(*words, "--out", tmp_path / "run")
    events = tmp_path / "run" / "events.jsonl"
    wait_for(process, lambda: events.is_file() and events.read_text().count("\n") >= 3)
    process.send_signal(number)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 130
    assert f"`studio resume {tmp_path / 'run'}`" in told
    assert "Traceback" not in told
    run = open_run(tmp_path / "run")
    assert run.status == "cancelled"
    assert run.checkpoint()[0].steps == run.state["steps"] >= 3
