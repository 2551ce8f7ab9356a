"""What is being done and what is in the queue, as HTML, and which runs there are."""

from __future__ import annotations

import functools
import json
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.cli.progress import duration
from app.queue import paths, queue
from app.queue.queue import Task
from app.runs.run import Run, find_runs, is_run
from app.web.queue_view import signed
from app.web.templates import render
from benchmarks.pictures.plots import curves, inline
from erase.errors import BadInput

LOG = 20  # lines
CURVE = 160  # points of a loss curve
UNREADABLE = "(of another version)"


def run_names() -> list[tuple[str, str]]:
    """The studio's runs as (what to show, name), newest first."""
    runs = sorted(find_runs(paths.runs(), depth=1), key=lambda run: run.folder.stat().st_mtime, reverse=True)
    return [(_called(run), run.folder.name) for run in runs]


def coming() -> list[tuple[str, str]]:
    """Runs that were asked for and have no folder yet, newest first, as `run_names` has them."""
    waiting = [task for task in queue.tasks() if task.kind == "erase" and task.status not in queue.OVER]
    return [(f"{task.title} · {task.status}", task.run.name) for task in reversed(waiting) if not is_run(task.run)]


def readable() -> list[Run]:
    """The studio's runs whose job this version understands."""
    return [run for run in find_runs(paths.runs(), depth=1) if not _called(run).endswith(UNREADABLE)]


def current() -> str:
    """The id of the task somebody who opens the page wants to see: the running one, else the newest."""
    known = queue.tasks()
    running = [task for task in known if task.status in ("running", "stopping")]
    return (running or known)[-1].id if known else ""


def task_of(run: str) -> str:
    """The id of the newest task of a run; the current one where it has none."""
    folder = paths.run_folder(run)
    own = [task for task in queue.tasks() if task.run == folder]
    return own[-1].id if own else current()


def ended(task_id: str) -> str:
    """A mark that changes when a task comes to an end or finishes one of its commands; empty without a task."""
    task = _task(task_id)
    return "" if task is None else f"{task.id} {len(task.answers)} {task.status in queue.OVER}"


def progress(task_id: str) -> str:
    """A task as a panel: where it is, how long it will take, its losses, its newest preview, what went wrong."""
    task = _task(task_id)
    if task is None:
        return render("task_view.nothing")
    state, on_a_run = task.state, is_run(task.run)
    running = state["status"] in ("running", "stopping")
    waiting = [other for other in queue.tasks() if other.status in ("queued", "running") and other.id < task.id]
    return render(
        "task_view.progress",
        task=task,
        state={"error": None, **state},
        status=signed(state),
        ahead=len(waiting),
        stage=_stage(task, state) if running else "",
        share=state["done"] / state["total"] if state.get("total") else None,
        log=_log(task) if state.get("error") else "",
        curves=_curves(tuple((name, tuple(line)) for name, line in losses(task.run).items())) if on_a_run else "",
        preview=_preview(task.run) if on_a_run else None,
    )


def terminal(task_id: str) -> str:
    """The command lines of a task, as a terminal takes them."""
    task = _task(task_id)
    return "" if task is None else "\n".join(shlex.join(["studio", *command]) for command in task.commands)


def losses(run: Path) -> dict[str, list[tuple[float, float]]]:
    """Each loss of a run over its Steps, thinned out for drawing."""
    path = run / "events.jsonl"
    if not path.is_file():
        return {}
    series: dict[str, list[tuple[float, float]]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        try:
            values = json.loads(line).get("loss", {})
        except ValueError:  # the line that is being written
            break
        for name, value in values.items():
            series.setdefault(name, []).append((number + 1, value))
    return {name: line[:: max(len(line) // CURVE, 1)] for name, line in series.items()}


def estimate(model: str, method: str) -> str:
    """How long a job took before on this machine, or that nobody has measured it."""
    seconds = [
        run.state["seconds"]
        for run in readable()
        if run.status == "done" and run.job.method == method and Path(run.job.model).stem == Path(model).stem
    ]
    if not seconds:
        return f"How long {method} takes on this machine is not known before its first run here."
    middle = sorted(seconds)[len(seconds) // 2]
    times = "once" if len(seconds) == 1 else f"{len(seconds)} times"
    return f"Ran {times} on this machine; erasing took about {duration(middle)}."


def _called(run: Run) -> str:
    try:
        return f"{run.job.title} · {Path(run.job.model).stem} · {run.folder.name[-8:]}"
    except BadInput:
        return f"{run.folder.name} {UNREADABLE}"


def _task(task_id: str) -> Task | None:
    try:
        return queue.find(task_id) if task_id else None
    except BadInput:
        return None


def _stage(task: Task, state: Mapping[str, Any]) -> str:
    command = task.commands[min(state.get("command", 0), len(task.commands) - 1)]
    what = f"{state['command'] + 1} of {len(task.commands)}: {command[0]}"
    if "stage" not in state:
        return f"{what}, loading the model …"
    of = f" of {state['total']}" if state.get("total") else ""
    left = f", about {duration(state['left'])} left" if state.get("left") is not None else ""
    return f"{what}, {state['stage']} {state['done']}{of}{left}"


@functools.lru_cache(maxsize=32)
def _curves(series: tuple[tuple[str, tuple[tuple[float, float], ...]], ...]) -> str:
    """Losses over steps as an SVG element; drawn again only when there are new ones."""
    finite = {name: [point for point in line if math.isfinite(point[1])] for name, line in series}
    named = {f"{name} {line[-1][1]:.4g}": line for name, line in finite.items() if line}
    return inline(curves(named, "step", "loss")) if named else ""


def _log(task: Task) -> str:
    """The last lines a task that failed has printed."""
    path = task.folder / "log.txt"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG:] if path.is_file() else []
    return "\n".join(lines)


def _preview(run: Path) -> dict[str, Any] | None:
    newest = sorted((run / "previews").glob("[0-9]*.png"))[-1:]
    return {"path": newest[0], "step": int(newest[0].stem)} if newest else None
