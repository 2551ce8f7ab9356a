"""The page's actions for programs: each takes the parameters of an action, and answers with a plain value."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints
from urllib.parse import quote

import gradio as gr

from app.queue.queue import Task
from app.web import actions, labels, task_view
from app.web.tabs import report_errors


@dataclass(frozen=True)
class Endpoint:
    """An action under its name for programs; `asked` is the dataclass it takes, whose fields are the parameters."""

    name: str
    action: Callable[..., Any]
    answer: Callable[[Any], Any] = lambda value: value  # the plain value of what the action gives
    asked: type | None = None

    def function(self) -> Callable[..., Any]:
        """What Gradio reads names, types, defaults and the description from, and calls."""
        described = self.asked or self.action
        signature = inspect.signature(described)

        def perform(*args: Any, **named: Any) -> Any:
            given = signature.bind(*args, **named)
            asked = [self.asked(*given.args, **given.kwargs)] if self.asked else given.args
            return self.action(*asked)

        def call_now(*args: Any, **named: Any) -> Any:
            return self.answer(perform(*args, **named))

        async def call_later(*args: Any, **named: Any) -> Any:
            return self.answer(await perform(*args, **named))

        call = call_later if inspect.iscoroutinefunction(self.action) else call_now
        call.__name__, call.__doc__ = self.name, self.action.__doc__
        call.__annotations__ = get_type_hints(described) | {"return": Any}
        call.__signature__ = signature.replace(return_annotation=Any)  # type: ignore[attr-defined]
        return call


def run_name(task: Task) -> str:
    """The name of the run that a task makes or works on."""
    return task.run.name


def status(task: str) -> dict[str, Any]:
    """How a task, or the newest one of a run, stands, and what its commands have answered."""
    found = actions.task_of(task)
    return {"task": found.id, "run": found.run.name, **found.state, "answers": found.answers}


def runs() -> list[str]:
    """The names of the runs, newest first."""
    return [name for _, name in task_view.run_names()]


def task_id(task: Task) -> str:
    """The id of a task."""
    return task.id


def address(path: Any) -> str:
    """Where a file can be fetched from, below the studio's address."""
    return f"/gradio_api/file={quote(str(path))}"


ENDPOINTS = (
    Endpoint("erase", actions.erase, run_name, asked=actions.Erasure),
    Endpoint("erase_marked", actions.erase_marked, run_name),
    Endpoint("latents", actions.draw_latents, task_id),
    Endpoint("mark", labels.mark),
    Endpoint("draw", actions.look, task_id),
    Endpoint("measure", actions.measure, task_id),
    Endpoint("best_strength", actions.strength, task_id),
    Endpoint("attack", actions.attack, task_id),
    Endpoint("take_off", actions.take_off, run_name),
    Endpoint("export", actions.export, task_id),
    Endpoint("download", actions.packed, address),
    Endpoint("neighbours", actions.neighbours),
    Endpoint("status", status),
    Endpoint("runs", runs),
)


def register() -> None:
    """Offer every endpoint, and every deed of the queue's list, under its name; inside `gr.Blocks` only."""
    for endpoint in ENDPOINTS:
        gr.api(report_errors(endpoint.function()), api_name=endpoint.name)
    for deed in actions.DEEDS:
        gr.api(_deed(deed), api_name=deed)


def _deed(name: str) -> Any:
    def act(task: str) -> str:
        return actions.do(name, task)

    return report_errors(act)
