"""`python -m app.queue.worker DEVICE` keeps a queue moving; each task has a detached process of its own.

Neither is a child of the page: closing it, or killing its server, touches nobody here. Killing the keeper leaves the
task running, and whoever adds the next task starts another keeper; killing the task's process lets the queue go on.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from app.queue import queue
from app.queue.queue import Task
from erase.files import write_json

if TYPE_CHECKING:
    from erase.work import Step

EVERY = 0.5  # seconds between two looks at the progress


def keep(device: str) -> None:
    """Start the tasks of a device one after the other until none may be begun; at most one keeper does."""
    while queue.following(device):
        try:
            with FileLock(queue.keeper_lock(device), timeout=queue.PROBE):
                while queue.following(device):
                    with FileLock(queue.device_lock(device)):  # a task that outlived its keeper goes first
                        pass
                    for task in queue.following(device):
                        _start(task)
        except Timeout:
            return
        # A task that came just before the lock was free has started no keeper, so the queue is looked at once more.


def work(task: Task) -> None:
    """Work through a task's commands from the one it had come to; how it ends is in its state.json."""
    with queue.held(task), FileLock(queue.device_lock(task.device)):
        signal.signal(signal.SIGTERM, _interrupt)
        at, answers = task.state.get("command", 0), task.answers
        answers, looked = answers[:at], _Look(task)
        try:
            for looked.command in range(at, len(task.commands)):
                looked.note()
                answers.append(_answer(task, looked))
                write_json(task.folder / "answers.json", {"answers": answers})
        except BaseException as error:
            from app.cli.main import explain

            # An interrupted import may raise anything, so it is the wish that counts.
            if task.stop or isinstance(error, KeyboardInterrupt):
                queue.settle(task, task.stop or "keep")
                return

            kind, _, message = explain(error)
            print(message, file=sys.stderr)
            task.note("failed", command=looked.command, error={"kind": kind, "message": message})
        else:
            task.note("done", command=len(task.commands))


def _answer(task: Task, look: _Look) -> Any:
    if task.stop:
        raise KeyboardInterrupt
    from app.cli.main import answered
    from app.cli.progress import watched

    command = task.commands[look.command]
    print("$ studio", *command, file=sys.stderr, flush=True)
    with watched(look):
        answer = answered(command)
    print(answer.text, flush=True)
    if answer.code:
        raise RuntimeError(answer.text)
    return answer.document


class _Look:
    """Writes a task's progress into its state, now and then."""

    def __init__(self, task: Task) -> None:
        self.task, self.command, self.shown = task, 0, 0.0
        self.losses = task.state.get("losses", 0)

    def __call__(self, what: str, step: Step, left: float | None) -> None:
        now = time.monotonic()
        if now - self.shown < EVERY:
            return
        self.shown = now
        self.note(what=what, stage=step.stage, done=step.done, total=step.total, loss=dict(step.loss), left=left)

    def note(self, **progress: Any) -> None:
        self.task.note("running", command=self.command, losses=self.losses, **progress)


def _start(task: Task) -> None:
    """Run a task in a process of its own and wait for it; one that could not even begin has failed."""
    queued = task.state
    with (task.folder / "log.txt").open("ab") as log:
        ended = subprocess.run(
            [sys.executable, "-m", "app.queue.worker", "--task", str(task.folder)],
            cwd=queue.ROOT, start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False,
        )  # fmt: skip
    if ended.returncode and task.state == queued:  # not put back into the queue meanwhile, nor told to stop
        message = f"The worker did not start (exit {ended.returncode}); {task.folder / 'log.txt'} says why."
        task.note("failed", command=0, error={"kind": "unexpected", "message": message})


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str]) -> None:
    """DEVICE keeps its queue; --task FOLDER works on one task."""
    if argv[0] != "--task":
        keep(argv[0])
    elif (task := queue.opened(Path(argv[1]))) is not None:
        work(task)


if __name__ == "__main__":
    main(sys.argv[1:])
