"""The queue as a list with buttons, and the status line at the top of the page, as HTML."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from app.queue import paths, queue
from app.queue.queue import Task
from app.web.templates import render
from erase.files import free_bytes, size

SHOWN = 8  # tasks in the list, and every one that is not over
MARKS = {
    "queued": "◌", "running": "▶", "stopping": "◼", "paused": "‖", "done": "✓", "cancelled": "–", "failed": "✕",
    "lost": "?",
}  # fmt: skip
# What a button does: its sign and its meaning.
DO = {
    "sooner": ("↑", "Move up in the queue"), "pause": ("‖", "Pause"), "resume": ("▶", "Resume"),
    "cancel": ("✕", "Cancel"),
    "force": ("■", "Stop its process at once"), "forget": ("−", "Remove from the list; its run stays"),
}  # fmt: skip
HOLD = {"do": "hold", "label": "‖ Pause queue", "meaning": "The running task continues; no further task starts."}
RELEASE = {"do": "release", "label": "▶ Resume queue", "meaning": "The queue is paused: no further task starts."}


def tasks() -> str:
    """Unfinished tasks in the order they will run, then the newest of the rest."""
    known = [(task, task.state) for task in queue.tasks()]
    unfinished = [(task, state) for task, state in known if state["status"] not in queue.OVER]
    over = [(task, state) for task, state in known[::-1] if state["status"] in queue.OVER]
    listed = [*unfinished, *over[: max(SHOWN - len(unfinished), 0)]]
    first = next((task.id for task, state in unfinished if state["status"] == "queued"), None)
    rows = [_row(task, state["status"], task.id == first) for task, state in listed]
    hold = (RELEASE if queue.on_hold() else HOLD) if first or queue.on_hold() else None
    return render("queue_view.tasks", rows, hold, len(known) - len(listed))


def header() -> str:
    """Where tasks run, how many run and how many wait, and how much disk is free."""
    states = [task.status for task in queue.tasks()]
    running = sum(state in ("running", "stopping") for state in states)
    parts = [queue.slot("auto"), f"{running} running", f"{states.count('queued')} waiting"]
    parts += ["queue paused"] if queue.on_hold() else []
    return render("queue_view.header", [*parts, f"{size(free_bytes(paths.home()))} of disk free"])


def signed(state: Mapping[str, Any]) -> str:
    """A status with its sign."""
    return f"{MARKS[state['status']]} {state['status']}"


def _row(task: Task, status: str, first: bool) -> dict[str, Any]:
    return {
        "task": task,
        "status": status,
        "sign": MARKS[status],
        "when": _when(task.submitted),
        "buttons": [(do, *DO[do]) for do in _possible(status, first)],
    }


def _possible(status: str, first: bool) -> tuple[str, ...]:
    """What can be done with a task as it stands; the first of the line cannot be done sooner."""
    return {
        "queued": ("pause", "cancel") if first else ("sooner", "pause", "cancel"),
        "running": ("pause", "cancel"),
        "stopping": ("force",),
        "done": ("forget",),
        "paused": ("resume", "cancel"),
        "lost": ("resume", "cancel"),
    }.get(status, ("resume", "forget"))


def _when(then: float) -> str:
    """The time of day, or the day: a text that stays, so that the list changes only when something happens."""
    day = time.strftime("%F", time.localtime(then)) == time.strftime("%F")
    return time.strftime("%H:%M" if day else "%d %b", time.localtime(then))
