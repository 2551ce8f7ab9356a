"""The page's actions for programs: each has a name, takes plain values, and answers with plain values."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import gradio as gr

from app.web import actions, labels, task_view
from app.web.tabs import said


def register() -> None:
    """Offer every action below, and every deed of the queue's list, under its name; inside `gr.Blocks` only."""
    offered = (
        erase, erase_marked, latents, mark, draw, measure, best_strength, attack, take_off, export, download,
        neighbours, status, runs,
    )  # fmt: skip
    for action in offered:
        gr.api(said(action), api_name=action.__name__)
    for deed in actions.DEEDS:
        gr.api(_deed(deed), api_name=deed)


def erase(
    model: str, concept: str, kind: str = "", anchor: str = "", keep: list[str] | None = None, method: str = "uce",
    knobs: dict[str, Any] | None = None, seed: int = 0, measure: bool = True,
) -> str:  # fmt: skip
    """Erase concepts, one a line; the name of the run, which the same job always has."""
    return actions.erase(model, concept, kind, anchor, keep or [], method, knobs, seed, measure).run.name


def erase_marked(
    model: str, concept: str, knobs: dict[str, Any] | None = None, seed: int = 0, measure: bool = True
) -> str:
    """Erase from a GAN what has been marked in its pictures; the name of the run."""
    return actions.erase_marked(model, concept, knobs, seed, measure).run.name


def latents(model: str, first: int = 0) -> str:
    """Draw a page of a GAN's latents; the task."""
    return actions.draw_latents(model, first).id


def mark(model: str, concept: str, seed: int, what: str) -> dict[str, list[int]]:
    """Say of a seed that it shows a concept (yes), does not (no), or neither (an empty text); all marks."""
    return labels.mark(model, concept, seed, what)  # type: ignore[arg-type]


def draw(run: str, prompt: str = "", seeds: str = "") -> str:
    """Draw a run's rows, or a prompt of your own, at every strength; the task."""
    return actions.look(run, prompt, seeds).id


def measure(run: str) -> str:
    """Judge a run; the task."""
    return actions.measure(run).id


def best_strength(run: str) -> str:
    """Search the strength that erases and spares the rest; the task."""
    return actions.strength(run).id


def attack(run: str, name: str, concept: str = "", budget: str = "", rows: int = 20) -> str:
    """Attack what a run erased; the task."""
    return actions.attack(run, name, concept, budget, rows).id


def take_off(run: str, number: int) -> str:
    """Take an edit off, into a new run; its name."""
    return actions.take_off(run, number).run.name


def export(run: str, form: str, strength: float = 1.0, dtype: str = "", size: float | None = None) -> str:
    """Export a run and prove that the export loads; the task."""
    return actions.export(run, form, strength, dtype, size).id


def download(run: str, form: str) -> str:
    """Where an export can be fetched from, below the studio's address."""
    return f"/gradio_api/file={quote(str(actions.packed(run, form)))}"


def neighbours(model: str, concept: str) -> list[str]:
    """The concepts nearest in meaning."""
    return actions.neighbours(model, concept)


def status(task: str) -> dict[str, Any]:
    """How a task, or the newest one of a run, stands, and what its commands have answered."""
    found = actions.task_of(task)
    return {"task": found.id, "run": found.run.name, **found.state, "answers": found.answers}


def runs() -> list[str]:
    """The names of the runs, newest first."""
    return [name for _, name in task_view.run_names()]


def _deed(name: str) -> Any:
    def act(task: str) -> str:
        return actions.do(name, task)

    return said(act)
