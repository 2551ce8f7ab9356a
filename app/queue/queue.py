"""The studio's queue: tasks on disk, each a few command lines that a process of its own works through.

tasks/ID/task.json     what is to be done; a folder that has one is a task
tasks/ID/state.json    queued | running | paused | done | cancelled | failed, with the command it is at, its last Step
tasks/ID/place.json    where it stands in the line, once somebody has moved it
tasks/ID/request.json  the wish to stop
tasks/ID/worker.json   who works on it, while somebody does
tasks/ID/log.txt       what the commands printed;  answers.json what they answered
hold                   while it is there, no further task is begun

Nothing here waits for torch, so that a page or a `cancel` answers at once. A task is alive exactly while its lock is
held, which the system lets go of even after kill -9.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from app.queue.paths import NAME, home
from erase.errors import BadInput, nearest
from erase.files import make_folder, write_json

ROOT = Path(__file__).resolve().parents[2]  # where `python -m app.queue.worker` finds this package
Stop = Literal["keep", "discard", "pause"]
OVER = ("done", "cancelled", "failed")
ANSWER = 2.0  # seconds for which `cancel` waits for the worker before it says that the task is stopping
LOSSES = 3  # a task that took its process down so often is not started again by itself
PROBE = 1.0  # seconds: who asks whether a lock is held holds it for a moment, and who was killed a moment longer


@dataclass(frozen=True)
class Task:
    """Something that was asked for: command lines of `studio` without the first word, run one after the other."""

    folder: Path
    kind: str
    title: str
    run: Path  # the RUN folder it makes or works on
    commands: tuple[tuple[str, ...], ...]
    device: str
    submitted: float

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def state(self) -> dict[str, Any]:
        """state.json, and what follows from who is alive: `lost` is running with nobody working on it."""
        state = _read(self.folder / "state.json") or {"status": "queued"}
        if state["status"] in OVER:
            return state
        stop = self.stop
        if alive(self):
            return {**state, "status": "stopping" if stop else "running"}
        if stop:
            return {**state, "status": _stopped(stop)}
        return {**state, "status": "lost" if state["status"] == "running" else state["status"]}

    @property
    def status(self) -> str:
        """queued, running, stopping, paused, done, cancelled, failed or lost."""
        return self.state["status"]

    @property
    def stop(self) -> Stop | None:
        """How it was asked to stop."""
        return (_read(self.folder / "request.json") or {}).get("stop")

    @property
    def place(self) -> int:
        """Where it stands in the line: lower is sooner."""
        return (_read(self.folder / "place.json") or {"place": int(self.id.split("-")[0])})["place"]

    @property
    def answers(self) -> list[Any]:
        """The documents of the commands that are done."""
        return (_read(self.folder / "answers.json") or {"answers": []})["answers"]

    def note(self, status: str, **more: Any) -> None:
        """Replace state.json; where a running task is need not outlive a power cut, how it ended must."""
        content = {"status": status, "at": round(time.time(), 3), **more}
        write_json(self.folder / "state.json", content, durable=status != "running")


def submit(kind: str, title: str, run: Path, commands: Sequence[Sequence[str]], device: str = "auto") -> Task:
    """Put a task at the end of the queue and see that somebody works on the queue."""
    device, submitted, token = slot(device), time.time(), secrets.token_hex(3)
    making = _tasks() / f".{kind}-{token}"
    make_folder(making)
    content = {"version": 1, "kind": kind, "title": title, "run": str(run), "commands": commands,
               "device": device, "submitted": submitted}  # fmt: skip
    write_json(making / "task.json", content)
    with FileLock(_lock("line")):  # so that nobody can come later and stand before
        folder = _tasks() / f"{time.time_ns():020d}-{kind}-{token}"
        making.rename(folder)  # from here on it is in the queue, whole
    task = Task(folder, kind, title, run, tuple(map(tuple, commands)), device, submitted)
    start(task.device)
    return task


def tasks() -> list[Task]:
    """All tasks in the order of the queue: oldest first, but for those that were moved."""
    if not _tasks().is_dir():
        return []
    found = (opened(folder) for folder in _tasks().iterdir() if not folder.name.startswith("."))
    return sorted((task for task in found if task is not None), key=lambda task: (task.place, task.id))


def waiting(device: str | None = None) -> list[Task]:
    """The queued tasks of a device, or of all, in the order of the queue."""
    return [task for task in tasks() if device in (None, task.device) and task.status == "queued"]


def following(device: str) -> list[Task]:
    """The task of a device that is to be begun next, if any."""
    if on_hold():
        return []
    with FileLock(_lock("line")):  # a folder that is renamed while others are listed can be missed
        return waiting(device)[:1]


def find(name: str | Path) -> Task:
    """A task by its id, or the newest one of a RUN folder that is not over; BadInput when there is none."""
    if NAME.fullmatch(str(name)) and (task := opened(_tasks() / name)) is not None:
        return task
    known = tasks()
    of_run = [task for task in known if task.run.resolve() == Path(name).resolve()]
    for task in reversed(of_run):
        if task.status not in OVER:
            return task
    if of_run:
        return of_run[-1]
    raise nearest(str(name), [str(task.run) for task in known], "run of the studio's queue")


def cancel(task: Task, stop: Stop = "keep", wait: float = ANSWER) -> str:
    """Ask a task to stop after its Step, and say how it stands: cancelled, stopping, or what it had come to before.

    `keep` leaves what `resume` needs to go on, `discard` removes the unfinished run; `pause` keeps it and the place in
    the line, and says paused.
    """
    if task.status in OVER:
        return task.status
    write_json(task.folder / "request.json", {"stop": stop, "at": time.time()}, durable=False)
    limit = time.monotonic() + wait
    with contextlib.suppress(Timeout):
        with FileLock(task.folder / ".lock", timeout=0):
            if task.status not in OVER:
                settle(task, stop)
        return task.status
    _signal(task, signal.SIGTERM)
    while time.monotonic() < limit and task.status == "stopping":
        time.sleep(0.02)
    return task.status


def force(task: Task) -> None:
    """End a task's process and its children at once; what it has on disk stays whole."""
    _signal(task, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)


