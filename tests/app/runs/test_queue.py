"""The queue with real workers: nothing is lost, mixed up, done twice, or shown as done that is not."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from app.cli.main import main
from app.queue import queue, worker
from app.queue.queue import Task
from app.runs.run import open_run
from erase.errors import BadInput
from tests.toys.pipelines import toy_folder

METRICS = (("metrics",),)  # a command that needs no model


@pytest.fixture(autouse=True)
def studio_home(tmp_path: Path) -> Iterator[Path]:
    """The home of tests; whoever still works in it when the test ends is stopped."""
    yield tmp_path / "home"
    for task in queue.tasks():
        queue.cancel(task, wait=0.0)
        queue.force(task)
    until(lambda: not any(queue.taken(lock) for lock in (tmp_path / "home" / "locks").glob("*.lock")))


def until(true: Callable[[], object], seconds: float = 300.0) -> None:
    """Wait for something that must come true."""
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it did not come true"
        time.sleep(0.02)


def over(task: Task) -> bool:
    return task.status in (*queue.OVER, "lost")


def trivial(name: str) -> Task:
    return queue.submit("look", name, queue.home() / name, METRICS, "cpu")


def erasing(folder: Path, run: Path, steps: int = 400, pause: float = 0.01) -> Task:
    """An erasure of the toy model that takes a while and snapshots every Step."""
    command = (
        "erase", str(folder), "--concept", "Cats", "--method", "walk", "--steps", str(steps), "--pause", str(pause),
        "--save-every", "0", "--resume", "--out", str(run),
    )  # fmt: skip
    return queue.submit("erase", "Cats by walk", run, [command], "cpu")


def running(task: Task, steps: int) -> bool:
    assert not over(task), (task.folder / "log.txt").read_text()
    events = task.run / "events.jsonl"
    return events.is_file() and events.read_text().count("\n") >= steps


@pytest.mark.slow
def test_fifty_tasks_from_twenty_hands_are_done_once_each_and_in_order() -> None:
    with ThreadPoolExecutor(20) as hands:
        made = list(hands.map(trivial, (f"task-{number}" for number in range(50))))
    assert len({task.id for task in made}) == 50
    until(lambda: all(map(over, made)), 600)
    assert {task.status for task in made} == {"done"}
    assert sorted(task.title for task in queue.tasks()) == sorted(task.title for task in made)
    assert all(task.folder.joinpath("log.txt").read_text().count("$ studio metrics") == 1 for task in made)
    assert all(len(task.answers) == 1 and task.answers[0]["metrics"] for task in made)
    ended = [task.state["at"] for task in queue.tasks()]
    assert ended == sorted(ended)  # one at a time, first come first served


def test_a_task_waits_while_its_device_is_taken_and_can_be_cancelled_there() -> None:
    with FileLock(queue.device_lock("cpu")):
        first, second = trivial("first"), trivial("second")
        time.sleep(1.0)
        assert [first.status, second.status] == ["queued", "queued"]
        assert queue.cancel(first) == "cancelled"
    until(lambda: over(second))
    assert second.status == "done"
    assert first.status == "cancelled"
    assert not (first.folder / "log.txt").exists()


def test_a_failing_command_fails_the_task_with_its_sentence() -> None:
    bad = queue.submit("look", "bad", queue.home() / "x", [("metrics",), ("metricks",), ("metrics",)], "cpu")
    after = trivial("after")
    until(lambda: over(after))
    assert bad.status == "failed"
    assert bad.state["error"]["kind"] == "bad-input"
    assert "metrics" in bad.state["error"]["message"]
    assert bad.state["command"] == 1
    assert len(bad.answers) == 1
    assert after.status == "done"
    with pytest.raises(BadInput, match="is done; there is nothing to resume"):
        queue.resume(after)


def test_a_resumed_task_goes_on_with_the_command_that_failed() -> None:
    bad = queue.submit("look", "bad", queue.home() / "x", [("metrics",), ("suites", "no-such")], "cpu")
    until(lambda: over(bad))
    queue.resume(bad)
    until(lambda: over(bad))
    log = bad.folder.joinpath("log.txt").read_text()
    assert (log.count("$ studio metrics"), log.count("$ studio suites")) == (1, 2)


def test_tasks_are_found_by_id_and_by_run() -> None:
    task = trivial("one")
    assert queue.find(task.id).id == task.id
    assert queue.find(task.run).id == task.id
    with pytest.raises(BadInput, match="Unknown run of the studio's queue"):
        queue.find("nobody")
    until(lambda: over(task))
    queue.forget(task)
    assert queue.tasks() == []


def test_a_recycled_pid_is_not_signalled(monkeypatch: pytest.MonkeyPatch) -> None:
    task = trivial("one")
    until(lambda: over(task))
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(pid))
    with queue.held(task):
        queue._signal(task, signal.SIGTERM)
        assert sent == [os.getpid()]
        queue.write_json(task.folder / "worker.json", {"pid": os.getpid(), "born": "1"})
        queue._signal(task, signal.SIGTERM)
    queue._signal(task, signal.SIGTERM)
    assert sent == [os.getpid()]


@pytest.mark.slow
def test_cancel_answers_within_two_seconds_and_keeps_or_discards(tmp_path: Path) -> None:
    folder = toy_folder(tmp_path / "toy")
    for stop, left in (("keep", True), ("discard", False)):
        task = erasing(folder, tmp_path / stop, steps=10_000)
        until(lambda task=task: running(task, 5))
        assert task.status == "running"
        asked = time.monotonic()
        said = queue.cancel(task, stop)
        assert time.monotonic() - asked < 2.5
        assert said in ("stopping", "cancelled")
        until(lambda task=task: not queue.alive(task), 10)
        assert task.status == "cancelled"
        assert task.run.exists() == left
    assert open_run(tmp_path / "keep").status == "cancelled"
    assert open_run(tmp_path / "keep").checkpoint()[0].steps >= 5


@pytest.mark.slow
def test_a_worker_killed_at_random_moments_is_lost_and_resumes_to_the_same_bits(tmp_path: Path) -> None:
    folder, moments = toy_folder(tmp_path / "toy"), random.Random(7)
    task = erasing(folder, tmp_path / "killed")
    for part in range(int(os.environ.get("STUDIO_KILLS", "2"))):
        until(lambda part=part: running(task, 5 + 20 * part))
        time.sleep(moments.random() / 5)
        queue.force(task)
        until(lambda: not queue.alive(task))
        assert task.status == "lost"
        assert not (task.run / "edit.safetensors").exists()
        queue.recover() if part < queue.LOSSES else queue.resume(task)
    until(lambda: over(task))
    assert task.status == "done", task.state
    steps = ("--method", "walk", "--steps", "400")
    straight = ("erase", str(folder), "--concept", "Cats", *steps, "--pause", "0.01")
    assert main([*straight, "--out", str(tmp_path / "straight")]) == 0
    assert open_run(task.run).edit().hash == open_run(tmp_path / "straight").edit().hash


@pytest.mark.slow
def test_killing_the_keeper_leaves_the_task_running_and_the_next_one_waits_for_it(tmp_path: Path) -> None:
    task = erasing(toy_folder(tmp_path / "toy"), tmp_path / "run", steps=150)
    until(lambda: running(task, 3))
    keeper = int(Path(f"/proc/{queue._read(task.folder / 'worker.json')['pid']}/stat").read_text().split()[3])
    os.kill(keeper, signal.SIGKILL)
    following = trivial("following")
    until(lambda: over(following))
    assert task.status == following.status == "done"
    assert following.state["at"] > task.state["at"]


def test_a_task_that_comes_while_the_keeper_is_dying_is_worked_on(tmp_path: Path) -> None:
    task = trivial("first")
    until(lambda: over(task))
    with FileLock(queue.keeper_lock("cpu"), timeout=10.0):  # a killed process holds its locks until it is quite gone
        following = trivial("following")
        time.sleep(0.3)
    until(lambda: over(following), seconds=60.0)
    assert following.status == "done"


def test_waiting_tasks_change_places_and_the_order_is_that_of_the_work() -> None:
    with FileLock(queue.device_lock("cpu")):
        first, second, third = (trivial(name) for name in ("first", "second", "third"))
        queue.sooner(third)
        queue.sooner(third)
        queue.sooner(third)  # it is the first already
        assert [task.title for task in queue.waiting()] == ["third", "first", "second"]
    until(lambda: all(map(over, (first, second, third))))
    assert third.state["at"] < first.state["at"] < second.state["at"]
    with pytest.raises(BadInput, match="is done, so it cannot be done sooner"):
        queue.sooner(first)


def test_a_paused_line_begins_nothing_and_goes_on_when_it_is_released() -> None:
    queue.hold()
    task = trivial("held")
    with FileLock(queue.keeper_lock("cpu"), timeout=10.0):  # nobody keeps the queue
        assert task.status == "queued"
    worker.keep("cpu")  # and whoever tries leaves at once
    assert task.status == "queued"
    queue.release()
    until(lambda: over(task))
    assert task.status == "done"


def test_a_paused_task_keeps_its_place_and_is_resumed() -> None:
    with FileLock(queue.device_lock("cpu")):
        first, second = trivial("first"), trivial("second")
        assert queue.cancel(first, "pause") == "paused"
        assert [task.title for task in queue.waiting()] == ["second"]
        queue.resume(first)
        assert [task.title for task in queue.waiting()] == ["first", "second"]
    until(lambda: over(second))
    assert first.state["at"] < second.state["at"]
