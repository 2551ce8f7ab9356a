"""The queue as a list with buttons, and the line at the head of the page that says how it stands, as HTML."""

from __future__ import annotations

import time
from collections.abc import Mapping
from html import escape
from typing import Any

from app.queue import paths, queue
from app.queue.queue import Task
from app.web.html import empty
from erase.files import free_bytes, size

SHOWN = 8  # tasks in the list, and every one that is not over
MARKS = {
    "queued": "◌", "running": "▶", "stopping": "◼", "paused": "‖", "done": "✓", "cancelled": "–", "failed": "✕",
    "lost": "?",
}  # fmt: skip
# What a button does: its sign and its meaning.
DO = {
    "sooner": ("↑", "Do it sooner"), "pause": ("‖", "Pause"), "resume": ("▶", "Resume"), "cancel": ("✕", "Cancel"),
    "force": ("■", "End its process at once"), "forget": ("−", "Take off the list; its run stays"),
}  # fmt: skip
HOLD = ("hold", "‖ Hold the line", "What is at work goes on, nothing further is begun.")
RELEASE = ("release", "▶ Go on with the line", "It is held: nothing further is begun.")


def tasks() -> str:
    """What is not over in the order it will be done, then the newest of the rest."""
    known = [(task, task.state) for task in queue.tasks()]
    if not known:
        return empty("The queue is empty.", "Everything you start is listed here, in the order it will be done.")
    unfinished = [(task, state) for task, state in known if state["status"] not in queue.OVER]
    over = [(task, state) for task, state in known[::-1] if state["status"] in queue.OVER]
    listed = [*unfinished, *over[: max(SHOWN - len(unfinished), 0)]]
    first = next((task.id for task, state in unfinished if state["status"] == "queued"), None)
    rows = "".join(_row(task, state, task.id == first) for task, state in listed)
    head = "".join(f"<th>{name}</th>" for name in ("status", "what", "of", "asked", ""))
    more = f"<p><small>{len(known) - len(listed)} earlier ones.</small></p>" if len(known) > len(listed) else ""
    return (
        f"{_hold() if first or queue.on_hold() else ''}"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{more}'
    )


def header() -> str:
    """Where tasks run, how many are at work and how many wait, and how much disk is left."""
    states = [task.status for task in queue.tasks()]
    at_work = sum(state in ("running", "stopping") for state in states)
    said = [queue.slot("auto"), f"{at_work} at work", f"{states.count('queued')} waiting"]
    said += ["line held"] if queue.on_hold() else []
    return "".join(f"<span>{escape(part)}</span>" for part in [*said, f"{size(free_bytes(paths.home()))} of disk free"])


def signed(state: Mapping[str, Any]) -> str:
    """A status with its sign."""
    return f"{MARKS[state['status']]} {state['status']}"


def _row(task: Task, state: Mapping[str, Any], first: bool) -> str:
    cells = (
        f'<td class="status {state["status"]}">{signed(state)}</td><td>{escape(task.kind)}</td>'
        f'<td><button type="button" class="link" data-do="watch" data-task="{task.id}" title="Show how it goes">'
        f"{escape(task.title)}</button></td><td>{_when(task.submitted)}</td>"
    )
    return (
        f'<tr>{cells}<td class="do">{"".join(_button(task, do) for do in _possible(state["status"], first))}</td></tr>'
    )


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


def _button(task: Task, do: str) -> str:
    sign, means = DO[do]
    return (
        f'<button type="button" data-do="{do}" data-task="{task.id}" title="{means}" '
        f'aria-label="{escape(f"{means}: {task.title}", quote=True)}">{sign}</button>'
    )


def _hold() -> str:
    do, label, means = RELEASE if queue.on_hold() else HOLD
    return f'<p><button type="button" data-do="{do}" data-task="">{label}</button> <small>{means}</small></p>'


def _when(then: float) -> str:
    """The time of day, or the day: a text that stays, so that the list changes only when something happens."""
    day = time.strftime("%F", time.localtime(then)) == time.strftime("%F")
    return time.strftime("%H:%M" if day else "%d %b", time.localtime(then))
