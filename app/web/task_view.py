"""What is being done and what is in the queue, as HTML, and which runs there are."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from app.cli.progress import duration
from app.queue import paths, queue
from app.queue.queue import Task
from app.runs.run import Run, find_runs, is_run
from app.web import charts
from app.web.html import SIDE, empty, img
from app.web.queue_view import signed
from erase.errors import BadInput

LOG = 20  # lines
CURVE = 160  # points of a loss curve
UNREADABLE = "(of another version)"


def run_names() -> list[tuple[str, str]]:
    """The studio's runs as (what to show, name), newest first."""
    runs = sorted(find_runs(paths.runs(), depth=1), key=lambda run: run.folder.stat().st_mtime, reverse=True)
    return [(_called(run), run.folder.name) for run in runs]


def readable() -> list[Run]:
    """The studio's runs whose job this version understands."""
    return [run for run in find_runs(paths.runs(), depth=1) if not _called(run).endswith(UNREADABLE)]


def current() -> str:
    """The id of the task somebody who opens the page wants to see: the one at work, else the newest."""
    known = queue.tasks()
    at_work = [task for task in known if task.status in ("running", "stopping")]
    return (at_work or known)[-1].id if known else ""


def task_of(run: str) -> str:
    """The id of the newest task of a run; the current one where it has none."""
    folder = paths.run_folder(run)
    own = [task for task in queue.tasks() if task.run == folder]
    return own[-1].id if own else current()


def ended(task_id: str) -> str:
    """A mark that changes when a task comes to an end or finishes one of its commands; empty without a task."""
    task = _task(task_id)
    return "" if task is None else f"{task.id} {len(task.answers)} {task.status in queue.OVER}"


def has_edit(run: str) -> bool:
    """Whether a run of that name is finished."""
    return bool(run) and (paths.run_folder(run) / "edit.safetensors").is_file()


def progress(task_id: str) -> str:
    """A task as a panel: where it is, how long it will take, its losses, its newest preview, what went wrong."""
    task = _task(task_id)
    if task is None:
        return empty(
            "Nothing is being done yet.",
            "Type a concept on the left and press Erase. Progress, losses and previews appear here, and go on without "
            "the page: close it, come back, and it is still here.",
        )
    state = task.state
    parts = [
        f"<h3>{escape(task.title)}</h3>",
        f'<p class="status {state["status"]}" role="status">{signed(state)}</p>',
    ]
    if state["status"] in ("running", "stopping"):
        parts.append(_stages(task, state))
        share = state["done"] / state["total"] if state.get("total") else None
        parts.append(f'<progress max="1" {"" if share is None else f"value={share:.3f}"}></progress>')
    if state["status"] == "queued":
        before = [other for other in queue.tasks() if other.status in ("queued", "running") and other.id < task.id]
        parts.append(f"<p>{len(before)} before it in the queue. One task at a time uses the {task.device}.</p>")
    if error := state.get("error"):
        parts.append(f'<p class="error">{escape(error["message"])}</p>{_log(task)}')
    if state["status"] == "done":
        parts.append("<p>The tabs above show what came of it, beginning with Before / after.</p>")
    if state["status"] == "paused":
        parts.append("<p>Press Resume: it goes on where it stopped, to the same bits.</p>")
    if state["status"] == "lost":
        parts.append("<p>Its process is gone without a word. Press Resume: it goes on from its last snapshot.</p>")
    if is_run(task.run):
        parts.append(charts.curves(losses(task.run), "step", f"losses of {task.title}"))
        parts.append(_preview(task.run))
    parts.append(_typed(task))
    return f'<div class="panel">{"".join(parts)}</div>'


def losses(run: Path) -> dict[str, list[tuple[float, float]]]:
    """Each loss of a run over its Steps, thinned out for drawing."""
    path = run / "events.jsonl"
    if not path.is_file():
        return {}
    series: dict[str, list[tuple[float, float]]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        try:
            told = json.loads(line).get("loss", {})
        except ValueError:  # the line that is being written
            break
        for name, value in told.items():
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
        return f"How long {escape(method)} takes here has not been measured yet; after the first run it is told here."
    middle = sorted(seconds)[len(seconds) // 2]
    times = "once" if len(seconds) == 1 else f"{len(seconds)} times"
    return f"Ran {times} on this machine: about {duration(middle)} for the erasing itself."


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


def _stages(task: Task, state: Mapping[str, Any]) -> str:
    command = task.commands[min(state.get("command", 0), len(task.commands) - 1)]
    what = f"{state['command'] + 1} of {len(task.commands)}: {command[0]}"
    if "stage" not in state:
        return f"<p>{what}, loading the model …</p>"
    of = f" of {state['total']}" if state.get("total") else ""
    left = f", about {duration(state['left'])} left" if state.get("left") is not None else ""
    return f"<p>{what}, {escape(state['stage'])} {state['done']}{of}{left}</p>"


def _typed(task: Task) -> str:
    """The same in a terminal."""
    lines = "\n".join(shlex.join(["studio", *command]) for command in task.commands)
    return f"<details><summary>The same in a terminal</summary><pre>{escape(lines)}</pre></details>"


def _log(task: Task) -> str:
    """The last lines a task that failed has printed."""
    path = task.folder / "log.txt"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG:] if path.is_file() else []
    return f"<details><summary>Its last words</summary><pre>{escape(chr(10).join(lines))}</pre></details>"


def _preview(run: Path) -> str:
    newest = sorted((run / "previews").glob("[0-9]*.png"))[-1:]
    return "".join(
        f'<figure class="preview">{img(path, f"preview at step {int(path.stem)}", side=2 * SIDE)}'
        f"<figcaption>What the model draws at step {int(path.stem)}</figcaption></figure>"
        for path in newest
    )
