"""Who runs the tasks of a sweep: this process, a pool of processes, or a Ray cluster. The results are the same.

Every engine takes tasks and gives each one's outcome as soon as it has it. A task that raises, or takes its process
down with it, is a failed outcome and no more.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

from erase.errors import BadInput


@dataclass(frozen=True)
class Outcome:
    """How a task ended; a failed one with its kind of error and the sentence for it."""

    task: str
    status: str
    seconds: float = 0.0
    kind: str = ""
    message: str = ""


@dataclass(frozen=True)
class Setting:
    """What every process is set to: how many threads it computes with, and environment variables."""

    threads: int
    environment: Mapping[str, str]

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Be set to it for a while."""
        wanted = {**self.environment, "OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


Perform = Callable[[Any], Outcome]  # a function of a module: other processes find it by its name


def here(tasks: Sequence[Any], perform: Perform, setting: Setting) -> Iterator[Outcome]:
    """One task after the other, in this process."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(setting.threads)
    try:
        with setting.held():
            for task in tasks:
                yield perform(task)
    finally:
        torch.set_num_threads(threads)


def pool(tasks: Sequence[Any], perform: Perform, setting: Setting, workers: int, log: Path) -> Iterator[Outcome]:
    """Several processes of this machine, each on a GPU of its own where there are several; a dead one is replaced."""
    waiting = deque(tasks)
    team = [_Worker(perform, setting, place, log) for place in range(min(workers, len(tasks)))]
    try:
        while waiting or any(worker.task is not None for worker in team):
            for worker in team:
                if waiting and worker.task is None:
                    worker.give(waiting.popleft())
            yield from _heard(team)
    finally:
        for worker in team:
            worker.end()


def _heard(team: Sequence[_Worker]) -> Iterator[Outcome]:
    """Wait until somebody has finished or died, and say what became of each such task."""
    busy = [worker for worker in team if worker.task is not None]
    ready = connection.wait([handle for worker in busy for handle in (worker.pipe, worker.process.sentinel)])
    for worker in busy:
        if worker.pipe in ready or worker.process.sentinel in ready:
            yield worker.take()


class _Worker:
    """One process and the task it is at."""

    def __init__(self, perform: Perform, setting: Setting, place: int, log: Path) -> None:
        self.perform, self.setting, self.place, self.log = perform, setting, place, log
        self.task: Any = None
        self._start()

    def _start(self) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        with self.setting.held(), _gpu(self.place):
            self.process = context.Process(
                target=_serve, args=(theirs, self.perform, self.setting, self.log / f"worker-{self.place}.log")
            )
            self.process.start()
        theirs.close()

    def give(self, task: Any) -> None:
        self.task = task
        self.pipe.send(task)

    def take(self) -> Outcome:
        """The outcome of its task; a process that died leaves a sentence, and another takes its place."""
        task, self.task = self.task, None
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            self._start()
            return Outcome(
                task.name, "failed", kind="died",
                message=f"Its process ended {how}, perhaps for want of memory; {self.log} holds what it said last.",
            )  # fmt: skip

    def end(self) -> None:
        """Stop politely; a task in the middle keeps its state and can be resumed."""
        self.pipe.close()
        if self.process.is_alive():
            self.process.terminate()
        self.process.join(30)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _serve(pipe: Any, perform: Perform, setting: Setting, log: Path) -> None:
    """A worker's life: tasks in, outcomes out, until the pipe closes or the parent dies."""
    import torch

    torch.set_num_threads(setting.threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8", buffering=1) as file:
        sys.stdout = sys.stderr = file
        with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
            while True:
                pipe.send(perform(pipe.recv()))


def _die_with_parent() -> None:
    """A killed parent must not leave workers that hold its runs."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


@contextlib.contextmanager
def _gpu(place: int) -> Iterator[None]:
    """Show a process that is started meanwhile one GPU only, where there are several."""
    import torch

    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    if count < 2:
        yield
        return
    names = shown.split(",") if shown else [str(number) for number in range(count)]
    os.environ["CUDA_VISIBLE_DEVICES"] = names[place % len(names)]
    try:
        yield
    finally:
        if shown is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = shown


def ray(tasks: Sequence[Any], perform: Perform, setting: Setting, address: str) -> Iterator[Outcome]:
    """A Ray cluster at an address (`local` starts one here); every machine must see the sweep's folder by its path."""
    try:
        import ray as cluster  # type: ignore[import-not-found]
    except ImportError:
        raise BadInput("--ray needs Ray: install it with `pip install ray`, or use --workers instead.") from None

    environment = {**setting.environment, "OMP_NUM_THREADS": str(setting.threads)}
    try:
        cluster.init(address=address, runtime_env={"env_vars": environment}, log_to_driver=False)
    except (ConnectionError, ValueError) as error:
        raise BadInput(f"There is no Ray cluster at {address} ({error}); `local` starts one here.") from None
    try:
        remote = cluster.remote(num_cpus=setting.threads, num_gpus=_share_of_gpu(cluster), max_retries=0)(_remotely)
        names = {remote.remote(perform, task, setting.threads): task.name for task in tasks}
        waiting = list(names)
        while waiting:
            ready, waiting = cluster.wait(waiting)
            for reference in ready:
                try:
                    yield cluster.get(reference)
                except cluster.exceptions.RayError as error:  # pyright: ignore[reportAttributeAccessIssue]
                    yield Outcome(names[reference], "failed", kind="died", message=f"Ray lost it: {error}")
    finally:
        cluster.shutdown()


def _remotely(perform: Perform, task: Any, threads: int) -> Outcome:
    import torch

    torch.set_num_threads(threads)
    return perform(task)


def _share_of_gpu(cluster: Any) -> int:
    return 1 if cluster.cluster_resources().get("GPU") else 0
