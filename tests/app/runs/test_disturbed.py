"""Worker and server killed at ten random moments each: the job ends in the bits of one that nobody disturbed."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from app.cli.main import main
from app.queue import queue, worker
from app.queue.queue import Task
from app.runs.run import open_run
from app.web import queue_view, task_view
from tests.toys.pipelines import toy_folder

KILLS = 10
STEPS = 10 * KILLS + 50


@pytest.fixture(autouse=True)
def nobody_works_on() -> Iterator[None]:
    """Whoever still works when the test ends is stopped."""
    yield
    for task in queue.tasks():
        queue.force(task)


def until(true: Callable[[], object], seconds: float = 300.0) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it did not come true"
        time.sleep(0.01)


def walking(tmp_path: Path, pause: float) -> Task:
    """An erasure of a toy model in the queue, with a snapshot at every Step."""
    words = ("erase", str(toy_folder(tmp_path / "toy")), "--concept", "Cats", "--method", "walk", "--steps", str(STEPS))
    run = queue.home() / "runs" / "disturbed"
    command = (*words, "--pause", str(pause), "--save-every", "0", "--resume", "--out", str(run))
    return queue.submit("erase", "Cats by walk", run, [command], "cpu")


def undisturbed(tmp_path: Path) -> str:
    """The hash of the edit that the same job ends in when it is left alone."""
    words = ["erase", str(tmp_path / "toy"), "--concept", "Cats", "--method", "walk", "--steps", str(STEPS)]
    assert main([*words, "--out", str(tmp_path / "alone")]) == 0
    return open_run(tmp_path / "alone").edit().hash


def steps(task: Task) -> int:
    """The Steps a run has logged."""
    events = task.run / "events.jsonl"
    return events.read_bytes().count(b"\n") if events.is_file() else 0


def unfinished(task: Task) -> bool:
    """Nothing says `done`: neither the task, nor the run, nor the page."""
    shown = task_view.progress(task.id) + queue_view.tasks()
    edit = (task.run / "edit.safetensors").exists()
    return task.status != "done" and not edit and "done" not in shown.lower().replace("what is done", "")


@pytest.mark.slow
def test_ten_kills_of_the_worker_change_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "start", lambda device=None: None)  # the workers are forked here, which spares imports
    task, moments, reached = walking(tmp_path, pause=0.002), random.Random(11), []

    def started() -> BaseProcess:
        process = multiprocessing.get_context("fork").Process(target=worker.work, args=(task,))
        process.start()
        return process

    for _ in range(KILLS):
        process, goal = started(), steps(task) + moments.randint(-3, 10)
        until(lambda goal=goal, process=process: steps(task) >= goal or not process.is_alive())
        time.sleep(moments.random() / 100)
        process.kill()
        process.join()
        reached.append(steps(task))
        assert unfinished(task)
        assert task.status in ("lost", "queued")  # queued: killed before it had begun
        if task.status == "lost":
            queue.resume(task)
    assert len(set(reached)) > KILLS / 2, reached  # moments that differ
    last = started()
    last.join()
    assert task.status == "done", (task.folder / "log.txt").read_text()
    assert open_run(task.run).edit().hash == undisturbed(tmp_path)


@pytest.mark.slow
def test_ten_kills_of_the_server_disturb_no_job(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    from tests.app.web.serving import Served

    task, served, moments, during = walking(tmp_path, pause=0.2), Served(), random.Random(12), 0
    for number in range(KILLS):
        served.start(wait=number % 2 == 0)  # every other one is killed while it is still opening
        time.sleep(moments.random() / 2)
        served.kill()
        status = task.status
        assert status in ("queued", "running", "done")
        during += status != "done"
        assert status == "done" or unfinished(task) or task.status == "done"
    assert during > 1  # the job was not over before it began
    until(lambda: task.status in (*queue.OVER, "lost"))
    assert task.status == "done", (task.folder / "log.txt").read_text()
    assert task.folder.joinpath("log.txt").read_text().count("$ studio erase") == 1  # worked on once
    assert open_run(task.run).edit().hash == undisturbed(tmp_path)