def resume(task: Task) -> Task:
    """Put a task that is over, or lost, back into the queue at its old place; it goes on where it stopped."""
    state = task.state
    if state["status"] in ("queued", "running", "stopping", "done"):
        raise BadInput(f"{task.title} is {state['status']}; there is nothing to resume.")
    (task.folder / "request.json").unlink(missing_ok=True)
    losses = state.get("losses", 0) + (state["status"] == "lost")
    task.note("queued", command=state.get("command", 0), losses=losses)
    start(task.device)
    return task


def sooner(task: Task) -> None:
    """Let a waiting task change places with the one before it; BadInput when it does not wait."""
    line = waiting(task.device)
    at = next((number for number, other in enumerate(line) if other.id == task.id), None)
    if at is None:
        raise BadInput(f"{task.title} is {task.status}, so it cannot be done sooner; only waiting tasks have a place.")
    if at:
        before, place = line[at - 1], task.place
        write_json(task.folder / "place.json", {"place": before.place})
        write_json(before.folder / "place.json", {"place": place})


def hold() -> None:
    """Begin no further task until `release`; the one at work goes on."""
    write_json(home() / "hold", {"since": time.time()})


def release() -> None:
    """Go on with the line."""
    (home() / "hold").unlink(missing_ok=True)
    start()


def on_hold() -> bool:
    """Whether the line is stopped."""
    return (home() / "hold").is_file()


def recover() -> None:
    """After a crash or a reboot: put what was lost back into the queue, and see that the queues are worked on."""
    for task in tasks():
        if task.status == "lost" and task.state.get("losses", 0) < LOSSES:
            resume(task)
    start()


def forget(task: Task) -> None:
    """Take a task that is over off the list; its run stays."""
    if task.status not in OVER:
        raise BadInput(f"{task.title} is {task.status}; cancel it first.")
    with FileLock(task.folder / ".lock", timeout=ANSWER):  # its process may not have ended yet
        shutil.rmtree(task.folder)


def settle(task: Task, stop: Stop) -> None:
    """Write that a task is cancelled or paused; `discard` takes the unfinished run of an erasure with it."""
    if stop == "discard" and task.kind == "erase" and not (task.run / "edit.safetensors").exists():
        shutil.rmtree(task.run, ignore_errors=True)
    task.note(_stopped(stop), command=0 if stop == "discard" else task.state.get("command", 0))


def start(device: str | None = None) -> None:
    """See that somebody works on the queue of a device, or of every device with tasks waiting, unless it is held."""
    if on_hold():
        return
    for name in {device} if device else {task.device for task in waiting()}:
        # Started even if one seems to be at work, for that one may just be dying; of two, one leaves.
        subprocess.Popen(
            [sys.executable, "-m", "app.queue.worker", name], cwd=ROOT, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


@contextlib.contextmanager
def held(task: Task) -> Iterator[None]:
    """Be the one process that works on a task; Timeout when another one does."""
    with FileLock(task.folder / ".lock", timeout=PROBE):
        write_json(task.folder / "worker.json", {"pid": os.getpid(), "born": _born(os.getpid())})
        try:
            yield
        finally:
            (task.folder / "worker.json").unlink(missing_ok=True)


def alive(task: Task) -> bool:
    """Whether a process works on the task."""
    return taken(task.folder / ".lock")


def taken(lock: Path) -> bool:
    """Whether a process holds a lock."""
    if not lock.parent.is_dir():  # asking would make it
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def slot(device: str) -> str:
    """The name of the one place where a device's tasks run: `auto` and `cuda` are the first GPU if there is one."""
    if device in ("auto", "cuda"):
        return "cuda:0" if Path("/dev/nvidia0").exists() or device == "cuda" else "cpu"
    return device


def keeper_lock(device: str) -> Path:
    """Held by the process that starts a device's tasks one after the other."""
    return _lock(f"queue-{device}")


def device_lock(device: str) -> Path:
    """Held by the process that computes on a device."""
    return _lock(f"device-{device}")


def _lock(name: str) -> Path:
    make_folder(home() / "locks")
    return home() / "locks" / f"{name.replace(':', '-').replace('/', '-')}.lock"


def _tasks() -> Path:
    return home() / "tasks"


def opened(folder: Path) -> Task | None:
    """The task in a folder; None when there is none."""
    content = _read(folder / "task.json")
    if content is None:
        return None
    commands = tuple(tuple(command) for command in content["commands"])
    return Task(folder, content["kind"], content["title"], Path(content["run"]), commands, content["device"],
                content["submitted"])  # fmt: skip


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _stopped(stop: Stop) -> str:
    return "paused" if stop == "pause" else "cancelled"


def _signal(task: Task, number: int) -> None:
    """Signal the worker of a task, and the group of its children if it is to end at once; not a recycled pid."""
    worker: Mapping[str, Any] = _read(task.folder / "worker.json") or {}
    if not alive(task) or "pid" not in worker or worker["born"] != _born(worker["pid"]):
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if number == signal.SIGTERM or os.name == "nt":
            os.kill(worker["pid"], number)
        else:
            os.killpg(worker["pid"], number)


def _born(pid: int) -> str | None:
    """When a process began, as the system counts; None where it does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
